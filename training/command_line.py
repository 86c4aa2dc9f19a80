"""Options of a command from a dataclass, by tyro, with help that reads well."""

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
    """What was typed after `python -m MODULE`; prints and exits for --help and for bad usage.

    description: what it does, and examples, as the docstring of the module.
    """
    _join_lines(command)
    typed = tyro.cli(
        command,
        prog=f"python -m {module}",
        description=description,
        args=arguments,
        default=default,
        config=(tyro.conf.OmitArgPrefixes,),
    )
    assert typed is not None  # only a default of None would give that
    return typed


def by_default(what: str, metavar: str) -> Any:
    """An option that may be left out, and what then happens."""
    return tyro.conf.arg(metavar=metavar, help_behavior_hint=f"(default: {what})")


def _join_lines(command: type[Any]) -> None:
    """Make the docstring of each option one line: tyro would break where the source does."""
    documented = {each.arg_name: each.description for each in parse_from_object(command).params}
    hints = get_type_hints(command)
    for f in fields(command):
        if is_dataclass(hints[f.name]):
            _join_lines(hints[f.name])
        elif text := documented.get(f.name):
            f.metadata = {**f.metadata, "help": " ".join(text.split())}  # type: ignore[assignment]
