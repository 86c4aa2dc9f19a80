"""Adversarial losses on logits: one function a loss, each naming its source."""

from torch import Tensor
from torch.nn.functional import softplus


def generator_loss(fake_logits: Tensor) -> Tensor:
    """Non-saturating -E[log D(G(z))]. Goodfellow et al. 2014, section 3."""
    return softplus(-fake_logits).mean()


def discriminator_loss(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """Half of -E[log D(x)] - E[log(1 - D(G(z)))]. Goodfellow et al. 2014, equation 1."""
    return (softplus(-real_logits).mean() + softplus(fake_logits).mean()) / 2
