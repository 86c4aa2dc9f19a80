"""The networks, their losses, and one step."""

from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.support.runs import TINY
from training.config import NetworkConfig, RecipeConfig, TrainConfig
from training.gan.average import averaged, ema_share, update_ema
from training.gan.losses import LOSSES
from training.gan.networks import Discriminator, Generator, to_pixels
from training.gan.state import TrainState
from training.gan.step import adversarial_step

CPU = torch.device("cpu")
BCE = LOSSES["bce"]


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


def test_pixels_are_the_nearest_levels() -> None:
    levels = torch.tensor([0, 0.4, 0.6, 1.4, 254.4, 254.6, 255, 300, -9])
    images = (levels / 127.5 - 1).view(1, 1, 3, 3)
    assert to_pixels(images).flatten().tolist() == [0, 0, 1, 1, 254, 255, 255, 255, 0]
    assert to_pixels(torch.zeros(1, 1, 1, 1)).item() == 128  # 127.5, the one tie, goes to even
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


@pytest.mark.parametrize("classes", [(), ("a", "b", "c")])
@pytest.mark.parametrize(("recipe", "gamma"), [("bce", 0.0), ("r3gan", 2.0), ("hinge", 0.5)])
def test_a_step_is_the_textbook_step(recipe: str, gamma: float, classes: tuple[str, ...]) -> None:
    """Against the same step written the long way: D passed anew for each loss, plain Adam.

    In float64: in float32 Adam would blow rounding up where gradients are zero but for it.
    """
    state, real = tiny_state(classes=classes), real_batch().double()
    labels = torch.arange(16) % 3 if classes else None
    state.generator.double()
    state.discriminator.double()
    generator, discriminator = deepcopy(state.generator), deepcopy(state.discriminator)
    adam = {"lr": TINY.recipe.lr, "betas": TINY.recipe.betas, "fused": False, "foreach": False}
    optimizer_g = torch.optim.Adam(generator.parameters(), **adam)  # type: ignore[arg-type]
    optimizer_d = torch.optim.Adam(discriminator.parameters(), **adam)  # type: ignore[arg-type]
    for _ in range(5):
        z = state.draw_z(16).double()
        losses = adversarial_step(state, real, z, LOSSES[recipe], gamma, labels)

        optimizer_g.zero_grad()
        fake = generator(z, labels)
        real_logits, fake_logits = discriminator(real, labels), discriminator(fake, labels)
        loss_g = textbook_loss_g(recipe, real_logits.detach(), fake_logits)
        loss_g.backward()
        optimizer_g.step()
        optimizer_d.zero_grad()
        fake = fake.detach()
        real_logits, fake_logits = discriminator(real, labels), discriminator(fake, labels)
        loss_d = textbook_loss_d(recipe, real_logits, fake_logits)
        penalties = [squared_slope(discriminator, images, labels) for images in (real, fake)]
        (loss_d + gamma / 2 * sum(penalties)).backward()
        optimizer_d.step()

        expected = [loss_g, loss_d, real_logits.sigmoid().mean(), fake_logits.sigmoid().mean()]
        torch.testing.assert_close(torch.stack(losses), torch.stack(expected))
    assert state.step == 5
    for ours, theirs in (
        (state.generator, generator),
        (state.discriminator, discriminator),
    ):
        for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
            torch.testing.assert_close(a, b)


