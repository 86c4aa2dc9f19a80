"""Read JSON that may be damaged: typed values, or an error that says what is wrong."""

import json
import sys
from collections.abc import Hashable
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from inference.writing.files import atomic_write
from inference.writing.plain_file import read_plain

_MOST_BYTES = 2**24  # of a file; the longest hold the names and scores of thousands of classes
_KINDS = {dict: "an object", list: "a list", str: "a text", bool: "true or false", NoneType: "null"}


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file.

    Raises:
        OSError: if there is no such file, or if it is no plain file, or far too large.
        ValueError: if it holds anything else.
    """
    return parse_object(read_plain(path, _MOST_BYTES))


def write_object(path: Path, content: dict[str, Any]) -> None:
    """Write a JSON object atomically."""
    with atomic_write(path) as file:
        file.write((json.dumps(content, indent=2, allow_nan=False) + "\n").encode())


def parse_object(text: bytes) -> dict[str, Any]:
    """The JSON object in a text; NaN and infinity are not allowed.

    Raises:
        ValueError: if it is anything else.
    """
    try:
        value = _DECODER.decode(text.decode("utf-8"))
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if not isinstance(value, dict):
        raise ValueError(f"it is {_described(value)}, not an object")
    return value


def typed(kind: Any, value: Any, place: str = "") -> Any:
    """The value of a type, from JSON values.

    kind: a dataclass, a type of JSON, Path, or a list, tuple, dict, union or Literal of such types.
    The keys of a dataclass that are missing take its defaults; unknown keys are ignored.
    place: where the value stands, for messages.

    Raises:
        ValueError: if the value has another type, or a key without a default is missing.
    """
    if isinstance(kind, type) and is_dataclass(kind):
        return _dataclass(kind, value, place)
    origin, inner = get_origin(kind), get_args(kind)
    if origin in {Union, UnionType}:
        return _first_that_fits(inner, value, place)
    if origin is Literal:
        if any(type(value) is type(each) and value == each for each in inner):
            return value
        raise ValueError(_wrong(place, value, f"one of {', '.join(map(repr, inner))}"))
    if origin is dict and isinstance(value, dict):
        return {
            typed(inner[0], key, place): typed(inner[1], item, f"{place}.{key}"[:80])
            for key, item in value.items()
        }
    if origin in {list, tuple} and isinstance(value, list | tuple):
        kinds = [inner[0]] * len(value) if origin is list or inner[-1] is ... else inner
        if len(kinds) != len(value):
            raise ValueError(_wrong(place, value, f"{len(kinds)} values"))
        return origin(typed(each, item, place) for each, item in zip(kinds, value, strict=True))
    return _plain(kind, value, place)


def _dataclass(kind: Any, value: Any, place: str) -> Any:
    if not isinstance(value, dict):
        raise ValueError(_wrong(place, value, "an object"))
    hints = _hints(kind)
    needed = {f.name for f in fields(kind) if f.default is f.default_factory is MISSING}
    if missing := sorted(needed - value.keys()):
        raise ValueError(f"{place or 'it'} has no {', '.join(missing)}")
    given = {
        f.name: typed(hints[f.name], value[f.name], f"{place}.{f.name}".removeprefix("."))
        for f in fields(kind)
        if f.name in value
    }
    return kind(**given)


@cache
def _hints(kind: Hashable) -> dict[str, Any]:
    return get_type_hints(kind)


def _first_that_fits(kinds: tuple[Any, ...], value: Any, place: str) -> Any:
    reasons = []
    for kind in kinds:
        try:
            return typed(kind, value, place)
        except ValueError as error:
            reasons.append(error)
    raise reasons[-1]


def _plain(kind: Any, value: Any, place: str) -> Any:
    if kind is Any:
        return value
    if kind is NoneType and value is None:
        return None
    if kind is float and type(value) in {int, float}:
        if abs(value) <= sys.float_info.max:  # false for NaN
            return value
    elif kind is int and type(value) is int:
        if abs(value) < 2**63:
            return value
    elif kind is bool and type(value) is bool:
        return value
    elif kind in {str, Path} and isinstance(value, str) and _is_text(value):
        return kind(value)
    raise ValueError(_wrong(place, value, _NAMES.get(get_origin(kind) or kind, "another type")))


_NAMES = {
    float: "a finite number", int: "a whole number", bool: "true or false", str: "a text",
    Path: "a path", NoneType: "null", dict: "an object", list: "a list", tuple: "a list",
}  # fmt: skip


def _is_text(value: str) -> bool:
    """Whether a text can be printed and be a path: no NUL, and no half of a character."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return "\0" not in value


def _wrong(place: str, value: Any, expected: str) -> str:
    return f"{place or 'it'} is {_described(value)}, not {expected}"


def _described(value: Any) -> str:
    """A value in a few words: it may be of any length."""
    if type(value) in {int, float, str}:
        return repr(value[:40]) if isinstance(value, str) else str(value)[:40]
    return _KINDS.get(type(value), type(value).__name__)


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is no number in JSON")


_DECODER = json.JSONDecoder(parse_constant=_refuse)
