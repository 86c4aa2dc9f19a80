"""How large networks are, without making them."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from training.config import ConfigError, NetworkConfig
from training.gan.networks import networks_of


class Sizes(NamedTuple):
    """Numbers of values."""

    weights: int
    """The weights of a network."""
    activations: int
    """What all its layers give for one image."""


def sizes_of(
    network: NetworkConfig, image_shape: tuple[int, int, int], classes: tuple[str, ...] = ()
) -> tuple[Sizes, Sizes]:
    """The sizes of generator and discriminator.  classes: those of a conditional run.

    Raises:
        ConfigError: if they are too large to be counted.
    """
    try:
        with torch.device("meta"):  # tensors with a shape and without memory
            generator, discriminator = networks_of(network, image_shape, classes)
            labels = torch.zeros(2, dtype=torch.int64) if generator.classes else None
            z, images = torch.zeros(2, network.latent_dim), torch.zeros(2, *image_shape)
            return _sizes(generator, z, labels), _sizes(discriminator, images, labels)
    except (RuntimeError, OverflowError, TypeError):  # a number of more than 63 bits
        raise ConfigError(
            "the networks are absurdly large: widths {} and {}".format(*network.dims)
        ) from None


def _sizes(network: nn.Module, inputs: Tensor, labels: Tensor | None) -> Sizes:
    """inputs, labels: of two images, as BatchNorm wants them."""
    values = 0

    def count(layer: nn.Module, inputs: object, output: Tensor) -> None:
        nonlocal values
        values += output.numel() // 2

    for layer in network.modules():
        if not list(layer.children()):
            layer.register_forward_hook(count)
    with torch.no_grad():
        network(inputs, labels)
    return Sizes(sum(weight.numel() for weight in network.parameters()), values)
