"""One adversarial step: the mathematics, nothing else."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call

from training.config import RecipeConfig, StepNumbers
from training.gan.adam import fused_adam
from training.gan.augmentation import COLUMNS, augmented
from training.gan.losses import LOSSES, AdversarialLoss
from training.gan.state import TrainState


class StepMetrics(NamedTuple):
    """The metrics of one step, as 0-d tensors on the device."""

    loss_g: Tensor
    loss_d: Tensor
    d_real: Tensor
    """Mean probability that the discriminator gives the real images."""
    d_fake: Tensor
    """Mean probability that it gives the generated images, before its update."""


class Gradients(NamedTuple):
    """Gradients of both losses in parameter order, and the step's metrics."""

    generator: tuple[Tensor, ...]
    discriminator: tuple[Tensor, ...]
    losses: Tensor
    """(4,), in the order of `StepMetrics`."""


class StepTensors(NamedTuple):
    """The tensors that a step reads and changes in place; they share the state's memory."""

    generator: dict[str, Tensor]
    """Parameters and buffers by name."""
    discriminator: dict[str, Tensor]
    exp_avg: list[Tensor]
    """Adam's first moments, by the parameters of G, then of D."""
    exp_avg_sq: list[Tensor]
    """Adam's second moments."""
    average: list[Tensor]
    """The moving average of G's parameters."""

    @classmethod
    def of(cls, state: TrainState) -> "StepTensors":
        """The tensors of a state."""
        average = [parameter.detach() for parameter in state.ema.parameters()]
        weights = weights_of(state.generator), weights_of(state.discriminator)
        return cls(*weights, *state.moments, average)


@dataclass(frozen=True)
class Step:
    """One update of both networks, of Adam's moments and of the moving average.

    This function of tensors is the only definition of a step. It is run as written, compiled, or
    recorded in a CUDA graph.
    """

    networks: tuple[nn.Module, nn.Module]
    """G and D. Only their structure is used; each call passes the weights."""
    recipe: RecipeConfig
    bfloat16: bool = False
    """Whether layers compute in bfloat16. Weights, gradients and losses stay float32."""
    adam: Callable[..., None] | None = None
    """`fused_adam`, the default, or `written_adam`."""
    compiled_gradients: Callable[..., Gradients] | None = None
    """A compiled `gradients`, if the whole step cannot be compiled."""
    shared: Callable[[Gradients], Gradients] | None = None
    """Averages gradients over the processes that train together."""

    def __call__(
        self, tensors: StepTensors, real: Tensor, z: Tensor, labels: Tensor | None, numbers: Tensor
    ) -> Tensor:
        """Take the step; the losses, (4,), in the order of `StepMetrics`.

        numbers: (6,), the numbers of this step in the order of `StepNumbers`. Other arguments: see
        `gradients`.
        """
        now = StepNumbers(*numbers.unbind())
        gradients = self.compiled_gradients or self.gradients
        found = gradients(tensors, real, z, labels, now.gamma)
        if self.shared is not None:
            found = self.shared(found)
        parameters = [
            [weights[name] for name, _ in network.named_parameters()]
            for network, weights in zip(self.networks, tensors[:2], strict=True)
        ]
        (self.adam or fused_adam)(
            parameters[0] + parameters[1],
            found.generator + found.discriminator,
            tensors.exp_avg,
            tensors.exp_avg_sq,
            now,
            self.recipe.betas,
        )
        for average, weight in zip(tensors.average, parameters[0], strict=True):
            average.lerp_(weight, now.ema_share.to(weight.dtype))
        return found.losses

    def gradients(
        self,
        tensors: StepTensors,
        real: Tensor,
        z: Tensor,
        labels: Tensor | None,
        gamma: Tensor,
    ) -> Gradients:
        """The gradients of both networks; G's use D before its update.

        real: (B, C, H, W) in [-1, 1].  z: (B, latent_dim) ~ N(0, I), with the recipe's `augment`
        (B, latent_dim + 6).  labels: int64 (B,), the labels of the real images, for conditional
        networks; generated images get the same labels.
        gamma: weight of R1 and R2.  BatchNorm statistics among `tensors` are updated.
        """
        return adversarial_gradients(
            self.networks,
            LOSSES[self.recipe.recipe],
            tensors[:2],
            real,
            z,
            gamma.to(real.dtype) if self.recipe.penalised else None,
            labels,
            bfloat16=self.bfloat16,
            augment=self.recipe.augment,
        )


