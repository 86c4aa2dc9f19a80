"""All that a step changes."""

from copy import deepcopy
from dataclasses import dataclass
from typing import NamedTuple, Self

import torch
from torch import Tensor, nn
from torch.optim import Adam

from training.config import NetworkConfig, RecipeConfig
from training.gan.networks import Discriminator, Generator

MOMENTS = ("step", "exp_avg", "exp_avg_sq")
"""What Adam keeps of a parameter, as the last parts of names."""


class Snapshot(NamedTuple):
    """A copy of a `TrainState`."""

    step: int
    noise: Tensor
    tensors: dict[str, Tensor]


@dataclass
class TrainState:
    """All that a step changes."""

    generator: Generator
    discriminator: Discriminator
    ema: Generator
    """Moving average of the generator's weights; `averaged` makes it ready for use."""
    optimizer: Adam
    """Of both networks: they share its settings, and one call is cheaper than two."""
    noise: torch.Generator
    step: int = 0
    """Updates of both networks so far."""

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
        """Networks as `seed` draws them, the same on every device; global random state is kept.

        classes: of the images; they count where `network` is conditional.
        """
        classes = classes if network.conditional else ()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            kind, (of_g, of_d) = network.network, network.dims
            generator = Generator(network.latent_dim, of_g, image_shape, classes, kind)
            discriminator = Discriminator(of_d, image_shape, len(classes), kind)
        generator.to(device)
        discriminator.to(device)

        # On CUDA all that changes from step to step lives on the device, for a CUDA graph.
        cuda = device.type == "cuda"
        optimizer = Adam(
            [*generator.parameters(), *discriminator.parameters()],
            lr=torch.tensor(recipe.lr, device=device) if cuda else recipe.lr,
            betas=(float(recipe.betas[0]), float(recipe.betas[1])),  # PyTorch refuses (0, 0.99)
            fused=True,
            capturable=cuda,
        )
        return cls(
            generator=generator,
            discriminator=discriminator,
            ema=deepcopy(generator).requires_grad_(False),
            optimizer=optimizer,
            noise=torch.Generator(device).manual_seed(seed),
        )

    def tensors(self) -> dict[str, Tensor]:
        """Every tensor that a step changes, itself, by name; moments once they exist."""
        found = {f"ema.{key}": tensor for key, tensor in self.ema.state_dict().items()}
        for name, network in self._networks():
            found |= {f"{name}.{key}": tensor for key, tensor in network.state_dict().items()}
            for parameter_name, parameter in network.named_parameters():
                for key, moment in self.optimizer.state[parameter].items():
                    found[f"{name}.{parameter_name}.{key}"] = moment
        return found

    def snapshot(self, device: torch.device | None = None) -> "Snapshot":
        """A copy to `restore` from, on `device`, by default where the state is."""
        tensors = {
            name: tensor.to(device or tensor.device, copy=True)
            for name, tensor in self.tensors().items()
        }
        return Snapshot(self.step, self.noise.get_state(), tensors)

    @torch.no_grad()
    def restore(self, snapshot: "Snapshot") -> None:
        """Put every tensor back in place.

        Moments that only the snapshot has are made, those that only this state has become zero.
        """
        self.step = snapshot.step
        self.noise.set_state(snapshot.noise)
        for name, network in self._networks():
            for parameter_name, parameter in network.named_parameters():
                for key in MOMENTS:
                    saved = snapshot.tensors.get(f"{name}.{parameter_name}.{key}")
                    if saved is not None and key not in self.optimizer.state[parameter]:
                        self.optimizer.state[parameter][key] = saved.to(parameter.device, copy=True)
        for name, tensor in self.tensors().items():
            saved = snapshot.tensors.get(name)
            tensor.zero_() if saved is None else tensor.copy_(saved)

    def _networks(self) -> tuple[tuple[str, nn.Module], ...]:
        return ("generator", self.generator), ("discriminator", self.discriminator)

    def draw_z(self, batch_size: int) -> Tensor:
        """The next noise of training, (B, latent_dim) ~ N(0, I)."""
        return torch.randn(
            batch_size,
            self.generator.latent_dim,
            generator=self.noise,
            device=self.noise.device,
        )
