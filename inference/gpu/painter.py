"""Images from a generator on a CUDA device: noise, network and copies on one stream.

Small batches go through CUDA graphs of a few sizes, one call to the driver instead of dozens. Large
ones go in tiles: while one is copied to the host, the network draws the next.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from math import prod

import numpy as np
from numpy.typing import NDArray

from ..artifact import ArtifactError, Metadata
from ..runtime.device import Context
from ..runtime.driver import ProviderError
from ..runtime.session import say
from ..runtime.shared_session import Session
from ..runtime.streams import Graph, GraphError, Stream
from .buffers import Pool, Shelf
from .device_images import DeviceImages
from .noise_kernel import NoiseKernel
from .slots import SLOTS, Slot, Workspace
from .sources import DeviceNoise, GivenNoise, HostNoise, Noise

GRAPH_SIZES = (1, 8, 64, 128, 256, 512, 1024)
"""Batches that graphs are made for. A smaller one takes the next and drops the rest."""
_CALLS = 4  # that have buffers of their own; more of them wait
_SMALLEST_TILE = 1024  # quick to copy, when the network has no more work meanwhile
Keep = Callable[[slice, NDArray[np.uint8]], None]
"""Takes the pixels, uint8 (n, H, W, C), of some of a call's images; they do not stay in there."""

_WARM_UP = 2  # runs until onnxruntime has all the memory that it wants


