"""Runs many steps and measures each."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray

from training.config import TrainConfig
from training.data import Batches
from training.losses import LOSSES
from training.step import TrainState, adversarial_step, update_ema


def run_steps(
    state: TrainState, batches: Batches, config: TrainConfig, count: int
) -> NDArray[np.float32]:
    """`count` steps from `state.step` on; their losses, (count, 4), in the order of `Losses`.

    The device is waited for once, at the end.
    """
    recipe = config.recipe
    loss = LOSSES[recipe.recipe]
    losses = []
    with _matmul_precision(config.matmul_precision):
        for _ in range(count):
            z = state.draw_z(recipe.batch_size)
            gamma = recipe.gamma_at(state.step * recipe.batch_size)
            measured = adversarial_step(state, batches[state.step], z, loss, gamma)
            losses.append(torch.stack(measured))
            update_ema(state, recipe.batch_size, recipe.ema_half_life)
    table: NDArray[np.float32] = torch.stack(losses).cpu().numpy()
    return table


@contextmanager
def _matmul_precision(precision: str) -> Iterator[None]:
    """Of training alone: scores, pictures and files are made in full float32."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
