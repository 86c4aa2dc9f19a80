"""Images from a generator on a CUDA device: noise, network, pixels and copies, in this order.

The network runs in batches of a few sizes. Each size is a CUDA graph, which needs one call to the
driver instead of dozens. Large calls are divided into tiles: while one tile is copied to the host,
the network draws the next.
"""

import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial

import numpy as np
from numpy.typing import NDArray

from ..artifact import ArtifactError, Metadata
from ..runtime.session import say
from ..runtime.shared_session import Session
from ..runtime.streams import Event, Graph, GraphError
from .buffers import Pool, Shelf
from .device_images import DeviceImages
from .kernels import Kernels
from .sources import DeviceNoise, GivenNoise, HostNoise, Noise
from .workspace import Output, Segment, Workspace

SIZES = (1, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384)
"""Batch sizes of the network. A smaller batch uses the next size and drops the rest."""
_SEGMENT = 2  # largest tiles that are put on the stream before the first is copied
_LARGEST_COPY = 8192  # largest tile that is copied to the host, so that copies begin early
_SMALLEST_TILE = 1024  # the last tiles are small, because no work hides their copies
_CALLS = 4  # calls with memory of their own; further calls wait
_WARM_UP = 2  # runs after which onnxruntime allocates no more memory


class Painter:
    """Draws with one session. It is thread-safe."""

    def __init__(
        self,
        session: Session,
        metadata: Metadata,
        tile: int,
        threads: int,
        kernels: Kernels | None,
    ) -> None:
        """Raise ProviderError or MemoryError if the device cannot be used.

        session: a session on a stream.  tile: the most images in one run of the network.
        threads: number of threads that draw the noise if there are no `kernels`; then the session
        gives pixels.
        """
        if session.stream is None:
            raise ValueError("the session must be on a stream")
        self.sizes = [*(size for size in SIZES if size < tile), tile]
        self._context = session.stream.context
        # Freed in this order: graphs before the session and the stream that they use.
        output = _output(session, metadata, floats=kernels is not None)
        self._calls = Pool(partial(Workspace, self._context, metadata, tile, output), _CALLS)
        self._session, self._stream = session, session.stream
        self._shelf = Shelf(self._context)
        self._kernels = kernels
        self._metadata, self.tile, self._threads = metadata, tile, threads
        # The work of one thread on the stream is not mixed with that of another. A signal handler
        # may draw while its own thread holds the lock.
        self._lock = threading.RLock()
        self.uses_graphs = True

    def drawn(self, seed: int, start: int, label: int | None) -> Noise:
        """A source of the noise of `seed` from image `start` on; `label` for all or random."""
        if self._kernels is None:
            # In a signal handler, the thread may be in the middle of asking for threads.
            threads = 1 if self._calls.in_use else self._threads
            return HostNoise(self._metadata, seed, start, label, threads)
        return DeviceNoise(self._kernels, self._metadata, seed, start, label)

    def given(self, z: NDArray[np.floating], labels: NDArray[np.int64] | None) -> Noise:
        """A source of the caller's z, float (n, latent_dim), and labels, int64 (n,)."""
        return GivenNoise(z, labels)

    def draw(self, places: Sequence[NDArray[np.uint8]], noise: Noise) -> None:
        """Fill several arrays, C-contiguous uint8 (n, ...), with consecutive images."""
        count = sum(map(len, places))
        with self._context, self._calls.one() as workspace:
            if count > workspace.few:
                self._draw_segments(workspace, places, count, noise)
            elif count:
                self._put(workspace, noise, slice(0, count), workspace.host.handle, workspace.done)
                workspace.done.wait()
                first = 0
                for place in places:
                    drawn = workspace.host.array[first : first + place.size]
                    place[...] = drawn.reshape(place.shape)
                    first += place.size

    def _draw_segments(
        self, workspace: Workspace, places: Sequence[NDArray[np.uint8]], count: int, noise: Noise
    ) -> None:
        """Alternate two segments: one is drawn while the other is copied."""
        most = _SEGMENT * self.tile
        begun: deque[tuple[Segment, slice, list[slice]]] = deque()
        for number, first in enumerate(range(0, count, most)):
            if len(begun) == 2:
                _fetch(workspace, *begun.popleft(), places)
            part = slice(first, min(first + most, count))
            segment = workspace.segment(number, min(most, count) * workspace.image)
            tiles = self._tiles(part, ends_small=part.stop == count)
            for place, tile in enumerate(tiles):
                address = segment.pixels.handle + (tile.start - first) * workspace.image
                self._put(workspace, noise, tile, address, segment.drawn(place))
            begun.append((segment, part, tiles))
        while begun:
            _fetch(workspace, *begun.popleft(), places)

    def draw_on_device(self, count: int, shape: tuple[int, ...], noise: Noise) -> DeviceImages:
        """Images that stay on the device, complete on return.  shape: shape of their array."""
        with self._context, self._calls.one() as workspace:
            memory = self._shelf.take(count * workspace.image)
            for tile in self._tiles(slice(0, count), ends_small=False):
                address = memory.handle + tile.start * workspace.image
                self._put(workspace, noise, tile, address, workspace.done)
            workspace.done.wait()
        return DeviceImages(memory, shape)

    def _put(
        self, workspace: Workspace, noise: Noise, tile: slice, pixels: int, done: Event
    ) -> None:
        """Put the work on the stream that draws a tile and writes its pixels.

        pixels: an address of the device, or of pinned memory.
        """
        count = tile.stop - tile.start
        run = self._run(workspace, next(size for size in self.sizes if size >= count))
        send = noise.prepare(workspace, tile, self._stream)
        with self._lock:
            send()
            run()
            if self._kernels is None:
                self._stream.copy(workspace.drawn.handle, pixels, count * workspace.image)
            else:
                shape = self._metadata.image_shape
                self._kernels.pixels(self._stream, pixels, workspace.drawn.handle, count, shape)
            self._stream.record(done)

    def _run(self, workspace: Workspace, size: int) -> Callable[[], None]:
        """A function that puts a run of the network on the stream; made on first use."""
        run = workspace.runs.get(size)
        if run is None and self.uses_graphs and not self._calls.nested:
            self._in_a_thread(partial(self._make_graph, workspace, size))
            run = workspace.runs.get(size)
        if run is None:
            run = workspace.runs[size] = self.bind(workspace, size)
        return run

    def _make_graph(self, workspace: Workspace, size: int) -> None:
        run = self.bind(workspace, size)
        with self._context, self._lock:
            try:
                for _ in range(_WARM_UP):
                    run()
                self._stream.wait()
                workspace.runs[size] = Graph(self._stream, run).launch
            except (GraphError, ArtifactError) as error:
                self.uses_graphs = False
                say("drawing without CUDA graphs, which takes longer: %s", error)

    def _in_a_thread(self, action: Callable[[], None]) -> None:
        """Run in another thread, so that a signal handler that draws waits for the recording.

        Signal handlers run in the main thread. If that thread were recording the stream, a handler
        would put its own work into the record.
        """
        thread = threading.Thread(target=action, name="ganpack-graph")
        with suppress(RuntimeError):  # the interpreter is exiting, and starts no more threads
            thread.start()
            thread.join()

    def bind(self, workspace: Workspace, size: int) -> Callable[[], None]:
        """What runs the network on a workspace, for a batch of `size` images."""
        return self._session.bind(workspace.inputs(size), workspace.outputs(size))

    def _tiles(self, part: slice, *, ends_small: bool) -> list[slice]:
        """Divide a part of the images into tiles of the network's batch sizes.

        ends_small: whether the last tiles are small, because no work hides their copies.
        """
        tiles, first = [], part.start
        while first < part.stop:
            rest = part.stop - first
            size = min(rest, self.tile)
            if rest > _SMALLEST_TILE:
                most = max(min(rest // 2, _LARGEST_COPY), _SMALLEST_TILE) if ends_small else rest
                size = max(size for size in self.sizes if size <= most)
            tiles.append(slice(first, first + size))
            first += size
        return tiles


def _output(session: Session, metadata: Metadata, *, floats: bool) -> Output:
    if floats:
        (value,) = session.raw.get_outputs()
        return Output(value.name, np.float32, tuple(value.shape[1:]))
    channels, height, width = metadata.image_shape
    return Output("pixels", np.uint8, (height, width, channels))


def _fetch(
    workspace: Workspace,
    segment: Segment,
    part: slice,
    tiles: list[slice],
    places: Sequence[NDArray[np.uint8]],
) -> None:
    """Copy the images of a segment to their arrays, each tile as soon as it is drawn.

    The driver copies to pageable memory piece by piece, through its own pinned memory.
    """
    image, begin, end = workspace.image, part.start, 0
    for place in places:
        start, end = end, end + len(place)
        for number, tile in enumerate(tiles):
            first, last = max(start, tile.start), min(end, tile.stop)
            if first < last:
                # In the copy itself, the driver would wait with a lock that other threads need.
                segment.drawn(number).wait()
                source = segment.pixels.handle + (first - begin) * image
                target = place.ctypes.data + (first - start) * image
                workspace.copies.to_host(source, target, (last - first) * image)
    workspace.copies.wait()
