"""The base of all errors that a user meets, and the one place that prints them.

How Ctrl-C ends a command stands here too, because each command imports this first.
"""

import _signal  # type: ignore[import-not-found]  # the import of `signal` takes milliseconds
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

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
    except BaseException as error:
        if _is_interrupt(error):
            print(_STOPPED, file=sys.stderr)
            return INTERRUPTED
        if isinstance(error, GanpackError | OSError):
            return report(error)
        raise


def report(error: Exception) -> int:
    """Print an error on stderr and return the exit code of a command that ends with it."""
    print(f"{getattr(error, 'heading', GanpackError.heading)}{error}", file=sys.stderr)
    return getattr(error, "exit_code", GanpackError.exit_code)


INTERRUPTED: int = 128 + _signal.SIGINT
"""The exit code after Ctrl-C."""
_STOPPED = "stopped by SIGINT; what was saved is whole"


def end_at_interrupt() -> None:
    """Let Ctrl-C end this process at once, with one line.

    For a command, before it imports anything else. Libraries that are being imported swallow a
    KeyboardInterrupt, or make another error of it. An ignored SIGINT stays ignored, as under nohup.
    """
    if _signal.getsignal(_signal.SIGINT) is _signal.default_int_handler:
        _signal.signal(_signal.SIGINT, _end)


@contextmanager
def interruptible() -> Iterator[None]:
    """Let Ctrl-C raise KeyboardInterrupt in this context, so that unfinished files are removed."""
    if _signal.getsignal(_signal.SIGINT) is not _end:
        yield
        return
    _signal.signal(_signal.SIGINT, _signal.default_int_handler)
    try:
        yield
    finally:
        _signal.signal(_signal.SIGINT, _end)


def _end(number: int, frame: object) -> None:
    with suppress(Exception):  # it may have been interrupted itself
        sys.stdout.flush()
    if os.getpid() == _PROCESS:  # a fork has its parent's handler
        with suppress(OSError):
            os.write(2, f"{_STOPPED}\n".encode())
    os._exit(INTERRUPTED)


_PROCESS = os.getpid()


def _is_interrupt(error: BaseException | None) -> bool:
    """Whether an error is a KeyboardInterrupt, or a library has converted one to it."""
    while error is not None:
        if isinstance(error, KeyboardInterrupt):
            return True
        error = error.__cause__ or error.__context__
    return False
