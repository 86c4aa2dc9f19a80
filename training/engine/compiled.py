"""A whole training step as one compiled function of tensors: gradients, Adam and the average."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

from training.config import RecipeConfig
from training.data.batches import Batches
from training.gan.average import ema_share
from training.gan.state import TrainState
from training.gan.step import Gradients


class CompiledStep:
    """A step on the CPU that reads and writes each weight once.

    Each gradient goes into Adam's moments, the weight and its average as soon as it is there, while
    one operation after the other would fetch all of them from memory for each.
    """

    def __init__(
        self,
        batches: Batches,
        state: TrainState,
        recipe: RecipeConfig,
        gradients: Callable[..., Gradients],
        weights: tuple[dict[str, Tensor], dict[str, Tensor]],
    ) -> None:
        """Compiles. state: of which Adam has taken a step, for it to have its moments."""
        self._state = state
        self._recipe = recipe
        self._gradients = gradients
        self._weights = weights
        (self._adam,) = state.optimizer.param_groups
        self._moments = [state.optimizer.state[parameter] for parameter in self._adam["params"]]
        self._names = [
            (i, name)
            for i, network in enumerate((state.generator, state.discriminator))
            for name, _ in network.named_parameters()
        ]
        z = torch.zeros(recipe.batch_size, state.generator.latent_dim)
        example = batches[0], z, batches.labels_at(0)
        self._compiled = compiled(self._step, self._inputs(*example))
        self(*example)  # this is when it is compiled

    def __call__(self, real: Tensor, z: Tensor, labels: Tensor | None) -> Tensor:
        """The next step, of `real`, `z` and labels if there are; its losses, (4,)."""
        losses: Tensor = self._compiled(*self._inputs(real, z, labels))
        self._state.step += 1
        return losses

    def settle(self) -> None:
        """Tell Adam how many steps there have been: after any number of them."""
        for moments in self._moments:
            moments["step"].fill_(self._state.step)

    def _inputs(self, real: Tensor, z: Tensor, labels: Tensor | None) -> tuple[Any, ...]:
        recipe, step = self._recipe, self._state.step
        images, (beta1, beta2) = step * recipe.batch_size, self._adam["betas"]
        numbers = torch.tensor(
            [
                recipe.lr_at(images) / (1 - beta1 ** (step + 1)),
                (1 - beta2 ** (step + 1)) ** 0.5,
                recipe.gamma_at(images),
                ema_share(step + 1, recipe.batch_size, recipe.ema_half_life),
            ]
        )
        first = [moments["exp_avg"] for moments in self._moments]
        second = [moments["exp_avg_sq"] for moments in self._moments]
        averages = list(self._state.ema.parameters())
        return self._weights, real, z, labels, numbers, first, second, averages

    def _step(
        self,
        weights: tuple[dict[str, Tensor], dict[str, Tensor]],
        real: Tensor,
        z: Tensor,
        labels: Tensor | None,
        numbers: Tensor,
        first: list[Tensor],
        second: list[Tensor],
        averages: list[Tensor],
    ) -> Tensor:
        """As `adversarial_gradients`, `Adam.step` and `update_ema` one after the other.

        numbers: learning rate over the correction of the first moments, the root of that of the
        second, gamma, share of the average. Kingma and Ba 2015, arXiv 1412.6980, algorithm 1.
        """
        rate, correction, gamma, share = numbers.unbind()
        weight = gamma if self._recipe.penalised else 0.0
        found = self._gradients(weights, real, z, weight, labels)
        beta1, beta2 = self._adam["betas"]
        values = found.generator + found.discriminator
        for i, ((network, name), gradient) in enumerate(zip(self._names, values, strict=True)):
            weight = weights[network][name]
            m = torch.lerp(first[i], gradient, 1 - beta1)
            v = second[i] * beta2 + gradient.square() * (1 - beta2)
            moved = weight - rate * m / (v.sqrt() / correction + self._adam["eps"])
            first[i].copy_(m)
            second[i].copy_(v)
            weight.copy_(moved)
            if network == 0:
                averages[i].copy_(averages[i] + share * (moved - averages[i]))
        return found.losses


def compiled(function: Callable[..., Any], example: tuple[Any, ...]) -> Callable[..., Any]:
    """`function` as one compiled function of tensors.

    Traced first, down to the operations of both passes: `torch.compile` alone cannot differentiate
    twice, as penalties need.
    """
    traced = make_fx(partial(function))(*example)  # as a partial: it miscounts methods' arguments
    return torch.compile(traced, dynamic=False, fullgraph=True)
