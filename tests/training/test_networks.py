"""The networks, their losses, and one step."""

from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.support.engines import take_steps
from tests.support.runs import TINY
from training.config import RECIPES, NetworkConfig, TrainConfig
from training.data.datasets import load_images
from training.gan.average import averaged
from training.gan.networks import Discriminator, Generator, to_pixels
from training.gan.state import TrainState
from training.scoring.extractor import train_classifier

CPU = torch.device("cpu")


def tiny_state(seed: int = 0, classes: tuple[str, ...] = ()) -> TrainState:
    network = replace(TINY.network, conditional=len(classes) > 0)
    return TrainState.create(network, TINY.recipe, (1, 8, 8), CPU, seed, classes)


def real_batch(count: int = 16) -> Tensor:
    return torch.rand(count, 1, 8, 8, generator=torch.Generator().manual_seed(1)) * 2 - 1


def test_the_generator_is_that_of_the_exercise() -> None:
    network = NetworkConfig()
    layers = Generator(network.latent_dim, network.generator_dims, (1, 28, 28)).layers
    names = [type(layer).__name__ for layer in layers]
    hidden = ["Linear", "BatchNorm1d", "LeakyReLU"]
    assert names == ["Linear", "LeakyReLU", *hidden * 3, "Linear"]
    linear = [layer for layer in layers if isinstance(layer, nn.Linear)]
    assert [layer.in_features for layer in linear] == [100, 128, 256, 512, 1024]
    assert linear[-1].out_features == 784
    assert all(layer.eps == 1e-5 for layer in layers if isinstance(layer, nn.BatchNorm1d))
    assert all(layer.negative_slope == 0.2 for layer in layers if isinstance(layer, nn.LeakyReLU))


def test_the_discriminator_is_that_of_the_exercise() -> None:
    layers = Discriminator(NetworkConfig().discriminator_dims, (1, 28, 28)).layers
    names = [type(layer).__name__ for layer in layers]
    assert names == ["Flatten", "Linear", "LeakyReLU", "Linear", "LeakyReLU", "Linear"]
    widths = [layer.in_features for layer in layers if isinstance(layer, nn.Linear)]
    assert widths == [784, 512, 256]


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32), (1, 5, 7)])
def test_sizes_follow_from_the_configuration(shape: tuple[int, int, int]) -> None:
    generator = Generator(7, (16, 32), shape).eval()
    images = generator(torch.randn(4, 7))
    assert images.shape == (4, *shape)
    assert images.abs().max() <= 1
    discriminator = Discriminator((16,), shape)
    logits = discriminator(images)
    assert logits.shape == (4,)
    torch.testing.assert_close(discriminator.probability(images), logits.sigmoid())


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 5, 7), (1, 2, 3), (1, 1, 1)])
def test_differences_are_those_of_all_pixels_one_and_two_apart(shape: tuple[int, int, int]) -> None:
    network = NetworkConfig(differences=True)
    recipe = RECIPES["r3gan"]
    discriminator = TrainState.create(network, recipe, shape, CPU, 0).discriminator
    first, *layers = discriminator.layers
    images = torch.rand(2, *shape)
    _, height, width = shape
    for image, seen in zip(images, first(images), strict=True):
        expected = [*image.flatten()]
        for n in (1, 2):
            right, below = places(height, width - n), places(height - n, width)
            expected += [abs(c[i, j + n] - c[i, j]) for c in image for i, j in right]
            expected += [abs(c[i + n, j] - c[i, j]) for c in image for i, j in below]
        assert torch.equal(seen, torch.tensor(expected))
    assert discriminator(images).shape == (2,)
    plain = TrainState.create(NetworkConfig(), recipe, shape, CPU, 0).discriminator.layers[1:]
    assert str(layers[1:]) == str([*plain[1:]])  # only the first layer is wider


def places(height: int, width: int) -> list[tuple[int, int]]:
    return [(i, j) for i in range(height) for j in range(width)]


def test_pixels_are_the_nearest_levels() -> None:
    levels = torch.tensor([0, 0.4, 0.6, 1.4, 254.4, 254.6, 255, 300, -9])
    images = (levels / 127.5 - 1).view(1, 1, 3, 3)
    assert to_pixels(images).flatten().tolist() == [0, 0, 1, 1, 254, 255, 255, 255, 0]
    assert to_pixels(torch.zeros(1, 1, 1, 1)).item() == 128  # 127.5, the only tie, rounds to even
    assert to_pixels(torch.zeros(2, 3, 4, 5)).shape == (2, 4, 5, 3)


