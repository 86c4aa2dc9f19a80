"""The generator that is scored: its inputs, and a function that makes images of them."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from inference.noise import latents
from training.gan.networks import Generator, generator_inputs, to_pixels

Generate = Callable[..., Tensor]
"""z float32 (n, latent_dim), and int64 labels (n,) of a conditional generator -> uint8
(n, C, H, W), on the extractor's device."""

_PART = 1000  # images that are generated at once


@dataclass(frozen=True)
class Subject:
    """A generator to score."""

    generate: Generate
    latent_dim: int
    classes: tuple[str, ...] = ()
    """The names of its classes; empty for an unconditional generator."""

    @classmethod
    def of(cls, generator: Generator) -> Self:
        """A PyTorch generator, on the device of its weights."""
        device = next(generator.parameters()).device
        with torch.no_grad():
            at_once = generator.images_at_once()

        @torch.no_grad()
        def generate(*inputs: Tensor) -> Tensor:
            parts = zip(*(tensor.to(device).split(at_once) for tensor in inputs), strict=True)
            return torch.cat([to_pixels(generator(*part)) for part in parts]).permute(0, 3, 1, 2)

        return cls(generate, generator.latent_dim, generator.classes)

    def images(self, count: int, seed: int) -> Iterator[Tensor]:
        """Images 0 to `count` of a seed, with random labels if conditional: uint8 (n, C, H, W).

        They come in parts, so that not all of them are in memory at once.
        """
        return self._generated(
            *generator_inputs(self.latent_dim, len(self.classes), count, seed=seed)
        )

    def images_of(self, label: int, count: int, seed: int) -> Iterator[Tensor]:
        """Images 0 to `count` of a seed, all of one label, in parts."""
        z = torch.from_numpy(latents(count, self.latent_dim, seed=seed))
        return self._generated(z, torch.full((count,), label))

    def _generated(self, *inputs: Tensor) -> Iterator[Tensor]:
        for part in zip(*(tensor.split(_PART) for tensor in inputs), strict=True):
            yield self.generate(*part)
