"""Adversarial losses on logits: one function for each loss, with its source."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor
from torch.nn.functional import relu, softplus


@dataclass(frozen=True)
class AdversarialLoss:
    """The losses that the generator and the discriminator minimise."""

    generator: Callable[[Tensor, Tensor], Tensor]
    """(real_logits, fake_logits) -> scalar; real_logits carry no gradient."""
    discriminator: Callable[[Tensor, Tensor], Tensor]
    """(real_logits, fake_logits) -> scalar."""


def bce_generator_loss(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """Non-saturating -E[log D(G(z))]. Goodfellow et al. 2014, section 3."""
    return softplus(-fake_logits).mean()


def bce_discriminator_loss(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """Half of -E[log D(x)] - E[log(1 - D(G(z)))]. Goodfellow et al. 2014, equation 1."""
    return (softplus(-real_logits).mean() + softplus(fake_logits).mean()) / 2


def paired_generator_loss(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """E[-log sigmoid(D(G(z)) - D(x))], relativistic pairing. Huang et al. 2024, equation 2."""
    return softplus(real_logits - fake_logits).mean()


def paired_discriminator_loss(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """E[-log sigmoid(D(x) - D(G(z)))], relativistic pairing. Huang et al. 2024, equation 2."""
    return softplus(fake_logits - real_logits).mean()


def hinge_generator_loss(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """-E[D(G(z))]. Lim and Ye 2017, arXiv 1705.02894."""
    return -fake_logits.mean()


def hinge_discriminator_loss(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """Half of E[max(0, 1 - D(x))] + E[max(0, 1 + D(G(z)))]. Lim and Ye 2017, arXiv 1705.02894."""
    return (relu(1 - real_logits).mean() + relu(1 + fake_logits).mean()) / 2


LOSSES = {
    "bce": AdversarialLoss(bce_generator_loss, bce_discriminator_loss),
    "r3gan": AdversarialLoss(paired_generator_loss, paired_discriminator_loss),
    "hinge": AdversarialLoss(hinge_generator_loss, hinge_discriminator_loss),
    "textbook": AdversarialLoss(bce_generator_loss, bce_discriminator_loss),
}
