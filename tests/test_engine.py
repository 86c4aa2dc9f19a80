"""Many steps at once."""

from dataclasses import replace
from typing import Any, Literal

import numpy as np
import pytest
import torch

from tests.conftest import TINY
from training import engine
from training.data import Batches, load_images
from training.engine import run_steps
from training.step import TrainState, adversarial_step


def tiny_state() -> tuple[TrainState, Batches]:
    images = load_images(TINY.data)
    cpu = torch.device("cpu")
    state = TrainState.create(TINY.network, TINY.recipe, images.image_shape, cpu, seed=0)
    return state, Batches(images, TINY.recipe.batch_size, seed=0)


@pytest.mark.parametrize("precision", ["highest", "high", "medium"])
def test_the_matmul_precision_is_that_of_the_steps_alone(
    precision: Literal["highest", "high", "medium"], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    step = adversarial_step

    def observed(*arguments: Any) -> Any:
        seen.append(torch.get_float32_matmul_precision())
        if len(seen) == 2:
            raise KeyboardInterrupt
        return step(*arguments)

    monkeypatch.setattr(engine, "adversarial_step", observed)
    with pytest.raises(KeyboardInterrupt):
        run_steps(*tiny_state(), replace(TINY, matmul_precision=precision), 3)
    assert seen == [precision, precision]
    assert torch.get_float32_matmul_precision() == "highest"


def test_less_precision_trains_alike() -> None:
    exact = run_steps(*tiny_state(), TINY, 20)
    rounded = run_steps(*tiny_state(), replace(TINY, matmul_precision="medium"), 20)
    np.testing.assert_allclose(rounded, exact, rtol=0.05)
