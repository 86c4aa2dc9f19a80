"""The base of all errors that a user meets, and the one place that prints them."""

import sys
from collections.abc import Callable


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
