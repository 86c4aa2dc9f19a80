"""Streams of images from a GPU: several batches are generated at once and in advance."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial

import numpy as np
from numpy.typing import NDArray

Batches = list[NDArray[np.uint8]]
Fill = Callable[[int, Sequence[NDArray[np.uint8]]], None]
"""`fill(first, places)` fills arrays with the images of a stream from `first` on."""

_THREADS = 2  # while one thread copies images to the host, the device generates those of the other


def stream(
    fill: Fill, count: int, batch_size: int, together: int, shape: tuple[int, ...]
) -> Iterator[NDArray[np.uint8]]:
    """Yield batches of images, uint8 (n, *shape), in order and in constant memory.

    together: number of images that are generated at once; at least one batch.
    """
    group = max(1, together // batch_size) * batch_size
    jobs = (
        partial(_group, fill, first, min(group, count - first), batch_size, shape)
        for first in range(0, count, group)
    )
    pool = ThreadPoolExecutor(_THREADS, thread_name_prefix=__package__)
    try:
        for batches in _ahead(pool, jobs):
            yield from batches
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _group(fill: Fill, first: int, count: int, batch_size: int, shape: tuple[int, ...]) -> Batches:
    """Generate the batches of a group at once."""
    batches = [
        np.empty((min(batch_size, count - done), *shape), np.uint8)
        for done in range(0, count, batch_size)
    ]
    fill(first, batches)
    return batches


def _ahead(pool: ThreadPoolExecutor, jobs: Iterable[Callable[[], Batches]]) -> Iterator[Batches]:
    """Yield the result of each job in order; later jobs already run in threads."""
    waiting: deque[Future[Batches]] = deque()
    for job in jobs:
        waiting.append(pool.submit(job))
        if len(waiting) > _THREADS:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()
