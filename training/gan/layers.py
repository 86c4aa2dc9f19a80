"""The layers of both networks: fully connected layers, or convolutions."""

from itertools import pairwise
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# PyTorch's default. Many copies of this GAN say `BatchNorm1d(n, 0.8)`, which sets eps to 0.8 and
# makes the generator collapse onto a few modes.
_BATCH_NORM_EPS = 1e-5
_LEAK = 0.2
_APART = (1, 2)  # pixels between which differences are seen
_TIMES = 4  # the convolutional generator doubles the size twice


def connected_generator(
    n_in: int, dims: tuple[int, ...], shape: tuple[int, int, int]
) -> nn.Sequential:
    """(B, n_in) -> (B, C*H*W), before tanh. All hidden layers but the first have BatchNorm."""
    layers: list[nn.Module] = []
    for i, (width_in, width) in enumerate(pairwise((n_in, *dims))):
        layers.append(nn.Linear(width_in, width))
        if i > 0:
            layers.append(nn.BatchNorm1d(width, eps=_BATCH_NORM_EPS))
        layers.append(nn.LeakyReLU(_LEAK))
    return nn.Sequential(*layers, nn.Linear(dims[-1], prod(shape)))


def connected_discriminator(
    shape: tuple[int, int, int], dims: tuple[int, ...], n_out: int
) -> nn.Sequential:
    """(B, C, H, W) -> (B, n_out) logits."""
    return _connected(nn.Flatten(), prod(shape), dims, n_out)


def differences_discriminator(
    shape: tuple[int, int, int], dims: tuple[int, ...], n_out: int
) -> nn.Sequential:
    """The same, whose first layer also sees how much pixels one and two apart differ."""
    channels, height, width = shape
    pairs = sum(height * max(0, width - apart) + max(0, height - apart) * width for apart in _APART)
    return _connected(_Differences(), prod(shape) + channels * pairs, dims, n_out)


def _connected(first: nn.Module, n_in: int, dims: tuple[int, ...], n_out: int) -> nn.Sequential:
    layers = [first]
    for width_in, width in pairwise((n_in, *dims)):
        layers += [nn.Linear(width_in, width), nn.LeakyReLU(_LEAK)]
    return nn.Sequential(*layers, nn.Linear(dims[-1], n_out))


class _Differences(nn.Module):
    """(B, C, H, W) -> (B, n): the pixels, and |a - b| of those one or two apart in a row or column.

    A fully connected layer could learn differences, but not their sizes, and these are what seams
    and prints differ in. No difference is weighed against another, as a convolution would.
    """

    def forward(self, images: Tensor) -> Tensor:
        seen = [images]
        for apart in _APART:
            seen.append((images[..., apart:] - images[..., :-apart]).abs())
            seen.append((images[..., apart:, :] - images[..., :-apart, :]).abs())
        return torch.cat([values.flatten(1) for values in seen], 1)


def convolutional_generator(
    n_in: int, dims: tuple[int, ...], shape: tuple[int, int, int]
) -> nn.Sequential:
    """(B, n_in) -> (B, C*H*W), before tanh.

    It starts from a quarter of the size, rounded up, and crops the result to the image. Sub-pixel
    convolutions (Shi et al. 2016, arXiv 1609.05158, section 3.2) double the size: they compute at
    the smaller size, and export as one operation. All layers but the last have BatchNorm (Radford
    et al. 2016, arXiv 1511.06434). The first BatchNorm follows the linear layer directly, so that
    every BatchNorm can be folded into the layer before it.
    """
    channels, height, width = shape
    base = dims[0], -(-height // _TIMES), -(-width // _TIMES)
    layers: list[nn.Module] = [
        nn.Linear(n_in, prod(base)),
        nn.BatchNorm1d(prod(base), eps=_BATCH_NORM_EPS),
        nn.LeakyReLU(_LEAK),
        nn.Unflatten(1, base),
    ]
    for stage_in, stage in pairwise(dims):
        layers += [
            nn.Conv2d(stage_in, 4 * stage, 3, padding=1),
            nn.BatchNorm2d(4 * stage, eps=_BATCH_NORM_EPS),
            nn.LeakyReLU(_LEAK),
            nn.PixelShuffle(2),  # (B, 4 C, H, W) -> (B, C, 2 H, 2 W)
        ]
    layers.append(nn.Conv2d(dims[-1], channels, 3, padding=1))
    if height % _TIMES or width % _TIMES:
        layers.append(_Crop(height, width))
    return nn.Sequential(*layers, nn.Flatten())


def convolutional_discriminator(
    shape: tuple[int, int, int], dims: tuple[int, ...], n_out: int
) -> nn.Sequential:
    """(B, C, H, W) -> (B, n_out) logits, H and W at least 8; each layer halves the size."""
    layers: list[nn.Module] = []
    for stage_in, stage in pairwise((shape[0], *dims)):
        layers += [Halving(stage_in, stage), nn.LeakyReLU(_LEAK)]
    left = prod(size >> len(dims) for size in shape[1:])
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(dims[-1] * left, n_out))


class Halving(nn.Conv2d):
    """A 4×4 convolution of stride 2, (B, C, H, W) -> (B, C', H // 2, W // 2)."""

    def __init__(self, channels_in: int, channels: int) -> None:
        super().__init__(channels_in, channels, 4, stride=2, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        kind, weight, bias = images.device.type, self.weight, self.bias
        if kind != "cuda" or bias is None:
            return super().forward(images)
        if torch.is_autocast_enabled(kind):
            to = torch.get_autocast_dtype(kind)
            images, weight, bias = images.to(to), weight.to(to), bias.to(to)
        convolved: Tensor = HalvingFunction.apply(images, weight)
        return convolved + bias.view(1, -1, 1, 1)


class HalvingFunction(torch.autograd.Function):
    """The same convolution, whose gradient for images is a transposed convolution.

    The penalties need the gradient of that gradient. PyTorch's own uses kernels as large as the
    layer's images, which takes 40 % of a step of `--network conv` on an H200.
    """

    @staticmethod
    def forward(ctx: Any, images: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(images, weight)
        return F.conv2d(images, weight, None, 2, 1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None]:
        (gradient,), (images, weight) = gradients, ctx.saved_tensors
        of_images = of_weight = None
        if ctx.needs_input_grad[0]:
            odd = [size % 2 for size in images.shape[2:]]
            of_images = F.conv_transpose2d(gradient, weight, None, 2, 1, odd)
        if ctx.needs_input_grad[1]:
            _, of_weight, _ = torch.ops.aten.convolution_backward(
                gradient, images, weight, None,
                [2, 2], [1, 1], [1, 1], False, [0, 0], 1, [False, True, False],
            )  # fmt: skip
        return of_images, of_weight


class _Crop(nn.Module):
    def __init__(self, height: int, width: int) -> None:
        super().__init__()
        self.height, self.width = height, width

    def forward(self, images: Tensor) -> Tensor:
        return images[:, :, : self.height, : self.width]


GENERATORS = {"mlp": connected_generator, "conv": convolutional_generator}
DISCRIMINATORS = {
    "mlp": connected_discriminator,
    "differences": differences_discriminator,
    "conv": convolutional_discriminator,
}
