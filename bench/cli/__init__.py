"""``python -m bench``: words of the command line in, calls of the other rooms out. Nothing imports this room."""
