"""Sources of the z and labels of a call: the device, the host, or the caller."""

from collections.abc import Callable
from functools import partial
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ..artifact import Metadata
from ..noise import labels, latents
from ..runtime.streams import Stream
from .kernels import Kernels
from .workspace import Workspace


class Noise(Protocol):
    """The z and labels of a call; each tile uses a slice of them."""

    def prepare(self, workspace: Workspace, tile: slice, stream: Stream) -> Callable[[], None]:
        """Do the host's part; return a function that puts the rest on the stream."""


class DeviceNoise:
    """z and labels that kernels draw on the device."""

    def __init__(
        self, kernels: Kernels, metadata: Metadata, seed: int, start: int, label: int | None
    ) -> None:
        self._kernels, self._seed, self._start, self._label = kernels, seed, start, label
        self._latent_dim, self._classes = metadata.latent_dim, len(metadata.classes)

    def prepare(self, workspace: Workspace, tile: slice, stream: Stream) -> Callable[[], None]:
        """The host has nothing to do."""
        return partial(self._launch, workspace, tile, stream)

    def _launch(self, workspace: Workspace, tile: slice, stream: Stream) -> None:
        count, start = tile.stop - tile.start, self._start + tile.start
        self._kernels.latents(
            stream, workspace.z.handle, count, self._latent_dim, seed=self._seed, start=start
        )
        if workspace.labels is not None:
            self._kernels.labels(
                stream, workspace.labels.handle, count, self._classes, self._label,
                seed=self._seed, start=start,
            )  # fmt: skip


class HostNoise:
    """z and labels that the processor draws, if the device cannot."""

    def __init__(
        self, metadata: Metadata, seed: int, start: int, label: int | None, threads: int
    ) -> None:
        self._seed, self._start, self._label, self._threads = seed, start, label, threads
        self._latent_dim, self._classes = metadata.latent_dim, len(metadata.classes)

    def prepare(self, workspace: Workspace, tile: slice, stream: Stream) -> Callable[[], None]:
        """Draw into pinned memory."""
        count, start, staged = tile.stop - tile.start, self._start + tile.start, workspace.staged()
        latents(
            count, self._latent_dim, seed=self._seed, start=start, out=staged.z[:count],
            threads=self._threads,
        )  # fmt: skip
        if self._label is not None:
            staged.labels[:count] = self._label
        elif self._classes:
            drawn = labels(count, self._classes, seed=self._seed, start=start)
            staged.labels[:count] = drawn
        return partial(staged.send, stream, workspace, count)


class GivenNoise:
    """The caller's z, float (n, latent_dim), and labels, int64 (n,), with classes."""

    def __init__(self, z: NDArray[np.floating], labels: NDArray[np.int64] | None) -> None:
        self._z, self._labels = z, labels

    def prepare(self, workspace: Workspace, tile: slice, stream: Stream) -> Callable[[], None]:
        """Copy z into pinned memory, as float32."""
        count, staged = tile.stop - tile.start, workspace.staged()
        staged.z[:count] = self._z[tile]
        if self._labels is not None:
            staged.labels[:count] = self._labels[tile]
        return partial(staged.send, stream, workspace, count)
