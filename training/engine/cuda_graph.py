"""Whole training steps in CUDA graphs: one launch for many steps, nothing decided by the host."""

from collections.abc import Callable

import torch
from torch import Tensor

from training.config import RecipeConfig
from training.data.batches import Batches
from training.data.images import normalised
from training.gan.average import ema_share, update_ema
from training.gan.state import TrainState
from training.gan.step import Gradients, apply_gradients, set_lr

# A hundred steps between two looks at the losses are ten launches; what is left over at the end of
# an epoch is launched one by one.
_STEPS = 10
_WARM_UP_STEPS = 3


class CapturedSteps:
    """Steps that a CUDA graph replays: images, noise, both updates, the average and the losses.

    What changes from step to step (which images, learning rate, weight of the penalties, share of
    the average) is copied into fixed places before each replay; the losses are left in another. As
    https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs has it.
    """

    def __init__(
        self,
        batches: Batches,
        state: TrainState,
        recipe: RecipeConfig,
        gradients: Callable[..., Gradients],
        weights: tuple[dict[str, Tensor], dict[str, Tensor]],
    ) -> None:
        self._state = state
        self._batches = batches
        self._recipe = recipe
        self._gradients = gradients
        self._weights = weights
        device = state.noise.device
        self._indices = torch.zeros(_STEPS, recipe.batch_size, dtype=torch.long, device=device)
        self._numbers = torch.ones(_STEPS, 3, device=device)  # learning rate, gamma, EMA share
        self._losses = torch.empty(_STEPS, 4, device=device)
        # Before the capture: libraries set themselves up, and Adam makes its moments.
        side = torch.cuda.Stream(device)
        side.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(side):
            for _ in range(_WARM_UP_STEPS):
                self._step(0)
        torch.cuda.current_stream(device).wait_stream(side)
        self._graphs = {count: self._capture(count) for count in (_STEPS, 1)}

    def replay(self, most: int) -> Tensor:
        """As many steps as one graph has and `most` allows; their losses, (steps, 4)."""
        count = _STEPS if most >= _STEPS else 1
        state, recipe = self._state, self._recipe
        steps = range(state.step, state.step + count)
        for i, step in enumerate(steps):
            self._indices[i].copy_(self._batches.indices(step), non_blocking=True)
        numbers = [
            (
                recipe.lr_at(step * recipe.batch_size),
                recipe.gamma_at(step * recipe.batch_size),
                ema_share(step + 1, recipe.batch_size, recipe.ema_half_life),
            )
            for step in steps
        ]
        self._numbers[:count].copy_(torch.tensor(numbers), non_blocking=True)
        self._graphs[count].replay()
        state.step += count
        return self._losses[:count].clone()

    def _capture(self, count: int) -> torch.cuda.CUDAGraph:
        graph = torch.cuda.CUDAGraph()
        graph.register_generator_state(self._state.noise)  # each replay goes on in its stream
        with torch.cuda.graph(graph):
            for i in range(count):
                self._step(i)
        return graph

    def _step(self, i: int) -> None:
        state, recipe = self._state, self._recipe
        indices, batches = self._indices[i], self._batches
        real = normalised(batches.pixels[indices])
        lr, gamma, share = self._numbers[i]
        set_lr(state, lr)
        gradients = self._gradients(
            self._weights,
            real,
            state.draw_z(recipe.batch_size),
            gamma if recipe.penalised else 0.0,
            None if batches.labels is None else batches.labels[indices],
        )
        apply_gradients(state, gradients)
        update_ema(state, share)
        self._losses[i].copy_(gradients.losses)
