"""Images from a generator on a CUDA device: noise, network, pixels and copies, in this order.

Large calls are divided into tiles: while one tile is copied to the host, the network computes
the next.
"""

import threading
from collections import deque
from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from ..arrays import shape_of
from ..artifact import Metadata
from ..runtime.shared_session import Session
from ..runtime.streams import Event
from .batches import Fill, stream
from .buffers import Pool, Shelf
from .device_images import DeviceImages
from .kernels import Kernels
from .network_runs import NetworkRuns
from .sources import DeviceNoise, GivenNoise, HostNoise, Noise
from .tiling import batch_sizes, tiles
from .workspace import Output, Segment, Workspace

_SEGMENT = 2  # largest tiles that are put on the stream before the first is copied
_CALLS = 4  # calls with memory of their own; further calls wait


class GpuPainter:
    """Generates images with one session. It is thread-safe."""

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
        self._sizes = batch_sizes(tile)
        self._context = session.stream.context
        # Freed in this order: graphs before the session and the stream that they use.
        output = _output(session, metadata, floats=kernels is not None)
        self._calls = Pool(partial(Workspace, self._context, metadata, tile, output), _CALLS)
        # The work of one thread on the stream is not mixed with that of another. A signal handler
        # may generate images while its own thread holds the lock.
        self._lock = threading.RLock()
        self.runs = NetworkRuns(session, session.stream, self._lock)
        self._stream = session.stream
        self._shelf = Shelf(self._context)
        self._kernels = kernels
        self._metadata, self._tile, self._threads = metadata, tile, threads

    def sample(
        self, places: Sequence[NDArray[np.uint8]], seed: int, start: int, label: int | None
    ) -> None:
        """Fill arrays, (n, ...), with consecutive images of `seed`, from `start` on.

        label: the class of all images; None: a random class for each image.
        """
        self._fill(places, self._random(seed, start, label))

    def decode(
        self,
        pixels: NDArray[np.uint8],
        z: NDArray[np.floating],
        labels: NDArray[np.int64] | None,
    ) -> None:
        """Fill an array, (n, ...), with the images of the caller's z and labels."""
        self._fill([pixels], GivenNoise(z, labels))

    def stream(self, fill: Fill, count: int, batch_size: int) -> Iterator[NDArray[np.uint8]]:
        """Yield `count` images in batches; `fill(first, places)` generates them."""
        shape = shape_of(1, self._metadata.image_shape)[1:]
        return stream(fill, count, batch_size, self._tile, shape)

    def sample_on_device(
        self, count: int, seed: int, start: int, label: int | None
    ) -> DeviceImages:
        """The images of `sample`, which stay on the device; they are complete on return."""
        noise = self._random(seed, start, label)
        with self._context, self._calls.one() as workspace:
            memory = self._shelf.take(count * workspace.image)
            for tile in tiles(slice(0, count), self._sizes, ends_small=False):
                address = memory.handle + tile.start * workspace.image
                self._put(workspace, noise, tile, address, workspace.done)
            workspace.done.wait()
        return DeviceImages(memory, shape_of(count, self._metadata.image_shape))

    def _random(self, seed: int, start: int, label: int | None) -> Noise:
        """A source of the noise of `seed` from image `start` on; `label` for all or random."""
        if self._kernels is None:
            # In a signal handler, the thread may be in the middle of asking for threads.
            threads = 1 if self._calls.in_use else self._threads
            return HostNoise(self._metadata, seed, start, label, threads)
        return DeviceNoise(self._kernels, self._metadata, seed, start, label)

    def _fill(self, places: Sequence[NDArray[np.uint8]], noise: Noise) -> None:
        """Fill arrays of any strides; the device writes to contiguous memory alone."""
        filled = [
            place if place.flags.c_contiguous else np.empty(place.shape, np.uint8)
            for place in places
        ]
        count = sum(map(len, filled))
        with self._context, self._calls.one() as workspace:
            if count > workspace.few:
                self._fill_by_segments(workspace, filled, count, noise)
            elif count:
                self._put(workspace, noise, slice(0, count), workspace.host.handle, workspace.done)
                workspace.done.wait()
                _divide(workspace.host.array, filled)
        for place, contiguous in zip(places, filled, strict=True):
            if contiguous is not place:
                place[...] = contiguous

    def _fill_by_segments(
        self, workspace: Workspace, places: Sequence[NDArray[np.uint8]], count: int, noise: Noise
    ) -> None:
        """Alternate two segments: one is computed while the other is copied."""
        most = _SEGMENT * self._tile
        begun: deque[tuple[Segment, slice, list[slice]]] = deque()
        for number, first in enumerate(range(0, count, most)):
            if len(begun) == 2:
                _fetch(workspace, *begun.popleft(), places)
            part = slice(first, min(first + most, count))
            segment = workspace.segment(number, min(most, count) * workspace.image)
            divided = tiles(part, self._sizes, ends_small=part.stop == count)
            for place, tile in enumerate(divided):
                address = segment.pixels.handle + (tile.start - first) * workspace.image
                self._put(workspace, noise, tile, address, segment.done(place))
            begun.append((segment, part, divided))
        while begun:
            _fetch(workspace, *begun.popleft(), places)

    def _put(
        self, workspace: Workspace, noise: Noise, tile: slice, pixels: int, done: Event
    ) -> None:
        """Put the work for a tile on the stream: noise, network and pixels.

        pixels: an address of the device, or of pinned memory.
        """
        count = tile.stop - tile.start
        size = next(size for size in self._sizes if size >= count)
        run = self.runs.run(workspace, size, nested=self._calls.nested)
        send = noise.prepare(workspace, tile, self._stream)
        with self._lock:
            send()
            run()
            if self._kernels is None:
                self._stream.copy(workspace.result.handle, pixels, count * workspace.image)
            else:
                shape = self._metadata.image_shape
                self._kernels.pixels(self._stream, pixels, workspace.result.handle, count, shape)
            self._stream.record(done)


def _output(session: Session, metadata: Metadata, *, floats: bool) -> Output:
    if floats:
        (value,) = session.raw.get_outputs()
        return Output(value.name, np.float32, tuple(value.shape[1:]))
    channels, height, width = metadata.image_shape
    return Output("pixels", np.uint8, (height, width, channels))


def _divide(pixels: NDArray[np.uint8], places: Sequence[NDArray[np.uint8]]) -> None:
    """Copy consecutive pixels, flat, to C-contiguous arrays."""
    first = 0
    for place in places:
        place[...] = pixels[first : first + place.size].reshape(place.shape)
        first += place.size


def _fetch(
    workspace: Workspace,
    segment: Segment,
    part: slice,
    tiles: list[slice],
    places: Sequence[NDArray[np.uint8]],
) -> None:
    """Copy the images of a segment to their arrays, each tile as soon as it is complete.

    The driver copies to pageable memory piece by piece, through its own pinned memory.
    """
    image, begin, end = workspace.image, part.start, 0
    for place in places:
        start, end = end, end + len(place)
        for number, tile in enumerate(tiles):
            first, last = max(start, tile.start), min(end, tile.stop)
            if first < last:
                # In the copy itself, the driver would wait with a lock that other threads need.
                segment.done(number).wait()
                source = segment.pixels.handle + (first - begin) * image
                target = place.ctypes.data + (first - start) * image
                workspace.copies.to_host(source, target, (last - first) * image)
    workspace.copies.wait()
