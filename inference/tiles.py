"""Large jobs tile by tile: noise in memory that is used again, tiles in threads ahead of a GPU."""

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.typing import NDArray

from .noise import LIMIT, labels, latents

if TYPE_CHECKING:
    from concurrent.futures import Future, ThreadPoolExecutor

Result = TypeVar("Result")

# z that are drawn at once for a host that asks for images in small portions, one after the other:
# for few, numpy's cost is that of its calls.
_AHEAD = 512


class TileNoise(threading.local):
    """Of each thread its own. What a method returns holds until its thread's next call."""

    def __init__(self, tile: int, latent_dim: int, classes: int = 0) -> None:
        self._z = np.empty((tile, latent_dim), np.float32)  # pages that nobody writes take no room
        self._labels = np.empty(tile, np.int64) if classes else None
        self._classes = classes
        self._seed, self._first, self._end = -1, 0, 0  # which images of what seed it holds

    def draw(
        self, count: int, seed: int, start: int
    ) -> tuple[NDArray[np.float32], NDArray[np.int64] | None]:
        """z of some images, float32 (count, latent_dim), count at most the tile.

        And with classes their drawn labels, int64 (count,).
        """
        end = start + count
        if seed != self._seed or start < self._first or end > self._end:
            rows = count
            if seed == self._seed and start == self._end:
                rows = max(count, min(_AHEAD, len(self._z), LIMIT - start))
            self._seed = -1  # until all of it is there
            z = self._z[:rows]
            latents(rows, z.shape[1], seed=seed, start=start, out=z)
            if self._labels is not None:
                self._labels[:rows] = labels(rows, self._classes, seed=seed, start=start)
            self._seed, self._first, self._end = seed, start, start + rows
        held = slice(start - self._first, end - self._first)
        return self._z[held], None if self._labels is None else self._labels[held]

    def copy(self, z: NDArray[np.floating]) -> NDArray[np.float32]:
        """z of the caller's, float (n, latent_dim), n at most the tile, as onnxruntime wants it."""
        self._seed = -1
        copied = self._z[: len(z)]
        copied[...] = z
        return copied


def ahead(
    pool: "ThreadPoolExecutor", jobs: Iterable[Callable[[], Result]], window: int
) -> Iterator[Result]:
    """What each job returns, in their order; `window` of them are begun before they are asked for.

    One draws its noise while the images of another are made, and those of a third copied.
    """
    waiting: deque[Future[Result]] = deque()
    try:
        for job in jobs:
            waiting.append(pool.submit(job))
            if len(waiting) > window:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()