def textbook_loss_g(recipe: str, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    if recipe == "hinge":
        return -fake_logits.mean()
    probability = (fake_logits - real_logits if recipe == "r3gan" else fake_logits).sigmoid()
    return F.binary_cross_entropy(probability, torch.ones_like(probability))


def textbook_loss_d(recipe: str, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    if recipe == "hinge":
        return (F.relu(1 - real_logits) + F.relu(1 + fake_logits)).mean() / 2
    ones, zeros = torch.ones_like(real_logits), torch.zeros_like(fake_logits)
    if recipe == "r3gan":
        return F.binary_cross_entropy((real_logits - fake_logits).sigmoid(), ones)
    on_real = F.binary_cross_entropy(real_logits.sigmoid(), ones)
    return (on_real + F.binary_cross_entropy(fake_logits.sigmoid(), zeros)) / 2


def squared_slope(discriminator: Discriminator, images: Tensor, labels: Tensor | None) -> Tensor:
    images = images.clone().requires_grad_()
    logits = discriminator(images, labels)
    (slopes,) = torch.autograd.grad(logits.sum(), images, create_graph=True)
    mean: Tensor = slopes.flatten(1).norm(dim=1).square().mean()
    return mean


def test_one_seed_gives_one_state_and_leaves_global_random_numbers_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    a, b, c = tiny_state(), tiny_state(), tiny_state(seed=1)
    torch.testing.assert_close(torch.rand(3), expected)
    for module in ("generator", "discriminator"):
        for x, y, z in zip(
            *(getattr(state, module).parameters() for state in (a, b, c)), strict=True
        ):
            assert torch.equal(x, y)
            # But for the ones and zeros that BatchNorm starts with.
            assert x.unique().numel() == 1 or not torch.equal(x, z)
    assert torch.equal(a.draw_z(4), b.draw_z(4))
    assert not torch.equal(a.draw_z(4), c.draw_z(4))


def test_betas_may_be_whole_numbers() -> None:
    recipe = RecipeConfig(betas=(0, 0.99))
    state = TrainState.create(TINY.network, recipe, (1, 8, 8), CPU, 0)
    adversarial_step(state, real_batch(), state.draw_z(16), BCE, gamma=0)
    assert state.step == 1


def test_the_average_has_its_half_life() -> None:
    state = tiny_state()
    for parameter in state.ema.parameters():
        parameter.fill_(1.0)
    with torch.no_grad():
        for parameter in state.generator.parameters():
            parameter.fill_(0.0)
    state.step = 10**6  # long past the ramp-up
    for _ in range(10):
        update_ema(state, ema_share(state.step, 100, half_life=1000))  # 1000 images
    for parameter in state.ema.parameters():
        torch.testing.assert_close(parameter, torch.full_like(parameter, 0.5))


def test_the_average_forgets_the_first_weights_quickly() -> None:
    state = tiny_state()
    for parameter in state.ema.parameters():
        parameter.fill_(1.0)
    with torch.no_grad():
        for parameter in state.generator.parameters():
            parameter.fill_(0.0)
    for step in range(1, 101):
        state.step = step
        update_ema(state, ema_share(step, 100, half_life=1e9))
    assert max(parameter.abs().max() for parameter in state.ema.parameters()) < 1e-6


def test_without_a_half_life_the_average_is_the_generator() -> None:
    state = tiny_state()
    adversarial_step(state, real_batch(), state.draw_z(16), BCE, gamma=0)
    update_ema(state, ema_share(1, 16, half_life=0))
    for a, b in zip(state.ema.parameters(), state.generator.parameters(), strict=True):
        assert torch.equal(a, b)


def test_the_averaged_generator_has_the_statistics_of_its_own_activations() -> None:
    state = tiny_state()
    for _ in range(20):
        adversarial_step(state, real_batch(), state.draw_z(16), BCE, gamma=0)
        update_ema(state, ema_share(state.step, 16, 100))
    before = deepcopy(state.ema.state_dict())
    generator = averaged(state)
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


@pytest.mark.parametrize(("recipe", "gamma"), [("bce", 0.0), ("r3gan", 2.0), ("hinge", 0.0)])
def test_a_full_size_step_trains_both_networks(recipe: str, gamma: float) -> None:
    config = TrainConfig()
    state = TrainState.create(config.network, config.recipe, (1, 28, 28), CPU, 0)
    before = deepcopy(state.generator.state_dict()), deepcopy(state.discriminator.state_dict())
    real = torch.zeros(64, 1, 28, 28)
    losses = adversarial_step(state, real, state.draw_z(64), LOSSES[recipe], gamma)
    assert torch.isfinite(torch.stack(losses)).all()
    for old, new in zip(before, (state.generator, state.discriminator), strict=True):
        moved = [not torch.equal(old[name], p) for name, p in new.named_parameters() if p.ndim > 1]
        assert all(moved)


@pytest.mark.gpu
@pytest.mark.parametrize(("recipe", "gamma"), [("bce", 0.0), ("r3gan", 2.0)])
def test_a_step_on_cuda_agrees_with_the_cpu(recipe: str, gamma: float) -> None:
    cpu = tiny_state()
    cuda = TrainState.create(TINY.network, TINY.recipe, (1, 8, 8), torch.device("cuda"), 0)
    z, real = torch.randn(16, TINY.network.latent_dim), real_batch()
    for _ in range(3):
        expected, measured = (
            torch.stack(
                adversarial_step(
                    state,
                    real.to(state.noise.device),
                    z.to(state.noise.device),
                    LOSSES[recipe],
                    gamma,
                )
            ).cpu()
            for state in (cpu, cuda)
        )
        torch.testing.assert_close(measured, expected, rtol=1e-4, atol=1e-5)
