"""All that a step changes, and the average that is made of it."""

from copy import deepcopy
from dataclasses import dataclass
from typing import NamedTuple, Self

import torch
from torch import Tensor, nn
from torch.optim import Adam

from inference.noise import LIMIT
from training.config import NetworkConfig, RecipeConfig
from training.gan.networks import Discriminator, Generator

# BatchNorm statistics of the moving average are taken over this many images of a seed that no
# picture and no score uses.
_CALIBRATION_IMAGES = 4096
_CALIBRATION_SEED = LIMIT - 1

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
