"""Turn a dataclass into the options of a command, with tyro, and set their help."""

from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from typing import Any, TypeVar, get_type_hints

import tyro
from docstring_parser import parse_from_object

Command = TypeVar("Command")


def command_line(
    command: type[Command],
    module: str,
    description: str | None,
    arguments: Sequence[str] | None,
    default: Command | None = None,
) -> Command:
    """Parse what was typed after `python -m MODULE`; exit after --help and after wrong usage.

    description: what the command does, with examples; the docstring of its module.
    """
    _set_help(command)
    typed = tyro.cli(
        command,
        prog=f"python -m {module}",
        description=description,
        args=arguments,
        default=default,
        config=(tyro.conf.OmitArgPrefixes,),
    )
    assert typed is not None  # this happens only with a default of None
    return typed


def by_default(what: str, metavar: str) -> Any:
    """Describe an optional option: what its value is called, and what happens without it."""
    return tyro.conf.arg(metavar=metavar, help_behavior_hint=f"(default: {what})")


def _set_help(command: type[Any]) -> None:
    """Set the help of each option: the docstring of its field, as one line.

    tyro would read the docstring itself, but it keeps the line breaks of indented lines. It prefers
    a help text in the metadata of a field.
    """
    documented = {each.arg_name: each.description for each in parse_from_object(command).params}
    hints = get_type_hints(command)
    for f in fields(command):
        if is_dataclass(hints[f.name]):
            _set_help(hints[f.name])
        elif text := documented.get(f.name):
            f.metadata = {**f.metadata, "help": " ".join(text.split())}  # type: ignore[assignment]
