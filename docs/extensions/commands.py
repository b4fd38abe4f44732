"""Reference of the command lines, computed from their parsers: Typer for `bench`, argparse for `conv_impls`."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import typer.main

from bench.cli.main import app
from conv_impls.__main__ import _parser

BENCH, LIBRARY = "python -m bench", "python -m conv_impls"


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
    group: Any = typer.main.get_command(app)
    return [_of_typer(f"{BENCH} {name}", command) for name, command in group.commands.items()]


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


def _of_typer(name: str, command: Any) -> Command:
    text, _, examples = (command.help or "").partition("\b\nExamples")
    options = []
    for parameter in command.params:
        if parameter.name == "help":
            continue
        argument = parameter.param_type_name == "argument"
        names = parameter.name.upper() if argument else ", ".join(parameter.opts)
        if not argument and not parameter.is_flag:
            names += f" {parameter.type.name.upper()}"
        default = parameter.show_default if isinstance(parameter.show_default, str) else _default(parameter.default)
        options.append(Option(names, parameter.help or "", default))
    return Command(name, _paragraphs(text), options, _examples(examples))


def _of_argparse(name: str, parser: argparse.ArgumentParser) -> Command:
    options = []
    for action in parser._actions:
        if action.dest == "help":
            continue
        names = ", ".join(action.option_strings) or action.dest.upper()
        if action.option_strings and action.nargs != 0:
            names += f" {'|'.join(map(str, action.choices)) if action.choices else action.dest.upper()}"
        options.append(Option(names, action.help or "", _default(action.default)))
    return Command(name, _paragraphs(parser.description or ""), options, _examples(parser.epilog or ""))


def _default(value: object) -> str:
    """The default as text; empty if there is none. The root of the checkout is not part of the text."""
    return "" if value in (None, "", False, [], [None]) else str(value).rpartition("/results")[-1] and _short(value)


def _short(value: object) -> str:
    text = str(value)
    return "results" + text.rpartition("/results")[2] if "/results" in text else text


def _paragraphs(text: str) -> str:
    """Text with every paragraph on one line."""
    return "\n\n".join(" ".join(part.split()) for part in re.split(r"\n\s*\n", text.strip()))


def _examples(text: str) -> list[str]:
    """The command lines of a help text."""
    return [line.strip() for line in text.splitlines() if line.strip().startswith("python -m ")]


def _escaped(text: str) -> str:
    """Text whose signs have no meaning in Markdown."""
    return re.sub(r"([*_<>\[\]|])", r"\\\1", text)
