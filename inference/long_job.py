"""Long jobs of a command: how far they are, and how they are stopped."""

import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TextIO

_QUIET = 2.0  # seconds that no job is called long in


class Stopped(KeyboardInterrupt):
    """The process was asked to stop by a signal."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.exit_code = 128 + number
        """What a shell expects of a process that ended so."""


@contextmanager
def stoppable() -> Iterator[None]:
    """Raise Stopped at SIGINT and SIGTERM, for the time being and in the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: FrameType | None) -> None:
        raise Stopped(number)

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Progress:
    """Says on stderr how many images are done: one line that changes, or a line now and then."""

    def __init__(self, count: int, stream: TextIO | None = None) -> None:
        self._count, self._stream = count, stream or sys.stderr
        self._terminal = self._stream.isatty()
        self._every = 0.5 if self._terminal else 30.0
        self._begin = time.monotonic()
        self._next = self._begin + _QUIET
        self._shown = False

    def show(self, done: int) -> None:
        """Say it, if it is time to."""
        now = time.monotonic()
        if now < self._next or done == 0:
            return
        self._next = now + self._every
        rate = done / (now - self._begin)
        text = (
            f"{done:,} of {self._count:,} images, {rate:,.0f}/s, "
            f"{(self._count - done) / rate:,.0f} s left"
        )
        print(f"\r{text:<70}" if self._terminal else text, end="" if self._terminal else "\n",
              file=self._stream, flush=True)  # fmt: skip
        self._shown = True

    def end(self) -> None:
        """Leave the line that changes."""
        if self._shown and self._terminal:
            print(file=self._stream)
