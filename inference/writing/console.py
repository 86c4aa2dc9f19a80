"""Output of commands. A command does its work, whether or not anybody reads its output."""

import codecs
import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, BinaryIO, TextIO, cast

_PLAIN = {
    "…": "...", "×": "x", "→": "->", "─": "-", "│": "|", **dict.fromkeys("╭╮╰╯", "+")
}  # fmt: skip


@contextmanager
def safe_output() -> Iterator[None]:
    """Let no command fail because of stdout or stderr; a decorator for the `main` of each command.

    If a stream is closed, full, or a pipe without a reader, its text is dropped. Characters that
    its encoding lacks are replaced by ASCII. `print_result` and `bytes_of_stdout` still fail.
    """
    _occupy_standard_files()
    before = sys.stdout, sys.stderr
    safe = [_SafeStream(stream) for stream in before]
    sys.stdout, sys.stderr = (cast(TextIO, stream) for stream in safe)
    try:
        yield
    finally:
        for stream in safe:
            stream.restore()
        sys.stdout, sys.stderr = before


def print_result(text: str) -> None:
    """Print the result of a command.

    Raises:
        OSError: if it cannot be written, except because the reader of a pipe has gone.
    """
    print(text)
    sys.stdout.flush()
    problem = getattr(sys.stdout, "problem", None)
    if problem is not None and not isinstance(problem, BrokenPipeError):
        raise OSError(f"stdout cannot be written: {problem.strerror}")


def bytes_of_stdout() -> BinaryIO:
    """stdout for bytes.

    Raises:
        OSError: if it is closed.
    """
    if sys.stdout is None or getattr(sys.stdout, "is_closed", False):
        raise OSError("stdout is closed, and nothing can be written to it")
    return sys.stdout.buffer


class _SafeStream:
    """A text stream that drops what cannot be written."""

    def __init__(self, stream: TextIO | None) -> None:
        """stream: None if it was closed before the program began."""
        self.is_closed = stream is None
        self.problem: OSError | None = OSError(0, "it is closed") if stream is None else None
        self._stream = stream or open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115
        self._errors = self._stream.errors
        self._write_missing_letters(_HANDLER)

    def write(self, text: str) -> int:
        """Write or drop the text."""
        try:
            return self._stream.write(text)
        except OSError as error:
            self._drop(error)
            return len(text)

    def flush(self) -> None:
        """Write or drop everything that was not yet written."""
        try:
            self._stream.flush()
        except OSError as error:
            self._drop(error)

    def restore(self) -> None:
        """Leave the stream as it was, so that Python can flush it at its end."""
        self.flush()
        self._write_missing_letters(self._errors)
        if self.is_closed:
            self._stream.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def _drop(self, error: OSError) -> None:
        """Redirect the stream to the null device, so that Python's last flush succeeds too."""
        self.problem = self.problem or error
        with suppress(OSError):  # it may have no file descriptor
            number = self._stream.fileno()
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, number)
            os.close(nowhere)

    def _write_missing_letters(self, handler: str | None) -> None:
        if isinstance(self._stream, io.TextIOWrapper):
            with suppress(OSError):  # it flushes
                self._stream.reconfigure(errors=handler)


def _occupy_standard_files() -> None:
    """Open descriptors 0, 1 and 2 where they are closed.

    Otherwise the next opened files would get these numbers, and output of libraries would go into
    these files.
    """
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(number)


def _in_ascii(error: UnicodeError) -> tuple[str, int]:
    """Replace what cannot be encoded, as an error handler of `codecs`."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    letters = error.object[error.start : error.end]
    plain = (_PLAIN.get(x) or x.encode("ascii", "backslashreplace").decode() for x in letters)
    return "".join(plain), error.end


_HANDLER = "ganpack-ascii"
codecs.register_error(_HANDLER, _in_ascii)