class Painter:
    """Draws with one session, for many threads."""

    def __init__(self, session: Session, metadata: Metadata, tile: int, threads: int) -> None:
        """Raise ProviderError or MemoryError where the device does not allow it.

        session: one on a stream.  tile: the most images in one run of the network.
        threads: those that draw the noise where the device does not.
        """
        if session.stream is None:
            raise ValueError("the session must be on a stream")
        # Freed in this order: graphs before the session and the stream that they run on.
        self._few = min(tile, GRAPH_SIZES[-1])
        self._sizes = [*(size for size in GRAPH_SIZES if size < self._few), self._few]
        self._context = session.stream.context
        make = partial(Workspace, self._context, metadata, self._few, tile)
        self._calls = Pool(make, _CALLS)
        self._session, self._stream = session, session.stream
        self._copies = Stream(self._context)
        self._shelf = Shelf(self._context)
        self._metadata, self.tile, self._threads = metadata, tile, threads
        self._image = prod(metadata.image_shape)
        # What one thread puts on the stream together is not mixed with another's. A signal handler
        # may draw while its own thread holds the lock.
        self._lock = threading.RLock()
        self._graphs = True
        self._kernel = _kernel(self._context)

    def drawn(self, seed: int, start: int, label: int | None) -> Noise:
        """Noise of `seed` from image `start` on; `label` for all, or each image's own."""
        if self._kernel is None:
            return HostNoise(self._metadata, seed, start, label, self._threads)
        return DeviceNoise(self._kernel, self._metadata, seed, start, label)

    def given(self, z: NDArray[np.floating], labels: NDArray[np.int64] | None) -> Noise:
        """Noise of the caller's, float (n, latent_dim), and labels, int64 (n,)."""
        return GivenNoise(z, labels)

    def draw(self, count: int, noise: Noise, keep: Keep) -> None:
        """Draw `count` images and hand them over, tile by tile in their order."""
        with self._context, self._calls.one() as workspace:
            if count > self._few:
                self._draw_tiles(count, noise, keep, workspace)
            elif count:
                slot = self._run_few(count, noise, workspace)
                with self._lock:
                    self._to_host(self._stream, slot, count)
                self._hand_over(slot, slice(0, count), keep)

    def draw_on_device(self, count: int, shape: tuple[int, ...], noise: Noise) -> DeviceImages:
        """Images that stay on the device, done when it returns. shape: of the array of them."""
        image = self._image
        with self._context, self._calls.one() as workspace:
            memory = self._shelf.take(count * image)
            if count > self._few:
                self._draw_tiles_on_device(count, memory.handle, noise, workspace)
            elif count:
                slot = self._run_few(count, noise, workspace)
                with self._lock:
                    self._stream.on_device(slot.pixels.handle, memory.handle, count * image)
                    self._stream.record(slot.done)
                slot.done.wait()
        return DeviceImages(memory, shape)

    def _draw_tiles(self, count: int, noise: Noise, keep: Keep, workspace: Workspace) -> None:
        """Tiles in turn: `SLOTS` are in progress, the oldest is handed over."""
        begun: deque[tuple[Slot, slice]] = deque()
        for number, tile in enumerate(_tiles(count, self.tile)):
            slot, size = workspace.large(number), tile.stop - tile.start
            if len(begun) == SLOTS:
                self._hand_over(*begun.popleft(), keep)
            noise.prepare(slot, tile)
            run = self._bind(slot, size, slot.pixels.handle)
            with self._lock:
                noise.put(self._stream, slot, tile)
                run()
                self._stream.record(slot.drawn)
                self._copies.wait_for(slot.drawn)
                self._to_host(self._copies, slot, size)
            begun.append((slot, tile))
        while begun:
            self._hand_over(*begun.popleft(), keep)

    def _to_host(self, stream: Stream, slot: Slot, count: int) -> None:
        stream.to_host(slot.pixels.handle, slot.host.handle, count * self._image)
        stream.record(slot.done)

    def _hand_over(self, slot: Slot, tile: slice, keep: Keep) -> None:
        slot.done.wait()
        channels, height, width = self._metadata.image_shape
        drawn = slot.host.array[: (tile.stop - tile.start) * self._image]
        keep(tile, drawn.reshape(-1, height, width, channels))

    def _draw_tiles_on_device(
        self, count: int, address: int, noise: Noise, workspace: Workspace
    ) -> None:
        for number, first in enumerate(range(0, count, self.tile)):
            tile, slot = slice(first, min(first + self.tile, count)), workspace.large(number)
            if number >= SLOTS:
                slot.done.wait()  # what it was sent from is free again
            noise.prepare(slot, tile)
            run = self._bind(slot, tile.stop - first, address + first * self._image)
            with self._lock:
                noise.put(self._stream, slot, tile)
                run()
                self._stream.record(slot.done)
        slot.done.wait()

    def _run_few(self, count: int, noise: Noise, workspace: Workspace) -> Slot:
        """Put the work for a small batch on the stream; its pixels will be in the slot."""
        slot = workspace.small()
        size = next(size for size in self._sizes if size >= count)
        if self._graphs and size not in workspace.graphs and not self._calls.nested:
            self._in_a_thread(partial(self._make_graph, workspace, size))
        graph = workspace.graphs.get(size)
        run = graph.launch if graph else self._bind(slot, count, slot.pixels.handle)
        tile = slice(0, count)
        noise.prepare(slot, tile)
        with self._lock:
            noise.put(self._stream, slot, tile)
            run()
        return slot

    def _make_graph(self, workspace: Workspace, size: int) -> None:
        slot = workspace.small()
        run = self._bind(slot, size, slot.pixels.handle)
        with self._context, self._lock:
            try:
                for _ in range(_WARM_UP):
                    run()
                self._stream.wait()
                workspace.graphs[size] = Graph(self._stream, run)
            except (GraphError, ArtifactError) as error:
                self._graphs = False
                say("small batches go without CUDA graphs: %s", error)

    def _in_a_thread(self, action: Callable[[], None]) -> None:
        """Signal handlers run in the main thread alone: one that draws waits for this one.

        In a stream that is being recorded it would put its own work into the record.
        """
        thread = threading.Thread(target=action, name="ganpack-graph")
        with suppress(RuntimeError):  # the interpreter is ending: it starts no more threads
            thread.start()
            thread.join()

    def _bind(self, slot: Slot, count: int, pixels: int) -> Callable[[], None]:
        """A run of the network from a slot to an address, to be put on the stream."""
        channels, height, width = self._metadata.image_shape
        output = pixels, np.uint8, (count, height, width, channels)
        return self._session.bind(slot.inputs(count), {"pixels": output})


def _kernel(context: Context) -> NoiseKernel | None:
    try:
        return NoiseKernel(context)
    except (ProviderError, OSError) as error:
        say("drawing the noise on the host, as the device does not take our kernel: %s", error)
        return None


def _tiles(count: int, largest: int) -> Iterator[slice]:
    """Large tiles first, then ever smaller ones: the last has nothing to hide its copy behind."""
    first, least = 0, min(largest, _SMALLEST_TILE)
    while first < count:
        rest = count - first
        size = rest if rest < 2 * least else max(least, -(-rest // 2))
        size = min(size, largest)
        yield slice(first, first + size)
        first += size
