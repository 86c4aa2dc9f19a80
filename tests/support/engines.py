"""A state, batches and settings to run an engine on."""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from tests.support.runs import TINY
from training.config import RECIPES, RecipeConfig, TrainConfig
from training.data.batches import Batches
from training.data.datasets import load_images
from training.gan.state import TrainState
from training.gan.step import Step, StepTensors

CPU = torch.device("cpu")
R3GAN = replace(RECIPES["r3gan"], batch_size=64, lr_end=1e-4, burn_in=500.0)


def tiny(
    config: TrainConfig = TINY, device: torch.device = CPU
) -> tuple[TrainState, Batches, TrainConfig]:
    images = load_images(config.data).to(device)
    state = TrainState.create(
        config.network, config.recipe, images.image_shape, device, 0, images.classes
    )
    conditional = config.network.conditional
    return state, Batches(images, config.recipe.batch_size, 0, conditional=conditional), config


def take_steps(
    state: TrainState,
    real: Tensor,
    count: int,
    recipe: RecipeConfig,
    z: Tensor | None = None,
    labels: Tensor | None = None,
    **options: Any,
) -> Tensor:
    """Take steps on the same images, with z (count, B, latent_dim) if given; the losses."""
    device, dtype = state.noise.device, next(state.generator.parameters()).dtype
    step = Step((state.generator, state.discriminator), recipe, **options)
    losses = []
    for i in range(count):
        kind = torch.float64 if device.type == "cpu" else torch.float32
        numbers = torch.tensor(recipe.at(state.step), dtype=kind, device=device)
        noise = state.next_noise(len(real)) if z is None else z[i]
        given = real.to(device, dtype), noise.to(device, dtype), labels, numbers
        losses.append(step(StepTensors.of(state), *given))
        state.step += 1
    return torch.stack(losses)
