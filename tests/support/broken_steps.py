"""Steps with one error each. A trial of an engine must find each of them."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from training.config import StepNumbers
from training.engine.engine import Engine
from training.gan.adam import fused_adam
from training.gan.step import Step, StepTensors

Call = Callable[[StepTensors, Tensor, Tensor, Tensor | None, Tensor], Tensor]
Inputs = tuple[Tensor, Tensor, Tensor | None, Tensor]


def of_inputs(change: Callable[..., Inputs]) -> Callable[[Step], Call]:
    """A step that gets other images, noise, labels or numbers."""
    return lambda step: lambda tensors, *inputs: step(tensors, *change(*inputs))


def of_numbers(**changes: Callable[[StepNumbers[Tensor]], Tensor]) -> Callable[[Step], Call]:
    """A step with other numbers from the schedule."""

    def change(real: Tensor, z: Tensor, labels: Tensor | None, numbers: Tensor) -> Inputs:
        now = StepNumbers(*numbers.unbind())
        changed = now._replace(**{name: value(now) for name, value in changes.items()})
        return real, z, labels, torch.stack([*changed])

    return of_inputs(change)


def put_back(chosen: Callable[[StepTensors], list[Tensor]]) -> Callable[[Step], Call]:
    """A step that leaves some tensors unchanged."""

    def broken(step: Step) -> Call:
        def call(tensors: StepTensors, *inputs: Any) -> Tensor:
            kept = [tensor.clone() for tensor in chosen(tensors)]
            losses = step(tensors, *inputs)
            for tensor, old in zip(chosen(tensors), kept, strict=True):
                tensor.copy_(old)
            return losses

        return call

    return broken


def of_gradients(of_g: float, of_d: float) -> Callable[[Step], Call]:
    """A step whose gradients are scaled."""

    def broken(step: Step) -> Call:
        adam = step.adam or fused_adam

        def scaled(weights: Any, gradients: Any, *others: Any) -> None:
            count = len(list(step.networks[0].parameters()))
            values = (g * (of_g if i < count else of_d) for i, g in enumerate(gradients))
            adam(weights, tuple(values), *others)

        return replace(step, adam=scaled)

    return broken


def average_again(step: Step) -> Call:
    def call(tensors: StepTensors, *inputs: Any) -> Tensor:
        losses = step(tensors, *inputs)
        share = StepNumbers(*inputs[-1].unbind()).ema_share
        for average, weight in zip(tensors.average, parameters(step, tensors), strict=True):
            average.lerp_(weight, share.to(weight.dtype))
        return losses

    return call


def average_of_old_weights(step: Step) -> Call:
    def call(tensors: StepTensors, *inputs: Any) -> Tensor:
        share = StepNumbers(*inputs[-1].unbind()).ema_share
        averages = [
            average.lerp(weight, share.to(weight.dtype))
            for average, weight in zip(tensors.average, parameters(step, tensors), strict=True)
        ]
        losses = step(tensors, *inputs)
        for average, value in zip(tensors.average, averages, strict=True):
            average.copy_(value)
        return losses

    return call


def parameters(step: Step, tensors: StepTensors) -> list[Tensor]:
    return [tensors.generator[name] for name, _ in step.networks[0].named_parameters()]


def named(*parts: str) -> Callable[[StepTensors], list[Tensor]]:
    return lambda tensors: [
        tensor
        for weights in tensors[:2]
        for name, tensor in weights.items()
        if any(part in name for part in parts)
    ]


STEPS: dict[str, Callable[[Step], Call]] = {
    "the average does not move": put_back(lambda tensors: tensors.average),
    "the average moves twice": average_again,
    "the average follows the weights before the step": average_of_old_weights,
    "the average has a constant share": of_numbers(
        ema_share=lambda now: torch.full_like(now.lr, 0.05)
    ),
    "gamma never changes": of_numbers(gamma=lambda now: torch.ones_like(now.gamma)),
    "gamma is halved": of_numbers(gamma=lambda now: now.gamma / 2),
    "the learning rate never changes": of_numbers(
        lr=lambda now: torch.full_like(now.lr, 2e-4),
        step_size=lambda now: torch.full_like(now.lr, 2e-4),
    ),
    "the generator's gradient is doubled": of_gradients(2.0, 1.0),
    "the discriminator's gradient is a tenth less": of_gradients(1.0, 0.9),
    "noise is used twice": of_inputs(
        lambda real, z, labels, numbers: (
            real,
            torch.cat([z[: len(z) // 2], z[: len(z) // 2]]),
            labels,
            numbers,
        )
    ),
    "images are not normalised": of_inputs(lambda real, *others: ((real + 1) / 2, *others)),
    "labels are shifted": of_inputs(
        lambda real, z, labels, numbers: (real, z, labels.roll(1), numbers)
    ),
    "BatchNorm statistics are frozen": put_back(named("running_")),
    "BatchNorm batches are not counted": put_back(named("num_batches_tracked")),
    "one bias is left out": put_back(named("layers.1.bias")),
    "Adam's first moments are not kept": put_back(lambda tensors: tensors.exp_avg),
    "Adam's second moments are not kept": put_back(lambda tensors: tensors.exp_avg_sq),
    "bias correction is one step late": of_numbers(
        updates=lambda now: now.updates + 1,
        root=lambda now: (1 - (1 - now.root**2) * 0.99).sqrt(),
    ),
    "the second moments fade too slowly": lambda step: replace(
        step, recipe=replace(step.recipe, betas=(step.recipe.betas[0], 0.999))
    ),
}
"""Errors by name, with functions that give a step this error."""


def losses_of_another_step(engine: Engine) -> None:
    run = engine.run
    engine.run = lambda count: np.roll(run(count), 1, axis=0)  # type: ignore[method-assign]


def images_of_another_step(engine: Engine) -> None:
    rows = engine.rows
    engine.rows = lambda count: (rows(count)[0].roll(1), rows(count)[1])  # type: ignore[method-assign]


def noise_that_does_not_go_on(engine: Engine) -> None:
    launch = engine.launch

    def again(count: int) -> Any:
        before = engine.state.noise.get_state()
        done = launch(count)
        engine.state.noise.set_state(before)
        return done

    engine.launch = again  # type: ignore[method-assign]


def step_that_is_not_counted(engine: Engine) -> None:
    launch = engine.launch

    def uncounted(count: int) -> Any:
        done = launch(count)
        engine.state.step -= 1
        return done

    engine.launch = uncounted  # type: ignore[method-assign]


ENGINES: dict[str, Callable[[Engine], None]] = {
    "losses are those of another step": losses_of_another_step,
    "images are in another order": images_of_another_step,
    "noise does not go on": noise_that_does_not_go_on,
    "a step is not counted": step_that_is_not_counted,
}
"""Errors around the step by name, with functions that give an engine this error."""

ALL = [*STEPS, *ENGINES]


def break_engine(engine: Engine, how: str) -> None:
    """Give an engine an error before it is ready."""
    with suppress(KeyError):
        engine.step = STEPS[how](engine.step)  # type: ignore[assignment]
        return
    ENGINES[how](engine)
