"""One adversarial step: the mathematics, nothing else."""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call

from training.gan.losses import AdversarialLoss
from training.gan.state import TrainState


class Losses(NamedTuple):
    """What one step measured, as 0-d tensors on the device."""

    loss_g: Tensor
    loss_d: Tensor
    d_real: Tensor
    """Mean probability that the discriminator gave real images."""
    d_fake: Tensor
    """The same of generated ones, before its update."""


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
    labels: Tensor | None = None,
    *,
    bfloat16: bool = False,
) -> Gradients:
    """The gradients of both networks, of G by the D that has not changed yet.

    networks, weights: G's and D's; `weights_of`, of which BatchNorm statistics are updated.
    real: (B, C, H, W) in [-1, 1].  z: (B, latent_dim) ~ N(0, I).  gamma: weight of R1 and R2, 0.0
    for none.  labels: int64 (B,), of the real images, where the networks are conditional; the
    generated ones are given the same.  bfloat16: whether layers compute in it; weights, gradients
    and losses stay as they are.  A function of tensors alone, so that the engine can trace it.
    """
    g, d = (
        {name: weights[i][name].detach().requires_grad_() for name, _ in network.named_parameters()}
        for i, network in enumerate(networks)
    )
    # D changes last, so one pass of it serves both updates. Without BatchNorm in D an image's logit
    # is that image's own: one backward pass gives each image's dD(x)/dx, with which G's gradient
    # goes on from the fakes, and which the penalties are made of.
    with torch.autocast(real.device.type, torch.bfloat16, enabled=bfloat16):
        fake: Tensor = functional_call(networks[0], weights[0] | g, (z, labels))
        images = torch.cat([real, fake.detach().to(real)]).requires_grad_()
        both = None if labels is None else torch.cat([labels, labels])
        logits: Tensor = functional_call(networks[1], weights[1] | d, (images, both))
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
        # Fused Adam takes elements as they lie in memory (on CUDA it refuses other strides than the
        # weights'), and a convolution's gradient may lie there in another order than its weights.
        alike = value.stride() == parameter.stride()
        parameter.grad = value if alike else torch.empty_like(parameter).copy_(value)
    state.optimizer.step()
    state.step += 1


def adversarial_step(
    state: TrainState,
    real: Tensor,
    z: Tensor,
    loss: AdversarialLoss,
    gamma: Tensor | float,
    labels: Tensor | None = None,
    *,
    bfloat16: bool = False,
) -> Losses:
    """One update of G, then one of D on the same fakes; arguments as `adversarial_gradients`.

    Returns tensors on the device; the caller decides when to pay for `.item()`.
    """
    networks = state.generator, state.discriminator
    weights = weights_of(networks[0]), weights_of(networks[1])
    gradients = adversarial_gradients(
        networks, loss, weights, real, z, gamma, labels, bfloat16=bfloat16
    )
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
