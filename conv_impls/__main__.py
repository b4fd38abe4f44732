"""``python -m conv_impls trace 1x128x128 "conv 8 k3 s1 p1; conv 16 k3 s2 p1"``: follow an image through a stack."""

from __future__ import annotations

import argparse
import sys

from conv_impls.errors import ConvError
from conv_impls.trace import GRAMMAR, trace

EXAMPLES = f"""examples:
  python -m conv_impls trace 1x128x128 "conv 8 k3 s1 p1; conv 16 k3 s2 p1; conv 16 k3 p1; conv 32 k3 s2 p1"
  python -m conv_impls trace 3x224x224 "conv 32 k3 s2 p1; conv 32 k3 p1 dw; conv 16 k1; maxpool k2"

layers: {GRAMMAR}
exit codes: 0 fine, 2 usage"""


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("python -m conv_impls", description=__doc__, epilog=EXAMPLES, formatter_class=form)
    commands = parser.add_subparsers(dest="command", required=True)
    tracer = commands.add_parser(
        "trace", help="sizes, receptive fields, parameters, MACs", epilog=EXAMPLES, formatter_class=form
    )
    tracer.add_argument("input", help="CxHxW, for example 3x224x224")
    tracer.add_argument("layers", help="layers separated by ';'")
    options = parser.parse_args(arguments)
    sizes = options.input.split("x")
    if len(sizes) != 3 or not all(size.isdecimal() for size in sizes):
        tracer.error(f"input: expected CxHxW such as 3x224x224, got {options.input!r}")
    try:
        print(trace([int(size) for size in sizes], options.layers))
    except ConvError as error:
        tracer.error(str(error))
    return 0


if __name__ == "__main__":
    sys.exit(main())
