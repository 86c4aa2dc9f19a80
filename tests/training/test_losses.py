"""Compare the losses with their formulas, and the gradient penalty with one image at a time."""

import pytest
import torch
from torch.nn import functional as F

from training.gan.losses import (
    LOSSES,
    bce_discriminator_loss,
    bce_generator_loss,
    hinge_discriminator_loss,
    hinge_generator_loss,
    paired_discriminator_loss,
    paired_generator_loss,
)
from training.gan.networks import Discriminator
from training.gan.step import gradient_penalty, image_gradients

REAL, FAKE = torch.randn(2, 50, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
ONES, ZEROS = torch.ones_like(REAL), torch.zeros_like(REAL)


def test_bce_is_binary_cross_entropy_on_probabilities() -> None:
    expected = F.binary_cross_entropy(FAKE.sigmoid(), ONES)
    torch.testing.assert_close(bce_generator_loss(REAL, FAKE), expected)
    expected = F.binary_cross_entropy(REAL.sigmoid(), ONES)
    expected += F.binary_cross_entropy(FAKE.sigmoid(), ZEROS)
    torch.testing.assert_close(bce_discriminator_loss(REAL, FAKE), expected / 2)


def test_pairs_are_told_apart_by_their_difference() -> None:
    expected = -(FAKE - REAL).sigmoid().log().mean()
    torch.testing.assert_close(paired_generator_loss(REAL, FAKE), expected)
    expected = -(REAL - FAKE).sigmoid().log().mean()
    torch.testing.assert_close(paired_discriminator_loss(REAL, FAKE), expected)


def test_hinge_is_flat_beyond_its_margin() -> None:
    torch.testing.assert_close(hinge_generator_loss(REAL, FAKE), -FAKE.mean())
    expected = (1 - REAL).clamp(min=0).mean() + (1 + FAKE).clamp(min=0).mean()
    torch.testing.assert_close(hinge_discriminator_loss(REAL, FAKE), expected / 2)
    assert hinge_discriminator_loss(torch.tensor([1.5]), torch.tensor([-1.5])).item() == 0


@pytest.mark.parametrize("name", ["bce", "r3gan"])
def test_losses_do_not_overflow(name: str) -> None:
    """For large logits, sigmoid and log would give infinity."""
    loss, far = LOSSES[name], torch.tensor([-1000.0], requires_grad=True)
    value = loss.generator(torch.zeros(1), far)
    assert value.item() == 1000
    value.backward()
    assert far.grad is not None
    assert far.grad.item() == -1
    assert loss.discriminator(torch.full((1,), -1000.0), torch.full((1,), 1000.0)).isfinite()


@pytest.mark.parametrize("kind", ["mlp", "differences"])
def test_the_penalty_is_that_of_each_image_alone(kind: str) -> None:
    discriminator = Discriminator((16, 8), (1, 4, 4), network=kind).double()
    real, fake = torch.randn(2, 5, 1, 4, 4, dtype=torch.float64)

    def mean_square(images: torch.Tensor) -> torch.Tensor:
        squares = []
        for image in images:
            x = image.unsqueeze(0).requires_grad_()
            (gradient,) = torch.autograd.grad(discriminator(x).sum(), x)
            squares.append(gradient.square().sum())
        return torch.stack(squares).mean()

    images = torch.cat([real, fake]).requires_grad_()
    slopes = image_gradients(images, discriminator(images), create_graph=True)
    penalty = gradient_penalty(slopes)
    torch.testing.assert_close(penalty.detach(), (mean_square(real) + mean_square(fake)) / 2)
    penalty.backward()  # the penalty must train the discriminator
    first = next(discriminator.parameters())
    assert first.grad is not None
    assert first.grad.abs().max() > 0
