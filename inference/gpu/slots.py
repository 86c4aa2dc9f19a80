"""The memory of a tile, on the device and on the host, and that of a call."""

from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..artifact import Metadata
from ..runtime.device import Context, DeviceMemory, PinnedMemory
from ..runtime.streams import Event, Graph, Stream

SLOTS = 3
"""Tiles of a call that are in progress."""


class Slot:
    """What one run of the network reads and writes: z, labels and pixels of `capacity` images."""

    def __init__(self, context: Context, metadata: Metadata, capacity: int) -> None:
        self._context, self._capacity = context, capacity
        self._latent_dim = metadata.latent_dim
        size = capacity * prod(metadata.image_shape)
        self.z = DeviceMemory(context, 4 * capacity * metadata.latent_dim)
        self.pixels = DeviceMemory(context, size)
        self.host = PinnedMemory(context, size)
        self.labels: DeviceMemory | None = None
        if metadata.classes:
            # A run may be of more images than were asked for: their labels, too, must be some.
            self.labels = DeviceMemory(context, 8 * capacity)
            self.labels.write(np.zeros(capacity, np.int64))
        self.drawn, self.done = Event(context), Event(context)
        self._staged: tuple[PinnedMemory, PinnedMemory] | None = None

    @property
    def staged_z(self) -> NDArray[np.float32]:
        """Pinned memory to send z from, float32 (capacity, latent_dim)."""
        return self._staging()[0].array.view(np.float32).reshape(self._capacity, self._latent_dim)

    @property
    def staged_labels(self) -> NDArray[np.int64]:
        """Pinned memory to send labels from, int64 (capacity,)."""
        return self._staging()[1].array.view(np.int64)

    def send(self, stream: Stream, count: int) -> None:
        """Put copies of the first staged z and labels to the device on a stream."""
        stream.to_device(self._staging()[0].handle, self.z.handle, 4 * count * self._latent_dim)
        if self.labels is not None:
            stream.to_device(self._staging()[1].handle, self.labels.handle, 8 * count)

    def inputs(self, count: int) -> dict[str, tuple[int, Any, tuple[int, ...]]]:
        """Address, type and shape of each input of the network."""
        found: dict[str, tuple[int, Any, tuple[int, ...]]] = {
            "z": (self.z.handle, np.float32, (count, self._latent_dim))
        }
        if self.labels is not None:
            found["labels"] = self.labels.handle, np.int64, (count,)
        return found

    def _staging(self) -> tuple[PinnedMemory, PinnedMemory]:
        if self._staged is None:  # most hosts let the device draw
            self._staged = (
                PinnedMemory(self._context, 4 * self._capacity * self._latent_dim),
                PinnedMemory(self._context, 8 * self._capacity),
            )
        return self._staged


class Workspace:
    """The buffers of one call; made when they are needed first."""

    def __init__(self, context: Context, metadata: Metadata, few: int, tile: int) -> None:
        self._context, self._metadata, self._few, self._tile = context, metadata, few, tile
        self.graphs: dict[int, Graph] = {}
        self._small: Slot | None = None
        self._large: list[Slot] = []

    def small(self) -> Slot:
        """Of a small batch."""
        if self._small is None:
            self._small = Slot(self._context, self._metadata, self._few)
        return self._small

    def large(self, number: int) -> Slot:
        """Of a tile, by its number; a few share one."""
        while len(self._large) <= number % SLOTS:
            self._large.append(Slot(self._context, self._metadata, self._tile))
        return self._large[number % SLOTS]
