"""One adversarial step: the mathematics, nothing else."""

from copy import deepcopy
from dataclasses import dataclass
from typing import NamedTuple, Self

import torch
from torch import Tensor, nn
from torch.optim import Adam

from inference.noise import LIMIT, latents
from training.config import NetworkConfig, RecipeConfig
from training.losses import AdversarialLoss
from training.networks import Discriminator, Generator

# BatchNorm statistics of the moving average are taken over this many images of a seed that no
# picture and no score uses.
_CALIBRATION_IMAGES = 4096
_CALIBRATION_SEED = LIMIT - 1


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
    optimizer_g: Adam
    optimizer_d: Adam
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

        beta1, beta2 = map(float, recipe.betas)  # PyTorch refuses (0, 0.99)

        def adam(module: nn.Module) -> Adam:
            return Adam(module.parameters(), lr=recipe.lr, betas=(beta1, beta2), fused=True)

        return cls(
            generator=generator,
            discriminator=discriminator,
            ema=deepcopy(generator).requires_grad_(False),
            optimizer_g=adam(generator),
            optimizer_d=adam(discriminator),
            noise=torch.Generator(device).manual_seed(seed),
        )

    def draw_z(self, batch_size: int) -> Tensor:
        """The next noise of training, (B, latent_dim) ~ N(0, I)."""
        return torch.randn(
            batch_size,
            self.generator.latent_dim,
            generator=self.noise,
            device=self.noise.device,
        )


def adversarial_step(
    state: TrainState, real: Tensor, z: Tensor, loss: AdversarialLoss, gamma: float
) -> Losses:
    """One update of G, then one of D on the same fakes.

    real: (B, C, H, W) in [-1, 1].  z: (B, latent_dim) ~ N(0, I).  gamma: weight of R1 and R2.
    Returns tensors on the device; the caller decides when to pay for `.item()`.
    """
    # D changes last, so one pass of it serves both updates. Without BatchNorm in D an image's logit
    # is that image's own: one backward pass gives each image's dD(x)/dx, with which G's gradient
    # goes on from the fakes, and which the penalties are made of.
    fake: Tensor = state.generator(z)
    images = torch.cat([real, fake.detach()]).requires_grad_()
    logits: Tensor = state.discriminator(images)
    slopes = image_gradients(images, logits, create_graph=gamma > 0)
    real_logits, fake_logits = logits.chunk(2)

    leaf = fake_logits.detach().requires_grad_()
    loss_g = loss.generator(real_logits.detach(), leaf)
    (per_logit,) = torch.autograd.grad(loss_g, leaf)  # (B,)
    state.optimizer_g.zero_grad(set_to_none=True)
    fake.backward(slopes.detach()[len(real) :] * per_logit.view(-1, 1, 1, 1))
    state.optimizer_g.step()

    loss_d = loss.discriminator(real_logits, fake_logits)
    penalty = gamma * gradient_penalty(slopes) if gamma > 0 else 0.0
    state.optimizer_d.zero_grad(set_to_none=True)
    (loss_d + penalty).backward()
    state.optimizer_d.step()

    state.step += 1
    with torch.no_grad():
        return Losses(
            loss_g.detach(),
            loss_d.detach(),
            real_logits.sigmoid().mean(),
            fake_logits.sigmoid().mean(),
        )


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


@torch.no_grad()
def update_ema(state: TrainState, batch_size: int, half_life: float) -> None:
    """Move the average towards the generator, after `state.step` steps.

    The half-life, in images, is at most a twentieth of the images seen, so that the average does
    not remember the first weights (the ramp-up of Karras et al. 2020, arXiv 2006.06676).
    """
    half_life = min(half_life, state.step * batch_size / 20)
    kept = 0.5 ** (batch_size / half_life) if half_life > 0 else 0.0
    torch._foreach_lerp_(list(state.ema.parameters()), list(state.generator.parameters()), 1 - kept)


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
