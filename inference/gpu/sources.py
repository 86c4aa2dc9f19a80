"""Where the z and labels of a call come from: the device, the host, or the caller."""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ..artifact import Metadata
from ..noise import labels, latents
from ..runtime.streams import Stream
from .noise_kernel import NoiseKernel
from .slots import Slot


class Noise(Protocol):
    """z and labels of a call, of which a tile is a slice."""

    def prepare(self, slot: Slot, tile: slice) -> None:
        """Do what the host has to do."""

    def put(self, stream: Stream, slot: Slot, tile: slice) -> None:
        """Put on the stream what fills the slot's memory on the device."""


class DeviceNoise:
    """Drawn by kernels on the device."""

    def __init__(
        self, kernel: NoiseKernel, metadata: Metadata, seed: int, start: int, label: int | None
    ) -> None:
        self._kernel, self._seed, self._start, self._label = kernel, seed, start, label
        self._latent_dim, self._classes = metadata.latent_dim, len(metadata.classes)

    def prepare(self, slot: Slot, tile: slice) -> None:
        """Nothing."""

    def put(self, stream: Stream, slot: Slot, tile: slice) -> None:
        """Launch the kernels."""
        count, start = tile.stop - tile.start, self._start + tile.start
        self._kernel.latents(
            stream, slot.z.handle, count, self._latent_dim, seed=self._seed, start=start
        )
        if slot.labels is not None:
            self._kernel.labels(
                stream, slot.labels.handle, count, self._classes, self._label,
                seed=self._seed, start=start,
            )  # fmt: skip


class HostNoise:
    """Drawn by the processor, where the device cannot."""

    def __init__(
        self, metadata: Metadata, seed: int, start: int, label: int | None, threads: int
    ) -> None:
        self._seed, self._start, self._label, self._threads = seed, start, label, threads
        self._latent_dim, self._classes = metadata.latent_dim, len(metadata.classes)

    def prepare(self, slot: Slot, tile: slice) -> None:
        """Draw into pinned memory."""
        count, start = tile.stop - tile.start, self._start + tile.start
        latents(
            count, self._latent_dim, seed=self._seed, start=start, out=slot.staged_z[:count],
            threads=self._threads,
        )  # fmt: skip
        if slot.labels is not None and self._label is not None:
            slot.staged_labels[:count] = self._label
        elif slot.labels is not None:
            drawn = labels(count, self._classes, seed=self._seed, start=start)
            slot.staged_labels[:count] = drawn

    def put(self, stream: Stream, slot: Slot, tile: slice) -> None:
        """Send it."""
        slot.send(stream, tile.stop - tile.start)


class GivenNoise:
    """The caller's, float (n, latent_dim), and with classes int64 (n,)."""

    def __init__(self, z: NDArray[np.floating], labels: NDArray[np.int64] | None) -> None:
        self._z, self._labels = z, labels

    def prepare(self, slot: Slot, tile: slice) -> None:
        """Copy it into pinned memory, as float32."""
        count = tile.stop - tile.start
        slot.staged_z[:count] = self._z[tile]
        if self._labels is not None:
            slot.staged_labels[:count] = self._labels[tile]

    def put(self, stream: Stream, slot: Slot, tile: slice) -> None:
        """Send it."""
        slot.send(stream, tile.stop - tile.start)
