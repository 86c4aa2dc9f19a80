"""The trial finds each error of a step or an engine."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from tests.support.broken_steps import ALL, break_engine
from tests.support.engines import CPU, R3GAN, tiny
from tests.support.runs import CONDITIONAL, CONV, TINY
from tests.support.textbook_steps import TextbookSteps
from training.config import RECIPES, NetworkConfig, TrainConfig
from training.engine.engine import Engine
from training.engine.trial import BFLOAT16, FLOAT32, TakesSteps, difference
from training.engine.ways import PLAIN, Way, ways

CUDA = torch.device("cuda")
SMALL = {name: replace(recipe, batch_size=32) for name, recipe in RECIPES.items()}
COMPILED = Way("compiled")
EXACT = replace(CONDITIONAL, matmul_precision="highest", recipe=SMALL["bce"])


def trial(
    config: TrainConfig,
    way: Way,
    device: torch.device = CPU,
    breaking: Callable[[Engine], None] = lambda engine: None,
    expected: Callable[..., TakesSteps] = Engine,
) -> str | None:
    state, batches, _ = tiny(config, device)
    before = state.snapshot()
    engine = Engine(state, batches, config, way=way)
    breaking(engine)
    engine.prepare()
    state.restore(before)
    wanted = expected(state, batches, config)
    return difference(wanted, engine, state, config.recipe, engine.trial_counts, FLOAT32)


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("usual", [TINY, CONDITIONAL, CONV])
def test_the_plain_engine_takes_textbook_steps(usual: TrainConfig, recipe: str) -> None:
    config = replace(usual, recipe=SMALL[recipe], matmul_precision="highest")
    assert trial(config, PLAIN, expected=TextbookSteps) is None


@pytest.mark.parametrize("broken", ALL)
def test_the_plain_engine_broken_is_not_the_textbook(broken: str) -> None:
    found = trial(EXACT, PLAIN, CPU, lambda e: break_engine(e, broken), TextbookSteps)
    assert found is not None


@pytest.mark.usefixtures("uncompiled")
@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("augment", [False, True])
def test_traced_steps_are_the_plain_ones(recipe: str, augment: bool) -> None:
    config = replace(EXACT, recipe=replace(SMALL[recipe], augment=augment))
    assert trial(config, Way("compiled")) is None
    side_by_side = Way("compiled", side_by_side=True)
    assert trial(config, side_by_side) is None


@pytest.mark.usefixtures("uncompiled")
@pytest.mark.parametrize("broken", ALL)
@pytest.mark.parametrize("side_by_side", [False, True])
def test_the_compiled_engine_broken_is_found_out(side_by_side: bool, broken: str) -> None:
    way = Way("compiled", side_by_side=side_by_side)
    found = trial(EXACT, way, CPU, lambda e: break_engine(e, broken))
    assert found is not None


@pytest.mark.usefixtures("uncompiled")
@pytest.mark.parametrize("broken", [None, "gamma is halved", "noise is used twice"])
def test_the_trial_of_many_bfloat16_steps_tells_rounding_from_errors(broken: str | None) -> None:
    """A discriminator that sees differences of pixels lets rounding grow fastest."""
    network = replace(NetworkConfig(), differences=True)
    data = replace(TINY.data, image_size=28)
    config = replace(TINY, data=data, network=network, recipe=R3GAN, matmul_precision="medium")
    state, batches, _ = tiny(config)
    before = state.snapshot()
    # On a processor without bfloat16, both are float32, and this test is only about the errors.
    plain, engine = Engine(state, batches, config), Engine(state, batches, config, way=COMPILED)
    if broken:
        break_engine(engine, broken)
    engine.prepare()
    state.restore(before)
    found = difference(plain, engine, state, config.recipe, (1, 32), BFLOAT16)
    assert (found is not None) == bool(broken), found


@pytest.mark.gpu
@pytest.mark.usefixtures("uncompiled")
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("broken", [None, *ALL])
@pytest.mark.parametrize("kind", ["graph", "compiled"])
def test_engines_with_cuda_graphs_broken_are_found_out(kind: str, broken: str | None) -> None:
    way = next(way for way in ways(CUDA) if way.kind == kind)

    def breaking(engine: Engine) -> None:
        if broken:
            break_engine(engine, broken)

    found = trial(EXACT, way, CUDA, breaking)
    assert (found is not None) == bool(broken)


def test_the_trial_leaves_the_schedule_alone() -> None:
    state, batches, config = tiny(EXACT)
    engines: list[Any] = [Engine(state, batches, config) for _ in range(2)]
    usual = [engine.schedule for engine in engines]
    expected, tried = engines
    assert difference(expected, tried, state, config.recipe, (1, 2), FLOAT32) is None
    assert [engine.schedule for engine in engines] == usual
