"""The steps of a run written simply: PyTorch's Adam, and a pass of D for each loss."""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from training.config import StepNumbers, TrainConfig
from training.data.batches import Batches
from training.gan.networks import Discriminator
from training.gan.state import TrainState


class TextbookSteps:
    """Takes steps on a state. It shares only the networks with `Step`."""

    def __init__(self, state: TrainState, batches: Batches, config: TrainConfig) -> None:
        self.schedule: Callable[[int], StepNumbers[float]] = config.recipe.at
        self._state = state
        self._batches = batches
        self._recipe = config.recipe

    def run(self, count: int) -> NDArray[np.float32]:
        """Take `count` steps; their losses, (count, 4)."""
        return torch.stack([self._step() for _ in range(count)]).float().numpy()

    def _step(self) -> Tensor:
        state, recipe = self._state, self._recipe.recipe
        now = self.schedule(state.step)
        generator, discriminator = state.generator, state.discriminator
        dtype = next(generator.parameters()).dtype
        real, labels = self._batches[state.step].to(dtype), self._batches.labels_at(state.step)
        z = state.next_noise(len(real)).to(dtype)
        adam = torch.optim.Adam(
            [*generator.parameters(), *discriminator.parameters()],
            lr=now.lr,
            betas=(float(self._recipe.betas[0]), self._recipe.betas[1]),
            fused=False,
            foreach=False,
        )
        (group,) = adam.param_groups
        for parameter, first, second in zip(group["params"], *state.moments, strict=True):
            counted = torch.tensor(float(now.updates - 1))
            adam.state[parameter] = {"step": counted, "exp_avg": first, "exp_avg_sq": second}
        width = generator.latent_dim
        shifts = z[:, width : width + 3], z[:, width + 3 :]
        fake = generator(z[:, :width], labels)
        if self._recipe.augment:
            real, fake = (moved(*both) for both in zip((real, fake), shifts, strict=True))
        real_logits, fake_logits = discriminator(real, labels), discriminator(fake, labels)
        loss_g = textbook_loss_g(recipe, real_logits.detach(), fake_logits)
        gradients_g = torch.autograd.grad(loss_g, list(generator.parameters()))
        fake = fake.detach()
        real_logits, fake_logits = discriminator(real, labels), discriminator(fake, labels)
        loss_d = textbook_loss_d(recipe, real_logits, fake_logits)
        penalties = [squared_slope(discriminator, images, labels) for images in (real, fake)]
        total = loss_d + now.gamma / 2 * sum(penalties) if self._recipe.penalised else loss_d
        gradients_d = torch.autograd.grad(total, list(discriminator.parameters()))
        for parameter, gradient in zip(group["params"], gradients_g + gradients_d, strict=True):
            parameter.grad = gradient
        adam.step()
        with torch.no_grad():
            for average, weight in zip(state.ema.parameters(), generator.parameters(), strict=True):
                average.add_(now.ema_share * (weight - average))
        state.step += 1
        probabilities = real_logits.sigmoid().mean(), fake_logits.sigmoid().mean()
        return torch.stack([loss_g, loss_d, *probabilities]).detach()


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


def moved(images: Tensor, noise: Tensor) -> Tensor:
    """Each image by itself: turned over, padded with copies of its border, and cut out."""
    height, width = images.shape[2:]
    results = []
    for image, (down, right, side) in zip(images, noise.tolist(), strict=True):
        y = max(-(height // 4), min(height // 4, round(down * height / 16)))
        x = max(-(width // 4), min(width // 4, round(right * width / 16)))
        turned = image if side <= 0.5 else image.flip(2)
        padded = F.pad(turned[None], (width, width, height, height), mode="replicate")[0]
        results.append(padded[:, height - y : 2 * height - y, width - x : 2 * width - x])
    return torch.stack(results)


def squared_slope(discriminator: Discriminator, images: Tensor, labels: Tensor | None) -> Tensor:
    images = images.clone().requires_grad_()
    logits = discriminator(images, labels)
    (slopes,) = torch.autograd.grad(logits.sum(), images, create_graph=True)
    mean: Tensor = slopes.flatten(1).norm(dim=1).square().mean()
    return mean
