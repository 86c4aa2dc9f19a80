"""The memory of a call, on the device and on the host."""

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
"""Up to this size, a kernel writes the images of a batch directly into host memory."""


class Output(NamedTuple):
    """The output of the network: images as float32, or their pixels."""

    name: str
    kind: type[Any]
    shape: tuple[int, ...]
    """Shape of one image."""


class Workspace:
    """Inputs and outputs of one run of the network, for up to `capacity` images."""

    def __init__(self, context: Context, metadata: Metadata, capacity: int, output: Output) -> None:
        self._context, self._metadata, self._capacity = context, metadata, capacity
        self.image = prod(metadata.image_shape)
        self.z = DeviceMemory(context, 4 * capacity * metadata.latent_dim)
        self.result = DeviceMemory(context, np.dtype(output.kind).itemsize * capacity * self.image)
        self._output = output
        self.labels: DeviceMemory | None = None
        if metadata.classes:
            # A run may have more images than were asked for, and these need valid labels too.
            self.labels = DeviceMemory(context, 8 * capacity)
            self.labels.write(np.zeros(capacity, np.int64))
        self.runs: dict[int, Callable[[], None]] = {}
        """A function that puts a run of this many images on the stream."""
        self.done = Event(context)
        self.copies = Stream(context)
        self.few = max(1, min(capacity, _PINNED_BYTES // self.image))
        """Number of images that `host` has room for."""
        self.host = PinnedMemory(context, self.few * self.image)
        self._staged: list[Staged] = []
        self._segments: dict[int, Segment] = {}
        self._turn = 0

    def inputs(self, count: int) -> dict[str, OnDevice]:
        """The addresses of z and labels."""
        found: dict[str, OnDevice] = {
            "z": (self.z.handle, np.float32, (count, self._metadata.latent_dim))
        }
        if self.labels is not None:
            found["labels"] = self.labels.handle, np.int64, (count,)
        return found

    def outputs(self, count: int) -> dict[str, OnDevice]:
        """The address of the output."""
        name, kind, shape = self._output
        return {name: (self.result.handle, kind, (count, *shape))}

    def staged(self) -> "Staged":
        """Pinned memory for z and labels, which may be overwritten now."""
        if not self._staged:  # most devices draw them themselves
            self._staged = [Staged(self._context, self._metadata, self._capacity) for _ in range(2)]
        self._turn = 1 - self._turn
        staged = self._staged[self._turn]
        staged.sent.wait()
        return staged

    def segment(self, number: int, size: int) -> "Segment":
        """Device memory for the pixels of many tiles, by number; two of them take turns.

        size: the fewest bytes.
        """
        turn = number % 2
        if turn not in self._segments or self._segments[turn].pixels.size < size:
            self._segments[turn] = Segment(self._context, size)
        return self._segments[turn]


class Segment:
    """Pixels of several tiles on the device, with an event for each tile."""

    def __init__(self, context: Context, size: int) -> None:
        self._context = context
        self.pixels = DeviceMemory(context, size)
        self._done: list[Event] = []

    def done(self, number: int) -> Event:
        """The event of a tile, by its number."""
        while len(self._done) <= number:
            self._done.append(Event(self._context))
        return self._done[number]


class Staged:
    """Pinned memory for copies of z and labels to the device, with an event for their end."""

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
