"""What the discriminator sees with --augment."""

import pytest
import torch

from tests.support.runs import AUGMENTED, TINY
from tests.support.textbook_steps import moved
from training.config import RecipeConfig
from training.gan.augmentation import augmented
from training.gan.state import TrainState


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32), (3, 9, 9), (1, 2, 2)])
def test_images_are_shifted_and_mirrored(shape: tuple[int, int, int]) -> None:
    torch.manual_seed(0)
    images, noise = torch.rand(200, *shape), 2 * torch.randn(200, 3)
    assert torch.equal(augmented(images, noise), moved(images, noise))


def test_images_without_noise_stay_as_they_are() -> None:
    images = torch.rand(4, 3, 16, 16)
    assert torch.equal(augmented(images, torch.zeros(4, 3)), images)


def test_the_right_way_round_stays_the_most_frequent() -> None:
    """Otherwise the generator could not know which way round the real images are."""
    torch.manual_seed(0)
    image = torch.arange(28.0).repeat(28, 1).expand(20_000, 1, 28, 28)
    seen = augmented(image, torch.randn(20_000, 3))
    mirrored = seen[:, 0, 0, 0] > seen[:, 0, 0, -1]
    assert 0.29 < mirrored.float().mean() < 0.33
    middle = seen[~mirrored, 0, 14, 14] - 14
    assert middle.abs().max() <= 7
    values, counts = middle.unique(return_counts=True)
    assert values[counts.argmax()] == 0
    assert abs(middle.std() - 28 / 16) < 0.1


def test_only_a_run_that_augments_draws_more_noise() -> None:
    def noise_of(recipe: RecipeConfig) -> torch.Tensor:
        device = torch.device("cpu")
        return TrainState.create(TINY.network, recipe, (1, 8, 8), device, 0).next_noise(3)

    assert noise_of(TINY.recipe).shape == (3, 10)
    assert noise_of(AUGMENTED.recipe).shape == (3, 16)
