"""Read JSON of unknown origin strictly."""

import json
from math import isfinite
from typing import Any, NoReturn

_MOST_VALUES = 2**16
_DEEPEST = 32
_LONGEST_NUMBER = 20


def strict_json(text: str, most_values: int = _MOST_VALUES) -> Any:
    """The values of a JSON text, without NaN, infinity or absurd numbers, depths and counts.

    `1e400` would be infinity, and a whole number of a million digits takes a minute to print. Half
    a character, as an escape can make, cannot be printed at all.

    most_values: the most values of all lists and objects.

    Raises:
        ValueError: if it is no such text; the message says why.
    """
    # Each value but the first of a list or an object follows a comma.
    if sum(map(text.count, ",[{")) > most_values:
        raise ValueError(f"it has more than {most_values:,} values, which is absurd")
    try:
        values = json.loads(text, parse_constant=_refuse, parse_int=_integer, parse_float=_finite)
    except RecursionError:
        raise ValueError(_TOO_DEEP) from None
    _require_plain(values)
    return values


_TOO_DEEP = "its values lie absurdly deep within one another"


def _require_plain(values: Any) -> None:
    """Raise ValueError for values that lie too deep, and for half of a character."""
    left = [(values, 0)]
    while left:
        value, depth = left.pop()
        if depth > _DEEPEST:
            raise ValueError(_TOO_DEEP)
        if isinstance(value, dict):
            left += [(name, depth) for name in value]
            left += [(inner, depth + 1) for inner in value.values()]
        elif isinstance(value, list):
            left += [(inner, depth + 1) for inner in value]
        elif isinstance(value, str) and not value.isascii():
            value.encode()  # UnicodeEncodeError is a ValueError


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _integer(digits: str) -> int:
    if len(digits) > _LONGEST_NUMBER:
        raise ValueError(f"a whole number of {len(digits):,} digits is absurd")
    return int(digits)


def _finite(digits: str) -> float:
    number = float(digits)
    if not isfinite(number):
        raise ValueError(f"{digits[:_LONGEST_NUMBER]} is too large for a number")
    return number
