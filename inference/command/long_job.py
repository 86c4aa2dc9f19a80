"""Progress and signals of long jobs."""

import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TextIO

_QUIET = 2.0  # jobs shorter than this many seconds show no progress


class Stopped(KeyboardInterrupt):
    """The process was asked to stop by a signal."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.exit_code = 128 + number
        """The exit code of a process that was stopped by this signal."""


class Stop:
    """Notes a signal, so that the job can stop at a moment when nothing is half written."""

    def __init__(self) -> None:
        self._number = 0

    def ask(self, number: int, frame: FrameType | None) -> None:
        """Handle a signal; the second one stops the job at once."""
        if self._number:
            raise Stopped(number)
        self._number = number

    def check(self) -> None:
        """Raise Stopped if a signal has arrived."""
        if self._number:
            raise Stopped(self._number)


@contextmanager
def stoppable() -> Iterator[Stop]:
    """Handle SIGINT and SIGTERM inside this context, in the main thread."""
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {n: signal.signal(n, stop.ask) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Progress:
    """Shows on stderr how many images are done: one changing line, or a line every 30 seconds."""

    def __init__(self, count: int, stream: TextIO | None = None) -> None:
        self._count, self._stream = count, stream or sys.stderr
        self._terminal = self._stream.isatty()
        self._every = 0.5 if self._terminal else 30.0
        self._begin = time.monotonic()
        self._next = self._begin + _QUIET
        self._shown = False

    def show(self, done: int) -> None:
        """Show the progress, if it is time to."""
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
        """End the changing line."""
        if self._shown and self._terminal:
            print(file=self._stream)
