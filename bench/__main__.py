"""``python -m bench``: the command line is in `bench.cli`."""

from .cli.main import main

if __name__ == "__main__":
    main()
