"""The memory that a call works in, on the device and on the host."""

from collections.abc import Callable
from math import prod
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..artifact import Metadata
from ..runtime.device import Context, DeviceMemory, PinnedMemory
from ..runtime.shared_session import OnDevice
from ..runtime.streams import Event, Stream

_PINNED_BYTES = 2**17
"""Images of a batch up to this size are written to the host by the device itself."""


class Output(NamedTuple):
    """The network's output: images in float32, or their pixels."""

    name: str
    kind: type[Any]
    shape: tuple[int, ...]
    """Shape of one image."""


class Workspace:
    """What one run of the network reads and writes, of up to `capacity` images, and its copies."""

    def __init__(self, context: Context, metadata: Metadata, capacity: int, output: Output) -> None:
        self._context, self._metadata, self._capacity = context, metadata, capacity
        self.image = prod(metadata.image_shape)
        self.z = DeviceMemory(context, 4 * capacity * metadata.latent_dim)
        self.drawn = DeviceMemory(context, np.dtype(output.kind).itemsize * capacity * self.image)
        self._output = output
        self.labels: DeviceMemory | None = None
        if metadata.classes:
            # A run may be of more images than were asked for: their labels, too, must be some.
            self.labels = DeviceMemory(context, 8 * capacity)
            self.labels.write(np.zeros(capacity, np.int64))
        self.runs: dict[int, Callable[[], None]] = {}
        """What puts a run of so many images on the stream."""
        self.done = Event(context)
        self.copies = Stream(context)
        self.few = max(1, min(capacity, _PINNED_BYTES // self.image))
        """Images that `host` has room for."""
        self.host = PinnedMemory(context, self.few * self.image)
        self._staged: list[Staged] = []
        self._segments: dict[int, Segment] = {}
        self._turn = 0

    def inputs(self, count: int) -> dict[str, OnDevice]:
        """Where the network finds z and labels."""
        found: dict[str, OnDevice] = {
            "z": (self.z.handle, np.float32, (count, self._metadata.latent_dim))
        }
        if self.labels is not None:
            found["labels"] = self.labels.handle, np.int64, (count,)
        return found

    def outputs(self, count: int) -> dict[str, OnDevice]:
        """Where the network leaves what it draws."""
        name, kind, shape = self._output
        return {name: (self.drawn.handle, kind, (count, *shape))}

    def staged(self) -> "Staged":
        """Memory of the host to send z and labels from, free to be written."""
        if not self._staged:  # most hosts let the device draw them
            self._staged = [Staged(self._context, self._metadata, self._capacity) for _ in range(2)]
        self._turn = 1 - self._turn
        staged = self._staged[self._turn]
        staged.sent.wait()
        return staged

    def segment(self, number: int, size: int) -> "Segment":
        """Memory of the device for the pixels of many tiles, by its number; two take turns.

        size: bytes, at least.
        """
        turn = number % 2
        if turn not in self._segments or self._segments[turn].pixels.size < size:
            self._segments[turn] = Segment(self._context, size)
        return self._segments[turn]


class Segment:
    """Pixels of several tiles on the device, and when each tile is drawn."""

    def __init__(self, context: Context, size: int) -> None:
        self._context = context
        self.pixels = DeviceMemory(context, size)
        self._drawn: list[Event] = []

    def drawn(self, number: int) -> Event:
        """Event that tells when a tile is drawn, by the tile's number."""
        while len(self._drawn) <= number:
            self._drawn.append(Event(self._context))
        return self._drawn[number]


class Staged:
    """Pinned memory that z and labels go to the device from, and when they have gone."""

    def __init__(self, context: Context, metadata: Metadata, capacity: int) -> None:
        size = 4 * capacity * metadata.latent_dim
        self._memory = PinnedMemory(context, size), PinnedMemory(context, 8 * capacity)
        shape = capacity, metadata.latent_dim
        self.z: NDArray[np.float32] = self._memory[0].array.view(np.float32).reshape(shape)
        self.labels: NDArray[np.int64] = self._memory[1].array.view(np.int64)
        self.sent = Event(context)

    def send(self, stream: Stream, workspace: Workspace, count: int) -> None:
        """Put copies of the first z and labels on a stream."""
        size = self.z[:count].nbytes
        stream.to_device(self._memory[0].handle, workspace.z.handle, size)
        if workspace.labels is not None:
            stream.to_device(self._memory[1].handle, workspace.labels.handle, 8 * count)
        stream.record(self.sent)
