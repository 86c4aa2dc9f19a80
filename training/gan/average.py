"""The moving average of the generator, which is what is scored, shown and exported."""

from copy import deepcopy

import torch
from torch import Tensor, nn

from inference.noise import LIMIT
from training.gan.networks import Generator
from training.gan.state import TrainState

# BatchNorm statistics of the moving average are taken over this many images of a seed that no
# picture and no score uses.
_CALIBRATION_IMAGES = 4096
_CALIBRATION_SEED = LIMIT - 1


def ema_share(step: int, batch_size: int, half_life: float) -> float:
    """How far the average moves towards the generator after `step` steps, 0 … 1.

    half_life: images; at most a twentieth of the images seen counts, so that the average does not
    remember the first weights (the ramp-up of Karras et al. 2020, arXiv 2006.06676).
    """
    half_life = min(half_life, step * batch_size / 20)
    return 1 - 0.5 ** (batch_size / half_life) if half_life > 0 else 1.0


@torch.no_grad()
def update_ema(state: TrainState, share: float | Tensor) -> None:
    """Move the average towards the generator by `share`, a number or a 0-d tensor."""
    averages: list[Tensor] = list(state.ema.parameters())
    weights: list[Tensor] = list(state.generator.parameters())
    if isinstance(share, Tensor):
        way = list(torch._foreach_sub(weights, averages))
        torch._foreach_mul_(way, share)
        torch._foreach_add_(averages, way)
    else:
        torch._foreach_lerp_(averages, weights, share)


@torch.no_grad()
def averaged(state: TrainState) -> Generator:
    """The generator to score, show and export: the average, in eval mode, on its device.

    Its BatchNorm statistics are those of its own activations, taken anew: averaged weights do not
    have the averaged statistics. The state is left as it was.
    """
    generator = deepcopy(state.ema)
    for module in generator.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.momentum = 1.0  # running statistics become those of the one batch below
    generator.train()(*generator.drawn(_CALIBRATION_IMAGES, seed=_CALIBRATION_SEED))
    return generator.eval()
