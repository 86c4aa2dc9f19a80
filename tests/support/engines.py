"""A state, batches and settings to run an engine on."""

from dataclasses import replace

import torch

from tests.support.runs import TINY
from training.config import RECIPES, TrainConfig
from training.data.batches import Batches
from training.data.datasets import load_images
from training.gan.state import TrainState

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
