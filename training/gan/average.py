"""The moving average of the generator, which is scored, shown and exported."""

from collections.abc import Sequence
from copy import deepcopy

import torch
from torch import Tensor, nn

from inference.noise import LIMIT
from training.gan.networks import Generator

# The BatchNorm statistics of the moving average come from this many images of a seed that no
# picture and no score uses.
_CALIBRATION_IMAGES = 4096
_FEW_IMAGES = 256
_CALIBRATION_SEED = LIMIT - 1


@torch.no_grad()
def averaged(ema: Generator, *, roughly: bool = False) -> Generator:
    """The generator to score, show and export: a copy of the average, in eval mode, on its device.

    Its BatchNorm statistics are computed anew from its own activations, because averaged statistics
    do not fit averaged weights. This is done layer by layer, since the statistics of a layer depend
    on the layers before it, and in parts, which bounds the memory for images of any size.

    roughly: compute them from fewer images, for a generator that is only shown.
    """
    generator = deepcopy(ema).eval()
    images = _FEW_IMAGES if roughly else _CALIBRATION_IMAGES
    inputs = generator.inputs(images, seed=_CALIBRATION_SEED)
    layers = list(generator.layers)
    count = generator.images_at_once()
    corrections = []
    for i, layer in enumerate(layers):
        if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
            values, mean, variance = _statistics(generator, layers[:i], inputs, count)
            buffers = dict(layer.named_buffers())
            buffers["running_mean"].copy_(mean)
            buffers["running_var"].copy_(variance)
            buffers["num_batches_tracked"].fill_(1)
            corrections.append((buffers["running_var"], values / (values - 1)))
    # BatchNorm stores the unbiased variance.
    for variance, correction in corrections:
        variance.mul_(correction)
    return generator


def _statistics(
    generator: Generator, layers: Sequence[nn.Module], inputs: tuple[Tensor, ...], part: int
) -> tuple[int, Tensor, Tensor]:
    """Values per channel of the output of `layers`, and their mean and variance, (C,).

    part: number of inputs at a time; the parts are merged as in Chan et al. 1979.
    """
    count, mean, squares = 0, torch.zeros(()), torch.zeros(())
    for some in zip(*(tensor.split(part) for tensor in inputs), strict=True):
        values = generator.joined(*some)
        for layer in layers:
            values = layer(values)
        values = values.flatten(2) if values.ndim > 2 else values.unsqueeze(2)  # (B, C, H*W)
        own = values.mean((0, 2), keepdim=True)
        # Two passes: on a CPU, torch.var_mean takes thirty times as long.
        variance = (values - own).square_().mean((0, 2)).double()
        own, more = own.flatten().double(), len(values) * values.shape[2]
        off, total = own - mean.to(own), count + more
        squares = squares.to(own) + variance * more + off.square() * count * more / total
        mean = mean.to(own) + off * more / total
        count = total
    return count, mean, squares / count
