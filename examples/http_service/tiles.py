"""Drawing for many callers at once: what they wait for goes through the network in common tiles."""

import asyncio
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from inference import Sampler

TILE = 512
"""Images in one run of the network at most: it is fastest at some hundred."""


@dataclass
class _Order:
    """Images that somebody waits for."""

    seed: int
    start: int
    count: int
    label: int | None
    done: asyncio.Future[NDArray[np.uint8]]
    begun: int = 0
    """Images that are drawn, or given to a tile."""
    pieces: list[NDArray[np.uint8]] = field(default_factory=list)


class TileDrawer:
    """Draws for callers of one event loop, in one thread beside it.

    While a tile is drawn, the orders that come in gather for the next one. An image does not depend
    on what else is in its tile, so sharing one changes nothing but the time.
    """

    def __init__(self, sampler: Sampler, tile: int = TILE) -> None:
        self._sampler, self._tile = sampler, tile
        self._orders: deque[_Order] = deque()
        self._thread = ThreadPoolExecutor(1, "draw")
        self._drawing: asyncio.Task[None] | None = None

    async def draw(
        self, count: int, *, seed: int, start: int, label: int | None = None
    ) -> NDArray[np.uint8]:
        """What `Sampler.sample` gives. A caller that is cancelled leaves nothing to be drawn."""
        order = _Order(seed, start, count, label, asyncio.get_running_loop().create_future())
        self._orders.append(order)
        if self._drawing is None or self._drawing.done():
            self._drawing = asyncio.create_task(self._draw_all())
        return await order.done

    def close(self) -> None:
        """End the thread."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _draw_all(self) -> None:
        loop = asyncio.get_running_loop()
        while parts := self._next_tile():
            try:
                images = await loop.run_in_executor(self._thread, self._draw, parts)
            except Exception as error:  # whatever it is, those who wait must hear of it
                for order, *_ in parts:
                    if not order.done.done():
                        order.done.set_exception(error)
                continue
            for order, first, count in parts:
                order.pieces.append(images[:count])
                images = images[count:]
                if first + count == order.count and not order.done.done():
                    order.done.set_result(np.concatenate(order.pieces))

    def _next_tile(self) -> list[tuple[_Order, int, int]]:
        """(order, first image, count), as the orders came, of a tile at most."""
        parts: list[tuple[_Order, int, int]] = []
        free = self._tile
        while self._orders and free:
            order = self._orders[0]
            count = 0 if order.done.done() else min(free, order.count - order.begun)
            if count:
                parts.append((order, order.begun, count))
                order.begun += count
                free -= count
            if order.done.done() or order.begun == order.count:
                self._orders.popleft()
        return parts

    def _draw(self, parts: list[tuple[_Order, int, int]]) -> NDArray[np.uint8]:
        z = [
            self._sampler.latents(count, seed=order.seed, start=order.start + first)
            for order, first, count in parts
        ]
        if not self._sampler.metadata.classes:
            return self._sampler.decode(np.concatenate(z))
        labels = [
            self._sampler.labels(count, seed=order.seed, start=order.start + first)
            if order.label is None
            else np.full(count, order.label)
            for order, first, count in parts
        ]
        return self._sampler.decode(np.concatenate(z), np.concatenate(labels))
