"""Whole training steps in CUDA graphs: one launch runs many steps."""

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

_WARM_UP_STEPS = 3
_FAILED: list[torch.cuda.CUDAGraph] = []
"""Graphs whose capture failed. PyTorch's allocator may still refer to them."""


class CapturedSteps:
    """Steps that CUDA graphs replay: noise, images, both updates, the average and the losses.

    The indices of the images and the numbers of the schedule are copied into fixed memory before
    each replay; the losses are written to fixed memory. See
    https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs.
    """

    def __init__(
        self,
        step: Callable[[Tensor, Tensor], Tensor],
        noise: torch.Generator,
        indices: Tensor,
        numbers: Tensor,
        counts: tuple[int, ...],
    ) -> None:
        """Capture a graph for each number of steps in `counts`, which fall to 1.

        step: takes a step, given the indices of its images and the numbers of the schedule. The
        capture changes the state, so the caller must restore it.  indices, numbers: examples, (B,)
        and (6,).  noise: the random generator, whose stream each replay continues.
        """
        device, most = noise.device, counts[0]
        self._counts = counts
        self._step = step
        self._noise = noise
        self._indices = indices.repeat(most, 1)
        self._numbers = numbers.repeat(most, 1)
        self._losses = torch.empty(most, 4, device=device)
        # Libraries initialise themselves before the capture.
        side = torch.cuda.Stream(device)
        side.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(side):
            for _ in range(_WARM_UP_STEPS):
                self._take(0)
        torch.cuda.current_stream(device).wait_stream(side)
        self._graphs: dict[int, torch.cuda.CUDAGraph] = {}
        with _undisturbed(noise):
            for count in counts:
                self._graphs[count] = self._capture(count)

    def __call__(self, indices: Tensor, numbers: Tensor) -> Tensor:
        """Take a step for each row of both arguments; return the losses, (steps, 4)."""
        losses, first = [], 0
        while first < len(indices):
            count = next(each for each in self._counts if each <= len(indices) - first)
            rows = slice(first, first + count)
            self._indices[:count].copy_(indices[rows])
            self._numbers[:count].copy_(numbers[rows])
            self._graphs[count].replay()
            losses.append(self._losses[:count].clone())
            first += count
        return torch.cat(losses)

    def _capture(self, count: int) -> torch.cuda.CUDAGraph:
        graph = torch.cuda.CUDAGraph()
        graph.register_generator_state(self._noise)  # each replay continues its stream
        pool = next(iter(self._graphs.values())).pool() if self._graphs else None
        # Other threads, such as those of a sampler, may use the device meanwhile.
        try:
            with torch.cuda.graph(graph, pool=pool, capture_error_mode="thread_local"):
                for i in range(count):
                    self._take(i)
        except BaseException:
            _FAILED.append(graph)
            raise
        return graph

    def _take(self, i: int) -> None:
        self._losses[i].copy_(self._step(self._indices[i], self._numbers[i]))


@contextmanager
def _undisturbed(noise: torch.Generator) -> Iterator[None]:
    """Capture graphs within this context.

    Objects that free memory of the device when Python collects them would end the capture. If it
    fails all the same, the stream and both random generators of the device are made usable again:
    PyTorch leaves them as if the capture went on.
    """
    stream = torch.cuda.current_stream(noise.device)
    own = noise.device.index
    usual = torch.cuda.default_generators[torch.cuda.current_device() if own is None else own]
    generators = [noise, usual]
    before = [each.get_state() for each in generators]
    collects = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    except BaseException:
        torch.cuda.set_stream(stream)
        for generator, state in zip(generators, before, strict=True):
            fresh = torch.Generator(noise.device)
            fresh.set_state(state)
            generator.graphsafe_set_state(fresh.graphsafe_get_state())
        raise
    finally:
        if collects:
            gc.enable()
