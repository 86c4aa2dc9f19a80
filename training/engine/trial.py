"""Compare two ways to run steps, tensor by tensor."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from training.config import RecipeConfig, StepNumbers
from training.gan.state import Moments, Snapshot, TrainState
from training.gan.step import StepMetrics


class Tolerance(NamedTuple):
    """The largest difference between two tensors that counts as rounding."""

    share: float
    """As a share of the tensor's own change."""
    floor: float
    """As a share of the change of similar tensors, since some gradients are only rounding noise."""
    pace: float
    """Factor of the learning rates. With shorter steps, rounding grows less from step to step."""


FLOAT32 = Tolerance(0.02, 0.001, pace=1.0)
BFLOAT16 = Tolerance(0.15, 0.05, pace=0.25)

_FIRST_STEPS = 2


class TakesSteps(Protocol):
    """Anything that takes steps on a state."""

    schedule: Callable[[int], StepNumbers[float]]

    def run(self, count: int) -> NDArray[np.float32]:
        """Take `count` steps; return their losses, (count, 4)."""


def difference(
    expected: TakesSteps,
    tried: TakesSteps,
    state: TrainState,
    recipe: RecipeConfig,
    counts: tuple[int, ...],
    tolerance: Tolerance,
) -> str | None:
    """Describe how two ways to take steps on `state` differ; None if they agree.

    counts: numbers of steps to take; everything is compared after each. The numbers of the schedule
    change strongly from step to step. Adam starts from equal second moments for all weights,
    because otherwise its first steps have full length even where a gradient is only rounding noise.
    The state is changed.
    """
    usual = expected.schedule, tried.schedule
    expected.schedule = tried.schedule = _schedule(recipe, tolerance.pace)
    losses: tuple[list[Any], list[Any]] = [], []
    try:
        _prepare(expected, state)
        for count in counts:
            start = state.snapshot()
            losses[0].append(expected.run(count))
            wanted = state.snapshot()
            state.restore(start)
            losses[1].append(tried.run(count))
            if reason := _states_differ(start, wanted, state, tolerance):
                return f"after {count} steps {reason}"
    finally:
        expected.schedule, tried.schedule = usual
    return _losses_differ(np.concatenate(losses[0]), np.concatenate(losses[1]), tolerance)


def _schedule(recipe: RecipeConfig, pace: float) -> Callable[[int], StepNumbers[float]]:
    """Numbers that differ strongly from step to step, without a period that a graph could have."""

    def at(step: int) -> StepNumbers[float]:
        a, b, c = (step * ratio % 1.0 for ratio in (0.6180, 0.7549, 0.5698))
        return recipe.numbers(
            lr=pace * recipe.lr * (0.25 + 2 * a),
            gamma=max(recipe.gamma, recipe.gamma_end) * (0.25 + 4 * b),
            ema_share=0.02 + 0.1 * c,
            updates=step + 1,
        )

    return at


def _prepare(expected: TakesSteps, state: TrainState) -> None:
    """Prepare a state for a sensitive trial: an average unlike the weights, and equal moments."""
    state.step = 0
    for moment in (*state.moments.exp_avg, *state.moments.exp_avg_sq):
        moment.zero_()
    expected.run(_FIRST_STEPS)
    squares, count = state.moments.exp_avg_sq, len(list(state.generator.parameters()))
    for of_network in (squares[:count], squares[count:]):
        mean = torch.cat([square.flatten() for square in of_network]).mean()
        for square in of_network:
            square.copy_(mean.expand_as(square))


def _states_differ(
    start: Snapshot, expected: Snapshot, found: TrainState, tolerance: Tolerance
) -> str | None:
    if found.step != expected.step:
        return f"the step is {found.step}, expected {expected.step}"
    if not torch.equal(found.noise.get_state(), expected.noise):
        return "the noise is not where it should be"
    tensors = found.tensors()
    moved = {
        name: _distance(tensor, start.tensors[name]) for name, tensor in expected.tensors.items()
    }
    usual = _usual_movements(moved, expected.tensors)
    for name, tensor in expected.tensors.items():
        off = _distance(tensors[name], tensor)
        rounding = tolerance.floor * usual[_kind(name)] * tensor.numel() ** 0.5
        if not off <= tolerance.share * moved[name] + rounding:  # NaN does not agree either
            return f"{name} has moved by {moved[name]:.2g} and is {off:.2g} elsewhere"
    return None


def _usual_movements(
    moved: Mapping[str, float], tensors: Mapping[str, Tensor]
) -> dict[tuple[str, str], float]:
    """For each kind of tensor, the largest root mean square change of its elements."""
    usual: dict[tuple[str, str], float] = {}
    for name, distance in moved.items():
        each = distance / tensors[name].numel() ** 0.5
        usual[_kind(name)] = max(usual.get(_kind(name), 0.0), each)
    return usual


def _kind(name: str) -> tuple[str, str]:
    """The kind of a tensor: weights, moments or statistics, whose values have similar sizes."""
    last = name.rpartition(".")[2]
    return name.partition(".")[0], last if last in Moments._fields or "_" in last else ""


def _distance(a: Tensor, b: Tensor) -> float:
    return float((a.double() - b.double()).norm())


def _losses_differ(
    expected: NDArray[np.float32], found: NDArray[np.float32], tolerance: Tolerance
) -> str | None:
    """Compare losses relative to their variation from step to step, so that mix-ups are noticed."""
    for i, name in enumerate(StepMetrics._fields):
        a, b = expected[:, i].astype(np.float64), found[:, i].astype(np.float64)
        off, variation = np.sqrt(np.mean((a - b) ** 2)), np.std(a)
        if not off <= tolerance.share * variation + 1e-6 * np.abs(a).mean():
            return f"{name} is {off:.2g} off where steps differ by {variation:.2g}"
    return None
