"""What cannot fit into memory or an artifact is refused before it starts; what may not, is said."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from inference.writing.room import Memory, limits_of
from tests.support.own_images import write_images
from tests.support.runs import ARGUMENTS, CONDITIONAL, CONV, TINY
from training.config import TrainConfig
from training.data import memory
from training.data.datasets import load_images
from training.data.images import DataError
from training.data.memory import memory_of
from training.engine import machine
from training.engine.machine import needed_memory, warn_of_memory
from training.gan.sizes import sizes_of
from training.gan.state import TrainState
from training.run import main

CPU = torch.device("cpu")
SMALL = Memory(total=8_000_000_000, free=4_000_000_000)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine of 8 GB."""
    monkeypatch.setattr(machine, "memory_of", lambda device: SMALL)


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--generator-dims", "100000", "100000"], 2, "weights, 40.3 GB, and an artifact can hold"),
        (["--network", "conv", "--conv-width", "2000"], 2, "can hold 0.5 GB: lower --conv-width"),
        (["--generator-dims", "9" * 11, "9" * 11], 2, "the networks are absurdly large: widths (9"),
        (["--discriminator-dims", "9" * 30], 2, "the networks are absurdly large: widths (16, 32)"),
        (
            ["--discriminator-dims", "100000", "100000"],
            1,
            "at least 120.9 GB of memory, and there are 8.0 GB: lower the widths of the networks",
        ),
        (["--batch-size", str(10**9)], 1, "and there are 8.0 GB: lower --batch-size"),
        (["--batch-size", str(10**40)], 1, "and there are 8.0 GB: lower --batch-size"),
    ],
)
@pytest.mark.usefixtures("small")
def test_what_cannot_be_is_refused_at_the_start_in_one_line(
    options: list[str], code: int, message: str, tmp_path: Path,
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr("training.train.load_held_out", lambda config: pytest.fail("too late"))
    arguments = [*ARGUMENTS, "--image-size", "28", *options, "--run-dir", str(tmp_path / "run")]
    assert main(arguments) == code
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: ")
    assert message in error
    assert not (tmp_path / "run").exists()


def test_images_that_memory_cannot_hold_are_refused_before_they_are_resized(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(memory, "memory_of", lambda device: Memory(10**6, 10**6))
    with pytest.raises(DataError, match=r"^1,797 images of 500×500 need 1\.3 GB of memory, and"):
        load_images(replace(TINY.data, image_size=500, channels=3))
    write_images(tmp_path, 9)
    with pytest.raises(
        DataError, match=r"^9 images of 500×500 need 0\.0 GB of memory, and .*: lower"
    ):
        load_images(replace(TINY.data, dataset=str(tmp_path), image_size=500, channels=3))


@pytest.mark.parametrize("config", [TINY, CONV, CONDITIONAL], ids=["mlp", "conv", "conditional"])
def test_networks_are_measured_without_being_made(config: TrainConfig) -> None:
    shape, classes = (3, 10, 10), ("a", "b", "c")
    state = TrainState.create(config.network, config.recipe, shape, CPU, 0, classes)
    sizes = sizes_of(config.network, shape, classes)
    for network, found in zip((state.generator, state.discriminator), sizes, strict=True):
        assert found.weights == sum(weight.numel() for weight in network.parameters())
    if config is TINY:  # each layer's values: linear, leaky, linear, norm, leaky, linear
        assert sizes[0].activations == 2 * 16 + 3 * 32 + 300
        assert sizes[1].activations == 300 + 2 * 16 + 2 * 8 + 1


def test_a_run_that_seems_too_large_for_what_is_free_is_warned_of(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    images = load_images(TINY.data)
    need = needed_memory(TINY, len(images), images.image_shape, images.classes, CPU)
    free = [need]
    monkeypatch.setattr(machine, "memory_of", lambda device: Memory(10**12, free[0]))
    warn_of_memory(TINY, images, CPU, 1)
    assert caplog.messages == []
    warn_of_memory(TINY, images, CPU, 2)  # two processes
    free[0] -= 1
    warn_of_memory(TINY, images, CPU, 1)
    assert len(caplog.messages) == 2
    assert "more memory, and 0.2 GB are free, so the system may end it" in caplog.messages[1]


def test_more_of_anything_needs_more() -> None:
    def need(config: TrainConfig, size: int = 32) -> int:
        return needed_memory(config, 1000, (3, size, size), (), CPU)

    wide = replace(TINY.network, generator_dims=(2048, 2048))
    assert need(replace(TINY, network=wide)) > need(TINY) + 8 * 4 * 2048**2
    large = replace(TINY.recipe, batch_size=20 * TINY.recipe.batch_size)
    assert need(replace(CONV, recipe=large)) > 10 * (need(CONV) - need(TINY))
    assert need(TINY, 64) > need(TINY)


def test_the_limits_of_containers_count(tmp_path: Path) -> None:
    assert list(limits_of(tmp_path)) == []
    stat = "anon 5\ninactive_file 1000\nactive_file 7\n"
    for version, names in (
        ("1", ("memory.limit_in_bytes", "memory.usage_in_bytes")),
        ("2", ("memory.max", "memory.current")),
    ):
        group = tmp_path / version
        group.mkdir()
        for name, text in zip((*names, "memory.stat"), ("9000\n", "4000\n", stat), strict=True):
            (group / name).write_text(text)
        assert list(limits_of(group)) == [Memory(total=9000, free=6000)]
    (tmp_path / "2" / "memory.max").write_text("max\n")
    assert list(limits_of(tmp_path / "2")) == []


def test_this_machine_has_memory() -> None:
    total, free = memory_of(CPU)
    assert 0 < free <= total
