"""The moving average of the generator, which is what is scored, shown and exported."""

from collections.abc import Sequence
from copy import deepcopy

import torch
from torch import Tensor, nn

from inference.noise import LIMIT
from training.gan.networks import Generator

# BatchNorm statistics of the moving average are taken over this many images of a seed that no
# picture and no score uses.
_CALIBRATION_IMAGES = 4096
_FEW_IMAGES = 512
_CALIBRATION_SEED = LIMIT - 1


@torch.no_grad()
def averaged(ema: Generator, *, roughly: bool = False) -> Generator:
    """The generator to score, show and export: a copy of the average, in eval mode, on its device.

    Its BatchNorm statistics are those of its own activations, taken anew: averaged weights do not
    have the averaged statistics. Layer after layer, as those of one need the ones before it, and in
    parts, so that memory is bounded whatever the size of the images.

    roughly: take them over fewer images, for a generator that is only shown.
    """
    generator = deepcopy(ema).eval()
    images = _FEW_IMAGES if roughly else _CALIBRATION_IMAGES
    inputs = generator.drawn(images, seed=_CALIBRATION_SEED)
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
    # BatchNorm normalises a batch with its own variance, and keeps the unbiased one for later.
    for variance, correction in corrections:
        variance.mul_(correction)
    return generator


def _statistics(
    generator: Generator, layers: Sequence[nn.Module], inputs: tuple[Tensor, ...], part: int
) -> tuple[int, Tensor, Tensor]:
    """How many values each channel has of what `layers` make of the inputs, mean and variance (C,).

    part: inputs at a time; what is found for each is joined as Chan et al. 1979 do it.
    """
    count, mean, squares = 0, torch.zeros(()), torch.zeros(())
    for some in zip(*(tensor.split(part) for tensor in inputs), strict=True):
        values = generator.joined(*some)
        for layer in layers:
            values = layer(values)
        values = values.transpose(0, 1).flatten(1)  # (B, C[, H, W]) -> (C, B*H*W)
        more, (variance, own) = values.shape[1], torch.var_mean(values, 1, correction=0)
        own, total = own.double(), count + more
        off = own - mean.to(own)
        squares = squares.to(own) + variance.double() * more + off.square() * count * more / total
        mean = mean.to(own) + off * more / total
        count = total
    return count, mean, squares / count
