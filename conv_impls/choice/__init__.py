"""How `auto` chooses: a cost model, the limits of this machine, winners of measurements, and where those are kept."""
