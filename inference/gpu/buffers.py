"""Reused memory: workspaces of calls in progress, and memory of dropped results."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from queue import SimpleQueue
from typing import Generic, TypeVar

from ..runtime.device import Context, DeviceMemory

Kept = TypeVar("Kept")

_KEPT_BYTES = 2**27
"""Most bytes of dropped results that are kept for later results."""


class Pool(Generic[Kept]):
    """A pool of things that a call uses alone; at most `most` of them, made when needed.

    A signal handler may call while its own thread is in a call. It cannot wait for that call, so it
    gets a thing beyond the limit, which is dropped afterwards. Each step here is atomic in Python,
    so that a handler may run between any two steps.
    """

    def __init__(self, make: Callable[[], Kept], most: int) -> None:
        self._make = make
        self._free: list[Kept] = []
        self._turns: SimpleQueue[None] = SimpleQueue()  # reentrant
        for _ in range(most):
            self._turns.put(None)
        self._thread = _Depth()

    @property
    def nested(self) -> bool:
        """Whether this thread is in more than one call."""
        return self._thread.calls > 1

    @property
    def in_use(self) -> bool:
        """Whether this thread is in a call."""
        return self._thread.calls > 0

    @contextmanager
    def one(self) -> Iterator[Kept]:
        """Take a thing; wait while other threads use all of them."""
        self._thread.calls += 1
        try:
            if self.nested:
                yield self._make()
                return
            self._turns.get()
            try:
                kept = self._take()
                try:
                    yield kept
                finally:
                    self._free.append(kept)
            finally:
                self._turns.put(None)
        finally:
            self._thread.calls -= 1

    def _take(self) -> Kept:
        try:
            return self._free.pop()
        except IndexError:
            return self._make()


class _Depth(threading.local):
    """Per thread: how many calls it is in."""

    calls = 0


class Shelf:
    """Keeps the memory of dropped results for new results of the same size."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._kept: list[DeviceMemory] = []

    def take(self, size: int) -> DeviceMemory:
        """Memory on the device, which returns to this shelf when nothing refers to it any more.

        The context must be current.
        """
        for kept in list(self._kept):
            if kept.size == size and self._remove(kept):
                if kept.exported:
                    # Other libraries may have started work on the memory before they dropped it.
                    self._context.synchronize()
                return _Returned(self, kept)
        try:
            return _Returned(self, DeviceMemory(self._context, size))
        except MemoryError:
            self._kept.clear()
            return _Returned(self, DeviceMemory(self._context, size))

    def put(self, memory: DeviceMemory) -> None:
        """Keep memory for later, or free it if enough is kept. Keeping does not call the driver."""
        if sum(kept.size for kept in list(self._kept)) + memory.size <= _KEPT_BYTES:
            self._kept.append(memory)

    def _remove(self, memory: DeviceMemory) -> bool:
        try:
            self._kept.remove(memory)
        except ValueError:  # another thread took it first
            return False
        return True


class _Returned(DeviceMemory):
    """Memory that belongs to a shelf."""

    def __init__(self, shelf: Shelf, memory: DeviceMemory) -> None:
        self._shelf, self._memory = shelf, memory
        self.context, self.handle, self.size = memory.context, memory.handle, memory.size
        self.exported = False

    def __del__(self) -> None:
        self._memory.exported = self.exported
        self._shelf.put(self._memory)