def test_a_label_makes_the_image_and_the_logit() -> None:
    generator = Generator(7, (16, 32), (1, 5, 7), ("a", "b", "c")).eval()
    discriminator = Discriminator((16,), (1, 5, 7), 3)
    first, last = generator.layers[0], discriminator.layers[-1]
    assert isinstance(first, nn.Linear)
    assert isinstance(last, nn.Linear)
    assert (first.in_features, last.out_features) == (7 + 3, 3)
    z, labels = torch.randn(4, 7), torch.tensor([2, 0, 1, 2])
    images = generator(z, labels)
    expected = generator.layers(torch.cat([z, F.one_hot(labels, 3)], 1)).tanh()
    assert torch.equal(images.flatten(1), expected)
    logits = discriminator.layers(images)
    assert torch.equal(discriminator(images, labels), logits.gather(1, labels[:, None])[:, 0])
    assert (
        len({tuple(generator(z[:1], torch.tensor([c]))[0, 0, 0].tolist()) for c in range(3)}) == 3
    )


def test_a_classifier_leaves_global_random_numbers_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    images = load_images(replace(TINY.data, image_size=28))
    few = replace(images, pixels=images.pixels[:20], labels=images.labels[:20])  # type: ignore[index]
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    monkeypatch.delattr(torch.cuda, "manual_seed_all")  # nobody may seed all GPUs
    one, two = (train_classifier(few, epochs=1, least_steps=2) for _ in range(2))
    torch.testing.assert_close(torch.rand(3), expected)
    for a, b in zip(one.parameters(), two.parameters(), strict=True):
        assert torch.equal(a, b)


def test_one_seed_gives_one_state_and_leaves_global_random_numbers_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    monkeypatch.delattr(torch.cuda, "manual_seed_all")  # nobody may seed all GPUs
    a, b, c = tiny_state(), tiny_state(), tiny_state(seed=1)
    torch.testing.assert_close(torch.rand(3), expected)
    for module in ("generator", "discriminator"):
        for x, y, z in zip(
            *(getattr(state, module).parameters() for state in (a, b, c)), strict=True
        ):
            assert torch.equal(x, y)
            # Except the ones and zeros that BatchNorm starts with.
            assert x.unique().numel() == 1 or not torch.equal(x, z)
    assert torch.equal(a.next_noise(4), b.next_noise(4))
    assert not torch.equal(a.next_noise(4), c.next_noise(4))


def test_betas_may_be_whole_numbers() -> None:
    state = tiny_state()
    take_steps(state, real_batch(), 1, replace(TINY.recipe, betas=(0, 0.99)))
    assert any(moment.any() for moment in state.moments.exp_avg_sq)


def test_without_a_half_life_the_average_is_the_generator() -> None:
    state = tiny_state()
    take_steps(state, real_batch(), 1, replace(TINY.recipe, ema_half_life=0))
    for a, b in zip(state.ema.parameters(), state.generator.parameters(), strict=True):
        assert torch.equal(a, b)


def test_the_averaged_generator_has_the_statistics_of_its_own_activations() -> None:
    state = tiny_state()
    take_steps(state, real_batch(), 20, TINY.recipe)
    before = deepcopy(state.ema.state_dict())
    generator = averaged(state.ema)
    assert not generator.training
    assert all(torch.equal(before[name], value) for name, value in state.ema.state_dict().items())
    seen: list[Tensor] = []
    (norm,) = [layer for layer in generator.layers if isinstance(layer, nn.BatchNorm1d)]
    norm.register_forward_hook(lambda module, inputs, output: seen.append(output))
    with torch.no_grad():
        generator(torch.randn(20_000, TINY.network.latent_dim))
    normalised = (seen[0] - norm.bias) / norm.weight
    assert normalised.mean(0).abs().max() < 0.1
    assert (normalised.std(0) - 1).abs().max() < 0.1


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_full_size_step_trains_both_networks(recipe: str) -> None:
    config = TrainConfig()
    state = TrainState.create(config.network, config.recipe, (1, 28, 28), CPU, 0)
    before = deepcopy(state.generator.state_dict()), deepcopy(state.discriminator.state_dict())
    losses = take_steps(state, torch.zeros(64, 1, 28, 28), 1, RECIPES[recipe])
    assert torch.isfinite(losses).all()
    for old, new in zip(before, (state.generator, state.discriminator), strict=True):
        moved = [not torch.equal(old[name], p) for name, p in new.named_parameters() if p.ndim > 1]
        assert all(moved)


@pytest.mark.gpu
@pytest.mark.parametrize("recipe", RECIPES)
def test_a_step_on_cuda_agrees_with_the_cpu(recipe: str) -> None:
    cuda = torch.device("cuda")
    states = [TrainState.create(TINY.network, TINY.recipe, (1, 8, 8), d, 0) for d in (CPU, cuda)]
    z = torch.randn(3, 16, TINY.network.latent_dim)
    expected, measured = (
        take_steps(state, real_batch(), 3, RECIPES[recipe], z).cpu() for state in states
    )
    torch.testing.assert_close(measured, expected, rtol=1e-4, atol=1e-5)
