"""Compare a step with a simply written one, and Adam with PyTorch's."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from tests.support.engines import take_steps, tiny
from tests.support.runs import AUGMENTED, CONDITIONAL, CONV, TINY
from tests.support.textbook_steps import TextbookSteps
from training.config import RECIPES, RecipeConfig, StepNumbers, TrainConfig
from training.data.batches import Batches
from training.gan.adam import fused_adam, written_adam
from training.gan.state import TrainState

ADAMS = [fused_adam, written_adam]


def in_float64(config: TrainConfig) -> tuple[TrainState, Batches]:
    state, batches, _ = tiny(config)
    for moments in state.moments:
        moments[:] = [moment.double() for moment in moments]
    for network in (state.generator, state.discriminator, state.ema):
        network.double()
    return state, batches


@pytest.mark.parametrize("adam", ADAMS)
@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("usual", [TINY, CONDITIONAL, AUGMENTED])
def test_a_step_is_the_textbook_step(
    usual: TrainConfig, recipe: str, adam: Callable[..., None]
) -> None:
    """In float64, because Adam in float32 magnifies rounding where gradients are nearly zero."""
    augment = usual.recipe.augment
    config = replace(usual, recipe=replace(RECIPES[recipe], batch_size=16, augment=augment))
    state, batches = in_float64(config)
    textbook_state, _ = in_float64(config)
    textbook = TextbookSteps(textbook_state, batches, config)
    for _ in range(5):
        real, labels = batches[state.step], batches.labels_at(state.step)
        losses = take_steps(state, real, 1, config.recipe, labels=labels, adam=adam)
        torch.testing.assert_close(losses.float(), torch.from_numpy(textbook.run(1)))
    for (name, ours), theirs in zip(
        state.tensors().items(), textbook_state.tensors().values(), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-7, atol=1e-10, msg=name)


@pytest.mark.parametrize("adam", ADAMS)
@pytest.mark.parametrize("betas", [(0, 0.99), (0.5, 0.999), (0.9, 0.99)])
def test_adam_is_that_of_pytorch(adam: Callable[..., None], betas: tuple[float, float]) -> None:
    torch.manual_seed(0)
    recipe = RecipeConfig(betas=betas, lr=0.01)
    weights = [torch.randn(shape, dtype=torch.float64) for shape in ((3, 4), (7,), (2, 1, 3, 3))]
    parameters = [torch.nn.Parameter(weight.clone()) for weight in weights]
    theirs = torch.optim.Adam(parameters, lr=0.01, betas=(float(betas[0]), betas[1]))
    first, second = ([torch.zeros_like(weight) for weight in weights] for _ in range(2))
    for step in range(20):
        gradients = tuple(torch.randn_like(weight) for weight in weights)
        now = StepNumbers(*torch.tensor(recipe.at(step), dtype=torch.float64).unbind())
        adam(weights, gradients, first, second, now, betas)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient
        theirs.step()
    for i, parameter in enumerate(parameters):
        moments = theirs.state[parameter]
        torch.testing.assert_close(weights[i], parameter.detach())
        torch.testing.assert_close(first[i], moments["exp_avg"])
        torch.testing.assert_close(second[i], moments["exp_avg_sq"])


@pytest.mark.parametrize("adam", ADAMS)
def test_adam_moves_each_weight_by_its_own_gradient(adam: Callable[..., None]) -> None:
    """Convolutions may give gradients in another memory order than the weights."""

    def moved(permuted: bool) -> list[Tensor]:
        torch.manual_seed(1)
        state, _, _ = tiny(CONV)
        weights = [
            p.detach() for n in (state.generator, state.discriminator) for p in n.parameters()
        ]
        values = [torch.randn_like(weight) for weight in weights]
        if permuted:
            values = [v.mT.contiguous().mT if v.ndim > 1 else v for v in values]
        now = StepNumbers(*torch.tensor(CONV.recipe.at(0), dtype=torch.float64).unbind())
        adam(weights, tuple(values), *state.moments, now, CONV.recipe.betas)
        return weights

    torch.testing.assert_close(moved(True), moved(False), rtol=0, atol=0)
