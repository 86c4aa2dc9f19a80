"""Generator and discriminator, made of the layers in `layers`."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from inference.noise import labels as drawn_labels
from inference.noise import latents
from training.config import NetworkConfig
from training.gan.layers import DISCRIMINATORS, GENERATORS

_VALUES_AT_ONCE = 2**20


class Conditional(nn.Module):
    """A network that takes the labels of images, if there are classes."""

    one_hot: Tensor
    """(classes, classes): the one-hot vector of each label. A constant, so it is not saved."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        vectors = torch.eye(classes) if classes else None
        self.register_buffer("one_hot", vectors, persistent=False)


class Generator(Conditional):
    """Maps noise z ~ N(0, I), and the label if there are classes, to images in [-1, 1].

    image_shape: (C, H, W). network: "mlp" or "conv". hidden_dims: widths (mlp) or channels (conv).
    classes: the names of the labels; empty for an unconditional generator.
    """

    def __init__(
        self,
        latent_dim: int,
        hidden_dims: tuple[int, ...],
        image_shape: tuple[int, int, int],
        classes: tuple[str, ...] = (),
        network: str = "mlp",
    ) -> None:
        super().__init__(len(classes))
        self.latent_dim = latent_dim
        self.hidden_dims = hidden_dims
        self.image_shape = image_shape
        self.classes = classes
        self.network = network
        self.layers = GENERATORS[network](latent_dim + len(classes), hidden_dims, image_shape)

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """z: (B, latent_dim).  labels: int64 (B,), for a conditional generator."""
        x: Tensor = self.layers(self.joined(z, labels)).tanh()  # (B, C*H*W)
        images: Tensor = x.unflatten(1, self.image_shape)  # (B, C, H, W)
        return images

    def joined(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """The input of the first layer: z, followed by the one-hot vector of each label."""
        if labels is None:
            return z
        return torch.cat([z, F.embedding(labels, self.one_hot)], 1)  # (B, latent_dim + classes)

    def images_at_once(self) -> int:
        """How many images to make at once, so that no layer needs more than 4 MiB."""
        values = self.joined(*self.inputs(1))
        most = values.numel()
        for layer in self.layers:
            values = layer(values)
            most = max(most, values.numel())
        return max(1, _VALUES_AT_ONCE // most)

    def inputs(self, count: int, *, seed: int = 0, start: int = 0) -> tuple[Tensor, ...]:
        """The inputs for some images of a seed, the same as the sampler's, on its device."""
        device = next(self.parameters()).device
        inputs = generator_inputs(self.latent_dim, len(self.classes), count, seed=seed, start=start)
        return tuple(tensor.to(device) for tensor in inputs)


class Discriminator(Conditional):
    """Tells real images from generated ones.

    It has no BatchNorm, so the logit of an image does not depend on the rest of the batch. With
    classes there is one logit for each class, and the label selects one: a projection discriminator
    (Miyato and Koyama 2018, arXiv 1802.05637), whose two terms become one with one-hot labels.
    """

    def __init__(
        self,
        hidden_dims: tuple[int, ...],
        image_shape: tuple[int, int, int],
        classes: int = 0,
        network: str = "mlp",
    ) -> None:
        super().__init__(classes)
        self.layers = DISCRIMINATORS[network](image_shape, hidden_dims, max(1, classes))

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        """Logits, (B,), of images (B, C, H, W) in [-1, 1].  labels: int64 (B,), with classes."""
        logits: Tensor = self.layers(images)  # (B, 1 or classes)
        if labels is None:
            return logits.squeeze(1)
        return (logits * F.embedding(labels, self.one_hot)).sum(1)

    def probability(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        """The probability, (B,), that images are real."""
        logits: Tensor = self(images, labels)
        return logits.sigmoid()


def networks_of(
    network: NetworkConfig, image_shape: tuple[int, int, int], classes: tuple[str, ...]
) -> tuple[Generator, Discriminator]:
    """Both networks with new weights.  classes: used only if `network` is conditional."""
    classes = classes if network.conditional else ()
    kind, (of_g, of_d) = network.network, network.dims
    generator = Generator(network.latent_dim, of_g, image_shape, classes, kind)
    return generator, Discriminator(of_d, image_shape, len(classes), network.discriminator)


def generator_inputs(
    latent_dim: int, classes: int, count: int, *, seed: int = 0, start: int = 0
) -> tuple[Tensor, ...]:
    """The inputs of a generator for some images of a seed: z, and random labels with classes."""
    z = torch.from_numpy(latents(count, latent_dim, seed=seed, start=start))
    if classes == 0:
        return (z,)
    return z, torch.from_numpy(drawn_labels(count, classes, seed=seed, start=start))


def to_pixels(images: Tensor) -> Tensor:
    """Convert float (n, C, H, W) in [-1, 1] to uint8 (n, H, W, C), rounding half to even."""
    levels = ((images + 1) * 127.5).round().clamp(0, 255)
    return levels.to(torch.uint8).permute(0, 2, 3, 1)
