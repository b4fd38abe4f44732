"""The application: each command has its docstring as help, and below it a first command to try and the exit codes."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Annotated, TypeVar

import typer

from conv_impls import __version__

from ..program import COMMAND, commands
from .terminal import say

Function = TypeVar("Function", bound=Callable[..., None])
EXIT_CODES = (
    "Exit codes: 0 fine; 1 a wrong result, a crash or a regression; 2 a wrong option or file, or a package is missing; "
    "130 interrupted."
)
FIRST = f"{COMMAND} run --workload smoke --backends fast"
ABOUT = (
    f"Measure convolution backends: check them first, then time them, then make tables and figures. {COMMAND} list "
    f"shows backends and workloads, {COMMAND} COMMAND --help the options of a command."
)


def _epilog(first: str) -> str:
    return f"Try first: {first}\n\n{EXIT_CODES}"


app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, pretty_exceptions_enable=False, epilog=_epilog(FIRST))


def command(function: Function, name: str | None = None) -> Function:
    """Add a command. The first example of its docstring is the command to try first."""
    text = commands(inspect.getdoc(function) or "")
    first = next(line.strip() for line in text.splitlines() if line.startswith(f"  {COMMAND} "))
    return app.command(name, help=text, epilog=_epilog(first))(function)


def _print_version(wanted: bool) -> None:
    if wanted:
        say(f"conv-impls {__version__}")
        raise typer.Exit


@app.callback(help=ABOUT)
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Options of the program itself."""
