"""Take many steps at once: one operation at a time, compiled, or in CUDA graphs."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from training.config import StepNumbers, TrainConfig
from training.data.batches import Batches
from training.data.images import normalised
from training.engine.compiled import Compilation
from training.engine.cuda_graph import CapturedSteps
from training.engine.distributed import ALONE, Ranks
from training.engine.precision import float32_products, multiplies_bfloat16
from training.engine.ways import PLAIN, Kind, Way
from training.gan.adam import fused_adam, written_adam
from training.gan.state import TrainState
from training.gan.step import Step, StepTensors

_MOST_THREADS = 8  # the products are small: more threads would wait for one another


class Stretch:
    """Steps that have been launched."""

    def __init__(self, last_step: int, losses: Tensor) -> None:
        """losses: (steps, 4), on the device, which may still be at work on them."""
        self.last_step = last_step
        self._event: torch.cuda.Event | None = None
        self._losses = losses
        if losses.device.type == "cuda":
            # This copy comes before later stretches, so nobody waits for them.
            self._losses = torch.empty(losses.shape, pin_memory=True)
            self._losses.copy_(losses, non_blocking=True)
            self._event = torch.cuda.Event()
            self._event.record()

    def is_done(self) -> bool:
        """Whether the device has taken the steps."""
        return self._event is None or self._event.query()

    def losses(self) -> NDArray[np.float32]:
        """(steps, 4), in the order of `StepMetrics`; waits for the last of these steps."""
        if self._event is not None:
            self._event.synchronize()
        table: NDArray[np.float32] = self._losses.numpy()
        return table


class Engine:
    """Takes the steps of a run in one of the device's ways."""

    def __init__(
        self,
        state: TrainState,
        batches: Batches,
        config: TrainConfig,
        ranks: Ranks = ALONE,
        way: Way = PLAIN,
    ) -> None:
        """Ways other than the plain one need `prepare`."""
        self.way = way
        self.state = state
        self.recipe = config.recipe
        self.schedule: Callable[[int], StepNumbers[float]] = config.recipe.at
        """The numbers of each step."""
        self._batches = batches
        self._ranks = ranks
        self._precision = config.matmul_precision
        self._deterministic = config.deterministic
        self._batch_size = config.recipe.batch_size
        self._device = state.noise.device
        self.bfloat16 = self._precision == "medium" and multiplies_bfloat16(self._device)
        self.step = Step(
            (state.generator, state.discriminator),
            config.recipe,
            bfloat16=self.bfloat16,
            adam=written_adam if self._compiles_whole else fused_adam,
            shared=ranks.average if ranks.count > 1 else None,
        )
        self._compilation: Compilation | None = None
        self._function: Callable[..., Tensor] = self._whole
        self._take: Callable[[Tensor, Tensor], Tensor] = self._one_by_one

    @property
    def kind(self) -> Kind:
        """The kind of way."""
        return self.way.kind

    @property
    def trial_counts(self) -> tuple[int, ...]:
        """Numbers of steps that together run everything that was prepared."""
        return (1, 3) if not self.way.graph_steps else (1, sum(self.way.graph_steps) + 1)

    def is_known(self) -> bool:
        """Whether this machine has compiled the same step before. Changes the state."""
        if self.kind != "compiled":
            return False
        with self.setting():
            return self.traced().is_known()

    def prepare(self) -> None:
        """Compile, and capture graphs. This changes the state, so the caller must restore it."""
        if self.way.graph_steps and self._device.type != "cuda":
            raise RuntimeError("CUDA graphs need a GPU")
        with self.setting():
            if self.kind == "compiled":
                function = self.traced().compile()
                if self._compiles_whole:
                    self._function = function
                else:
                    self.step = replace(self.step, compiled_gradients=function)
            if self.way.graph_steps:
                indices, numbers = self.rows(1)
                self._take = CapturedSteps(
                    self._one, self.state.noise, indices[0], numbers[0], self.way.graph_steps
                )

    def launch(self, count: int) -> Stretch:
        """Start `count` steps, and set `state.step` to the last one."""
        with self.setting():
            losses = self._take(*self.rows(count))
            self.state.step += count
            return Stretch(self.state.step, losses)

    def run(self, count: int) -> NDArray[np.float32]:
        """Take `count` steps; their losses, (count, 4), as `Stretch.losses`."""
        return self.launch(count).losses()

    @contextmanager
    def setting(self) -> Iterator[None]:
        """The precision and the threads of steps. (Scores and files are made in float32.)"""
        threads = torch.get_num_threads()
        deterministic = torch.are_deterministic_algorithms_enabled()
        cudnn, benchmark = torch.backends.cudnn, torch.backends.cudnn.benchmark
        torch.use_deterministic_algorithms(deterministic or self._deterministic)
        cudnn.benchmark = self.way.benchmark and not self._deterministic
        torch.set_num_threads(min(threads, _MOST_THREADS))
        try:
            with float32_products(self._precision):
                yield
        finally:
            cudnn.benchmark = benchmark
            torch.use_deterministic_algorithms(deterministic)
            torch.set_num_threads(threads)

    @property
    def _compiles_whole(self) -> bool:
        """Whether whole steps are compiled; with several ranks, only gradients are."""
        return self.kind == "compiled" and self._ranks.count == 1

    def traced(self) -> Compilation:
        """The function to compile: a whole step, or its gradients. Changes the state."""
        if self._compilation is None:
            with self.setting():
                indices, numbers = self.rows(1)
                example = self._arguments(indices[0], numbers[0])
                function: Callable[..., Any] = self._whole
                if not self._compiles_whole:
                    function, example = self.step.gradients, self._images(*example)
                apart = _of_generator if self.way.side_by_side and self._compiles_whole else None
                self._compilation = Compilation(function, example, self.way.options, apart)
        return self._compilation

    def rows(self, count: int) -> tuple[Tensor, Tensor]:
        """For the next steps: the indices of images, (count, B), and the numbers, (count, 6)."""
        steps = range(self.state.step, self.state.step + count)
        indices = torch.stack([self._batches.indices(step) for step in steps])
        cuda = self._device.type == "cuda"
        numbers = torch.tensor(
            [self.schedule(step) for step in steps],
            dtype=torch.float32 if cuda else torch.float64,  # a CPU needs no copy
            pin_memory=cuda,
        )
        return indices, numbers.to(self._device, non_blocking=True)

    def _one_by_one(self, indices: Tensor, numbers: Tensor) -> Tensor:
        return torch.stack([self._one(*row) for row in zip(indices, numbers, strict=True)])

    def _one(self, indices: Tensor, numbers: Tensor) -> Tensor:
        """Take a step; the losses, (4,)."""
        return self._function(*self._arguments(indices, numbers))

    def _arguments(self, indices: Tensor, numbers: Tensor) -> tuple[Any, ...]:
        """The arguments of `_whole` for a step with the images at `indices`, (B,)."""
        z = self.state.next_noise(self._batch_size)
        indices, z = self._ranks.rows(indices, z)
        pixels, labels = self._batches.pixels, self._batches.labels
        return StepTensors.of(self.state), pixels, labels, indices, z, numbers

    def _whole(self, *arguments: Any) -> Tensor:
        """A step, from the data set and the noise to the losses, (4,)."""
        tensors, real, z, labels, _ = self._images(*arguments)
        return self.step(tensors, real, z, labels, arguments[-1])

    def _images(
        self,
        tensors: StepTensors,
        pixels: Tensor,
        labels: Tensor | None,
        indices: Tensor,
        z: Tensor,
        numbers: Tensor,
    ) -> tuple[StepTensors, Tensor, Tensor, Tensor | None, Tensor]:
        """The arguments of `Step.gradients`."""
        own = None if labels is None else labels[indices]
        gamma = StepNumbers(*numbers.unbind()).gamma
        return tensors, normalised(pixels[indices]), z, own, gamma


def _of_generator(tensors: StepTensors, *_: Any) -> list[Tensor]:
    """The tensors that the generator's half of a step changes."""
    count = len(tensors.average)
    moments = tensors.exp_avg[:count] + tensors.exp_avg_sq[:count]
    return [*tensors.generator.values(), *moments, *tensors.average]
