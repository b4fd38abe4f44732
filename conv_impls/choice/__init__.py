"""How `auto` chooses: a cost model, the limits of this machine, winners of tuning, and the files that store them."""
