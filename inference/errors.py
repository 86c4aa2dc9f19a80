"""The base of all errors that a user meets, and the one place that prints them."""

import sys
from collections.abc import Callable

_LONGEST = 1000
"""Characters of a message. The rest of a longer one is cut from its middle."""


def presentable(text: str) -> str:
    """One line of bounded length that a terminal can show, of text that anyone may have chosen.

    Characters that are not printable are escaped, such as control characters, marks of the writing
    direction and halves of characters. A text that is presentable stays as it is.
    """
    text = _shortened(text)
    if text.isprintable():
        return text
    line = " ".join(text.split())
    escaped = (c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in line)
    return _shortened("".join(escaped))


def _shortened(text: str) -> str:
    if len(text) <= _LONGEST:
        return text
    end = _LONGEST // 4
    return f"{text[: _LONGEST - end - 3]} … {text[-end:]}"


class GanpackError(Exception):
    """Something that cannot be done; the message says why, and where possible what to do."""

    exit_code = 1
    """What a command ends with."""
    heading = "error: "
    """What a command prints before the message."""


def reporting(command: Callable[[], int]) -> int:
    """Run a command and return its exit code; print a known error, and return the error's code."""
    try:
        return command()
    except (GanpackError, OSError) as error:
        return report(error)


def report(error: Exception) -> int:
    """Print an error on stderr and return the exit code of a command that ends with it."""
    print(f"{getattr(error, 'heading', GanpackError.heading)}{error}", file=sys.stderr)
    return getattr(error, "exit_code", GanpackError.exit_code)