def weights_of(network: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers by name, detached; they share the network's memory."""
    return {name: tensor.detach() for name, tensor in network.state_dict().items()}


def adversarial_gradients(
    networks: tuple[nn.Module, nn.Module],
    loss: AdversarialLoss,
    weights: tuple[dict[str, Tensor], dict[str, Tensor]],
    real: Tensor,
    z: Tensor,
    gamma: Tensor | None,
    labels: Tensor | None,
    *,
    bfloat16: bool,
    augment: bool = False,
) -> Gradients:
    """See `Step.gradients`.  gamma: None for no penalties."""
    if augment:
        z, of_real, of_fake = z.split([z.shape[1] - 2 * COLUMNS, COLUMNS, COLUMNS], dim=1)
        real = augmented(real, of_real)
    g, d = (
        {name: weights[i][name].detach().requires_grad_() for name, _ in network.named_parameters()}
        for i, network in enumerate(networks)
    )
    # D is updated last, so one forward pass of D serves both updates. D has no BatchNorm, so the
    # logit of an image depends on that image alone: one backward pass gives dD(x)/dx of each image.
    # The gradient of G continues from it at the generated images, and the penalties are made of it.
    with torch.autocast(real.device.type, torch.bfloat16, enabled=bfloat16):
        fake: Tensor = functional_call(networks[0], weights[0] | g, (z, labels))
        if augment:
            fake = augmented(fake.to(real), of_fake)
        images = torch.cat([real, fake.detach().to(real)]).requires_grad_()
        both = None if labels is None else torch.cat([labels, labels])
        logits: Tensor = functional_call(networks[1], weights[1] | d, (images, both))
    slopes = image_gradients(images, logits, create_graph=gamma is not None)
    real_logits, fake_logits = logits.to(real).chunk(2)

    leaf = fake_logits.detach().requires_grad_()
    loss_g = loss.generator(real_logits.detach(), leaf)
    (per_logit,) = torch.autograd.grad(loss_g, leaf)  # (B,)
    onward = slopes.detach()[len(real) :] * per_logit.view(-1, 1, 1, 1)
    gradients_g = torch.autograd.grad(fake, tuple(g.values()), onward.to(fake))

    loss_d = loss.discriminator(real_logits, fake_logits)
    penalty = 0.0 if gamma is None else gamma * gradient_penalty(slopes)
    gradients_d = torch.autograd.grad(loss_d + penalty, tuple(d.values()))
    probabilities = logits.detach().to(real).sigmoid().view(2, -1).mean(1)
    losses = torch.cat([torch.stack([loss_g.detach(), loss_d.detach()]), probabilities])
    return Gradients(gradients_g, gradients_d, losses)


def image_gradients(images: Tensor, logits: Tensor, *, create_graph: bool) -> Tensor:
    """dD(x)/dx of each image x, (B, C, H, W).

    logits: (B,), each of its image alone. create_graph: whether the result is differentiated again.
    """
    (gradients,) = torch.autograd.grad(
        logits.sum(), images, retain_graph=True, create_graph=create_graph
    )
    return gradients


def gradient_penalty(slopes: Tensor) -> Tensor:
    """Half of R1 + R2, the mean of |dD(x)/dx|^2 over real and over generated images.

    slopes: dD(x)/dx, (2B, C, H, W), of equal numbers of real and generated images.
    Mescheder et al. 2018, arXiv 1801.04406, equations 9 and 10.
    """
    return slopes.square().sum() / len(slopes)  # half of two means over B is one mean over 2B
