"""The two fully connected networks."""

from itertools import pairwise
from math import prod

import torch
from torch import Tensor, nn

# The 1e-5 of PyTorch. Many copies of this GAN say `BatchNorm1d(n, 0.8)`, which sets eps to 0.8 and
# makes it collapse onto few modes.
_BATCH_NORM_EPS = 1e-5
_LEAK = 0.2


class Generator(nn.Module):
    """Maps noise z ~ N(0, I) to images with pixels in [-1, 1].

    image_shape: (C, H, W).  hidden_dims: widths; all but the first layer are batch-normalised.
    """

    def __init__(
        self, latent_dim: int, hidden_dims: tuple[int, ...], image_shape: tuple[int, int, int]
    ) -> None:
        super().__init__()
        self.latent_dim = latent_dim
        self.hidden_dims = hidden_dims
        self.image_shape = image_shape
        layers: list[nn.Module] = []
        for i, (n_in, n_out) in enumerate(pairwise((latent_dim, *hidden_dims))):
            layers.append(nn.Linear(n_in, n_out))
            if i > 0:
                layers.append(nn.BatchNorm1d(n_out, eps=_BATCH_NORM_EPS))
            layers.append(nn.LeakyReLU(_LEAK))
        self.layers = nn.Sequential(*layers, nn.Linear(hidden_dims[-1], prod(image_shape)))

    def forward(self, z: Tensor) -> Tensor:
        x: Tensor = self.layers(z).tanh()  # (B, latent_dim) -> (B, C*H*W)
        images: Tensor = x.unflatten(1, self.image_shape)  # (B, C, H, W)
        return images


class Discriminator(nn.Module):
    """Tells real images from generated ones. No BatchNorm: an image's logit is its own."""

    def __init__(self, hidden_dims: tuple[int, ...], image_shape: tuple[int, int, int]) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Flatten()]
        for n_in, n_out in pairwise((prod(image_shape), *hidden_dims)):
            layers += [nn.Linear(n_in, n_out), nn.LeakyReLU(_LEAK)]
        self.layers = nn.Sequential(*layers, nn.Linear(hidden_dims[-1], 1))

    def forward(self, images: Tensor) -> Tensor:
        """Logits, (B,), of images (B, C, H, W) in [-1, 1]."""
        logits: Tensor = self.layers(images).squeeze(1)
        return logits

    def probability(self, images: Tensor) -> Tensor:
        """The probability, (B,), that images are real."""
        logits: Tensor = self(images)
        return logits.sigmoid()


def to_pixels(images: Tensor) -> Tensor:
    """float (n, C, H, W) in [-1, 1] -> uint8 (n, H, W, C), rounded half to even."""
    levels = ((images + 1) * 127.5).round().clamp(0, 255)
    return levels.to(torch.uint8).permute(0, 2, 3, 1)
