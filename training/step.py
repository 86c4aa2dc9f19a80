"""One adversarial step: the mathematics, nothing else."""

from copy import deepcopy
from dataclasses import dataclass
from typing import NamedTuple, Self

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.optim import Adam

from inference.noise import LIMIT, latents
from training.config import NetworkConfig, RecipeConfig
from training.losses import AdversarialLoss
from training.networks import Discriminator, Generator

# BatchNorm statistics of the moving average are taken over this many images of a seed that no
# picture and no score uses.
_CALIBRATION_IMAGES = 4096
_CALIBRATION_SEED = LIMIT - 1

_MOMENTS = ("step", "exp_avg", "exp_avg_sq")  # what Adam keeps of a parameter


class Snapshot(NamedTuple):
    """A copy of a `TrainState`."""

    step: int
    noise: Tensor
    tensors: dict[str, Tensor]


class Losses(NamedTuple):
    """What one step measured, as 0-d tensors on the device."""

    loss_g: Tensor
    loss_d: Tensor
    d_real: Tensor
    """Mean probability that the discriminator gave real images."""
    d_fake: Tensor
    """The same of generated ones, before its update."""


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
    ) -> Self:
        """Networks as `seed` draws them, the same on every device; global random state is kept."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            generator = Generator(network.latent_dim, network.generator_dims, image_shape)
            discriminator = Discriminator(network.discriminator_dims, image_shape)
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

    def snapshot(self) -> "Snapshot":
        """A copy to `restore` from."""
        tensors = {name: tensor.clone() for name, tensor in self.tensors().items()}
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
                for key in _MOMENTS:
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


class Gradients(NamedTuple):
    """Of both losses, by the parameters in their order, and what was measured on the way."""

    generator: tuple[Tensor, ...]
    discriminator: tuple[Tensor, ...]
    losses: Tensor
    """(4,), in the order of `Losses`."""


def weights_of(network: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers by name, detached; they share the network's memory."""
    return {name: tensor.detach() for name, tensor in network.state_dict().items()}


def adversarial_gradients(
    networks: tuple[nn.Module, nn.Module],
    loss: AdversarialLoss,
    weights: tuple[dict[str, Tensor], dict[str, Tensor]],
    real: Tensor,
    z: Tensor,
    gamma: Tensor | float,
    *,
    bfloat16: bool = False,
) -> Gradients:
    """The gradients of both networks, of G by the D that has not changed yet.

    networks, weights: G's and D's; `weights_of`, of which BatchNorm statistics are updated.
    real: (B, C, H, W) in [-1, 1].  z: (B, latent_dim) ~ N(0, I).  gamma: weight of R1 and R2, 0.0
    for none.  bfloat16: whether layers compute in it; weights, gradients and losses stay as they
    are.  A function of tensors alone, so that the engine can trace it.
    """
    g, d = (
        {name: weights[i][name].detach().requires_grad_() for name, _ in network.named_parameters()}
        for i, network in enumerate(networks)
    )
    # D changes last, so one pass of it serves both updates. Without BatchNorm in D an image's logit
    # is that image's own: one backward pass gives each image's dD(x)/dx, with which G's gradient
    # goes on from the fakes, and which the penalties are made of.
    with torch.autocast(real.device.type, torch.bfloat16, enabled=bfloat16):
        fake: Tensor = functional_call(networks[0], weights[0] | g, (z,))
        images = torch.cat([real, fake.detach().to(real)]).requires_grad_()
        logits: Tensor = functional_call(networks[1], weights[1] | d, (images,))
    penalised = isinstance(gamma, Tensor) or gamma > 0
    slopes = image_gradients(images, logits, create_graph=penalised)
    real_logits, fake_logits = logits.to(real).chunk(2)

    leaf = fake_logits.detach().requires_grad_()
    loss_g = loss.generator(real_logits.detach(), leaf)
    (per_logit,) = torch.autograd.grad(loss_g, leaf)  # (B,)
    onward = slopes.detach()[len(real) :] * per_logit.view(-1, 1, 1, 1)
    gradients_g = torch.autograd.grad(fake, tuple(g.values()), onward.to(fake))

    loss_d = loss.discriminator(real_logits, fake_logits)
    penalty = gamma * gradient_penalty(slopes) if penalised else 0.0
    gradients_d = torch.autograd.grad(loss_d + penalty, tuple(d.values()))
    probabilities = logits.detach().to(real).sigmoid().view(2, -1).mean(1)
    losses = torch.cat([torch.stack([loss_g.detach(), loss_d.detach()]), probabilities])
    return Gradients(gradients_g, gradients_d, losses)


def set_lr(state: TrainState, lr: float | Tensor) -> None:
    """Of Adam; on CUDA its own tensor, which a graph may change, takes the value."""
    (group,) = state.optimizer.param_groups
    if isinstance(group["lr"], Tensor):
        group["lr"].fill_(lr)
    else:
        group["lr"] = lr


def apply_gradients(state: TrainState, gradients: Gradients) -> None:
    """Update both networks."""
    (group,) = state.optimizer.param_groups
    values = gradients.generator + gradients.discriminator
    for parameter, value in zip(group["params"], values, strict=True):
        parameter.grad = value
    state.optimizer.step()
    state.step += 1


def adversarial_step(
    state: TrainState,
    real: Tensor,
    z: Tensor,
    loss: AdversarialLoss,
    gamma: Tensor | float,
    *,
    bfloat16: bool = False,
) -> Losses:
    """One update of G, then one of D on the same fakes; arguments as `adversarial_gradients`.

    Returns tensors on the device; the caller decides when to pay for `.item()`.
    """
    networks = state.generator, state.discriminator
    weights = weights_of(networks[0]), weights_of(networks[1])
    gradients = adversarial_gradients(networks, loss, weights, real, z, gamma, bfloat16=bfloat16)
    apply_gradients(state, gradients)
    return Losses(*gradients.losses)


def image_gradients(images: Tensor, logits: Tensor, *, create_graph: bool) -> Tensor:
    """dD(x)/dx of each image x, (B, C, H, W).

    logits: (B,), of each image alone.  create_graph: whether to differentiate the result again.
    """
    (gradients,) = torch.autograd.grad(
        logits.sum(), images, retain_graph=True, create_graph=create_graph
    )
    return gradients


def gradient_penalty(slopes: Tensor) -> Tensor:
    """Half of R1 + R2, the mean of |dD(x)/dx|^2 over real and over generated images.

    slopes: dD(x)/dx, (2B, C, H, W), of as many real images as generated ones.
    Mescheder et al. 2018, arXiv 1801.04406, equations 9 and 10.
    """
    return slopes.square().sum() / len(slopes)  # the two means, halved, are the mean of all


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
        if isinstance(module, nn.BatchNorm1d):
            module.momentum = 1.0  # running statistics become those of the one batch below
    z = torch.from_numpy(latents(_CALIBRATION_IMAGES, generator.latent_dim, seed=_CALIBRATION_SEED))
    generator.train()(z.to(state.noise.device))
    return generator.eval()
