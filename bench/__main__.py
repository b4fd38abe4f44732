"""``python -m bench`` and ``conv-bench``: the command line is in `bench.cli`."""

from __future__ import annotations

import sys

from .program import COMMAND, INSTALL, PACKAGE


def main() -> None:
    """Run the command line; without the packages that it needs, print one line and exit with 2."""
    try:
        from .cli.main import main as command_line

        command_line()
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing in ("", PACKAGE, "conv_impls"):
            raise
        print(f"{COMMAND}: the package {missing} is missing; install the extra bench: {INSTALL}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
