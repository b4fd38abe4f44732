"""Reference of the command lines, computed from their parsers: Typer for `bench`, argparse for `conv_impls`."""

from __future__ import annotations

import argparse
import inspect
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import get_args

from typer.models import ArgumentInfo, CommandInfo, ParameterInfo

from bench.cli.main import app
from bench.run.options import RESULTS
from conv_impls.__main__ import _parser

BENCH, LIBRARY = "python -m bench", "python -m conv_impls"
# What an option of a type takes.
WORDS = {str: "TEXT", int: "NUMBER", float: "NUMBER", Path: "PATH"}


@dataclass(frozen=True)
class Option:
    """An option or argument: its names, its help, and its default (empty if it has none)."""

    names: str
    help: str
    default: str = ""


@dataclass(frozen=True)
class Command:
    """A command with its description, options and examples."""

    name: str
    text: str
    options: list[Option] = field(default_factory=list)
    examples: list[str] = field(default_factory=list)


def bench() -> list[Command]:
    """The commands of `python -m bench`."""
    return [_of_typer(info) for info in app.registered_commands]


def library() -> list[Command]:
    """The commands of `python -m conv_impls`."""
    found: list[Command] = []
    for action in _parser()._actions:
        if isinstance(action, argparse._SubParsersAction):
            found += [_of_argparse(f"{LIBRARY} {name}", parser) for name, parser in action.choices.items()]
    return found


def markdown(commands: list[Command]) -> Iterator[str]:
    """Lines of Markdown, a section for each command."""
    for command in commands:
        yield from (f"## `{command.name}`", "", _escaped(command.text), "")
        for option in command.options:
            default = f" Default: `{option.default}`." if option.default else ""
            # A definition list is readable on a phone, where a table is not.
            yield from (f"`{option.names}`", f": {_escaped(option.help)}{default}", "")
        if command.examples:
            yield from ("```text", *command.examples, "```", "")


def _of_typer(info: CommandInfo) -> Command:
    callback = info.callback
    assert callback is not None
    text, _, examples = (inspect.getdoc(callback) or "").partition("\b\nExamples")
    options = []
    for parameter in inspect.signature(callback, eval_str=True).parameters.values():
        # `Annotated[type, typer.Option(...)]`; the context of Typer has no annotation of this kind.
        declared = next(iter(getattr(parameter.annotation, "__metadata__", ())), None)
        if not isinstance(declared, ParameterInfo):
            continue
        # With Annotated, Typer stores the first name of an option as its default.
        given = [text for text in (declared.default, *(declared.param_decls or ())) if isinstance(text, str)]
        name = (given or ["--" + parameter.name.replace("_", "-")])[0]
        kinds = set(get_args(parameter.annotation.__origin__)) - {type(None)} or {parameter.annotation.__origin__}
        if isinstance(declared, ArgumentInfo):
            name = parameter.name.upper()
        elif kinds != {bool}:
            name += " " + WORDS[kinds.pop()]
        default = declared.show_default if isinstance(declared.show_default, str) else _default(parameter.default)
        options.append(Option(name, declared.help or "", default))
    command = f"{BENCH} {info.name or callback.__name__}"
    return Command(command, _paragraphs(text), options, _examples(examples, command))


def _of_argparse(name: str, parser: argparse.ArgumentParser) -> Command:
    options = []
    for action in parser._actions:
        if action.dest == "help":
            continue
        names = ", ".join(action.option_strings) or action.dest.upper()
        if action.option_strings and action.nargs != 0:
            names += f" {'|'.join(map(str, action.choices)) if action.choices else action.dest.upper()}"
        options.append(Option(names, action.help or "", _default(action.default)))
    return Command(name, _paragraphs(parser.description or ""), options, _examples(parser.epilog or "", name))


def _default(value: object) -> str:
    """The default as text, relative to the checkout if it is a path; empty if there is none."""
    if value in (None, "", False, inspect.Parameter.empty, [], [None]):
        return ""
    return os.path.relpath(value, RESULTS.parent) if isinstance(value, Path) else str(value)


def _paragraphs(text: str) -> str:
    """Text with every paragraph on one line."""
    return "\n\n".join(" ".join(part.split()) for part in re.split(r"\n\s*\n", text.strip()))


def _examples(text: str, command: str) -> list[str]:
    """The lines of a help text that call this command."""
    return [line.strip() for line in text.splitlines() if line.strip().startswith(command)]


def _escaped(text: str) -> str:
    """Text whose signs have no meaning in Markdown."""
    return re.sub(r"([*_<>\[\]|])", r"\\\1", text)
