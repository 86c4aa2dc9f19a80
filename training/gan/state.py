"""The training state: everything that a step changes."""

from copy import deepcopy
from dataclasses import dataclass
from typing import NamedTuple, Self

import torch
from torch import Tensor, nn

from training.config import NetworkConfig, RecipeConfig
from training.gan.augmentation import COLUMNS
from training.gan.networks import Discriminator, Generator, networks_of


class Moments(NamedTuple):
    """Adam's moments, by the parameters of the generator, then of the discriminator."""

    exp_avg: list[Tensor]
    """First moments: averages of the gradients."""
    exp_avg_sq: list[Tensor]
    """Second moments: averages of the squared gradients."""


class Snapshot(NamedTuple):
    """A copy of a `TrainState`."""

    step: int
    noise: Tensor
    tensors: dict[str, Tensor]


@dataclass
class TrainState:
    """Everything that a step changes."""

    generator: Generator
    discriminator: Discriminator
    ema: Generator
    """Moving average of the generator's weights; `averaged` makes it ready for use."""
    moments: Moments
    noise: torch.Generator
    noise_width: int
    """Random numbers for each image of a step: latent_dim, and those of the augmentation."""
    step: int = 0
    """Number of updates of both networks so far."""

    @classmethod
    def create(
        cls,
        network: NetworkConfig,
        recipe: RecipeConfig,
        image_shape: tuple[int, int, int],
        device: torch.device,
        seed: int,
        classes: tuple[str, ...] = (),
    ) -> Self:
        """The state before the first step. The same seed gives the same weights on every device.

        The global random state is not changed.  classes: the classes of the images;
        used only if `network` is conditional.
        """
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)  # torch.manual_seed seeds GPUs as well
            generator, discriminator = networks_of(network, image_shape, classes)
        # cuDNN's fast convolutions need channels last, and would rearrange each input otherwise.
        last = network.network == "conv" and device.type == "cuda"
        for each in (generator, discriminator):
            each.to(device)
            if last:
                each.to(memory_format=torch.channels_last)

        parameters = [*generator.parameters(), *discriminator.parameters()]
        zeros = [[torch.zeros_like(each.detach()) for each in parameters] for _ in range(2)]
        return cls(
            generator=generator,
            discriminator=discriminator,
            ema=deepcopy(generator).requires_grad_(False),
            moments=Moments(*zeros),
            noise=torch.Generator(device).manual_seed(seed),
            noise_width=network.latent_dim + (2 * COLUMNS if recipe.augment else 0),
        )

    def tensors(self) -> dict[str, Tensor]:
        """Every tensor that a step changes, by name; no copies."""
        found = {f"ema.{key}": tensor for key, tensor in self.ema.state_dict().items()}
        moments = zip(*self.moments, strict=True)
        for name, network in self._networks():
            found |= {f"{name}.{key}": tensor for key, tensor in network.state_dict().items()}
            for parameter_name, _ in network.named_parameters():
                for key, moment in zip(Moments._fields, next(moments), strict=True):
                    found[f"{name}.{parameter_name}.{key}"] = moment
        return found

    def update_counts(self) -> dict[str, Tensor]:
        """Adam's number of updates for each parameter, by name, as last.pt holds it."""
        return {
            f"{name}.{parameter_name}.step": torch.tensor(float(self.step))
            for name, network in self._networks()
            for parameter_name, _ in network.named_parameters()
        }

    def snapshot(self, device: torch.device | None = None) -> "Snapshot":
        """A copy for `restore`, on `device`; by default on the device of the state."""
        tensors = {
            name: tensor.to(device or tensor.device, copy=True)
            for name, tensor in self.tensors().items()
        }
        return Snapshot(self.step, self.noise.get_state(), tensors)

    @torch.no_grad()
    def restore(self, snapshot: "Snapshot") -> None:
        """Copy every tensor back; moments that the snapshot does not have become zero."""
        self.step = snapshot.step
        self.noise.set_state(snapshot.noise)
        for name, tensor in self.tensors().items():
            saved = snapshot.tensors.get(name)
            tensor.zero_() if saved is None else tensor.copy_(saved)

    def _networks(self) -> tuple[tuple[str, nn.Module], ...]:
        return ("generator", self.generator), ("discriminator", self.discriminator)

    def next_noise(self, batch_size: int) -> Tensor:
        """The next noise of training, (B, noise_width) ~ N(0, I)."""
        return torch.randn(
            batch_size, self.noise_width, generator=self.noise, device=self.noise.device
        )
