"""The benchmarks work, and what they compare ganpack with is correct."""

import json
import statistics
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torchvision import datasets

from benchmarks import frugality, textbook, time_to_quality, whole_runs
from benchmarks.curves import Curve, read_curve
from benchmarks.footprint import wheel_bytes
from benchmarks.time_to_quality import seconds_until
from benchmarks.training import BenchmarkConfig, measure, products, table
from benchmarks.whole_runs import WholeRunsConfig
from tests.support.runs import TINY
from training.config import RECIPES
from training.data.batches import Batches
from training.data.datasets import load_images
from training.engine.engine import Engine
from training.gan.state import TrainState


def fake_mnist(root: Path, *, train: bool, download: bool, transform: Any) -> datasets.FakeData:
    assert train
    assert download
    return datasets.FakeData(130, (1, 28, 28), transform=transform)


def test_the_textbook_loop_trains_and_is_scored(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    digits = replace(load_images(replace(TINY.data, image_size=28)), labels=None, classes=())
    monkeypatch.setitem(textbook.DATASETS, "mnist", fake_mnist)
    monkeypatch.setattr(textbook, "load_images", lambda config: digits)
    arguments = ["textbook", "--run-dir", str(tmp_path / "run"), "--epochs", "2"]
    monkeypatch.setattr(sys, "argv", [*arguments, "--data-dir", str(TINY.data.data_dir)])
    textbook.main()
    assert capsys.readouterr().out.count("D loss") == 2 * 3
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    first, second = map(json.loads, lines)
    assert (first["step"], second["step"]) == (3, 6)
    assert first["scores"] == {}
    assert second["scores"]["excess"] > 0.5  # it was trained on noise, not on digits
    assert second["loss_d"] < first["loss_d"] < 0.75


def test_the_textbook_generator_has_the_eps_of_its_copies() -> None:
    generator, _ = textbook.textbook_networks()
    norms = [layer for layer in generator.layers if isinstance(layer, nn.BatchNorm1d)]
    assert [norm.eps for norm in norms] == [0.8] * 3


@pytest.fixture
def no_mnist(monkeypatch: pytest.MonkeyPatch) -> None:
    """Digits in MNIST's size, and noise for the textbook's data loader."""
    digits = load_images(replace(TINY.data, image_size=28))
    monkeypatch.setitem(textbook.DATASETS, "mnist", fake_mnist)
    monkeypatch.setattr("benchmarks.engines.load_images", lambda config: digits)


@pytest.mark.slow
@pytest.mark.usefixtures("no_mnist")
def test_training_is_measured_beside_the_textbook_and_its_limits() -> None:
    config = BenchmarkConfig(device="cpu", rounds=3, iterations=2, engines=("plain",))
    figures = measure(config)
    rates = figures["iterations_per_second"]
    ours = [f"{r}, {p}, plain" for r in ("bce", "r3gan") for p in ("highest", "medium")]
    assert list(rates) == ["textbook", *ours]
    assert all(len(values) == 3 and min(values) > 0 for values in rates.values())
    limits = figures["limits_iterations_per_second"]
    assert [f"{name}, plain" for name in limits] == ours
    assert all(limit["matrix products alone"] > 0 for limit in limits.values())
    assert figures["machine"]["torch"] in torch.__version__
    lines = table(figures).splitlines()
    assert lines[1].startswith("textbook")
    assert lines[1].endswith("1.00")
    assert "limit of r3gan, medium: matrix products alone" in table(figures)
    json.dumps(figures, allow_nan=False)


def test_the_products_of_a_step_are_all_counted() -> None:
    """The expected number follows from backpropagation, for g layers of G and d of D."""
    config = replace(TINY, recipe=RECIPES["hinge"])  # no penalties
    state = TrainState.create(config.network, config.recipe, (1, 8, 8), torch.device("cpu"), 0)
    engine = Engine(state, Batches(load_images(config.data), config.recipe.batch_size, 0), config)
    g, d = 3, 3
    forward = g + d
    backward = (2 * g - 1) + d + (2 * d - 1)  # dD/dx; then weights, and all inputs except the first
    assert len(products(engine)) == forward + backward


def test_a_curve_knows_minutes_and_scores(tiny_run: Path) -> None:
    curve = read_curve(tiny_run)
    assert (curve.dataset, curve.recipe, curve.seed) == ("digits", "bce", 0)
    assert curve.steps == [4, 11, 22, 32, 43]
    assert curve.minutes == sorted(curve.minutes)
    assert min(curve.minutes) > 0
    best = json.loads((tiny_run / "best.json").read_text())
    assert curve.steps[curve.best()] == best["choices"]["fcd"]["step"]


def test_a_curve_of_convolutions_says_so(conv_run: Path) -> None:
    assert read_curve(conv_run).recipe == "bce, conv"


def test_the_seconds_until_a_score_are_those_of_the_first_below() -> None:
    scores = [{"fcd": value} for value in (9.0, 4.0, 2.0, 5.0)]
    curve = Curve("a", "mnist", "bce", 0, [1, 2, 3, 4], [1.0, 2.0, 3.0, 4.0], scores)
    assert [seconds_until(curve, value) for value in (10, 4.5, 4, 1)] == [60, 120, 180, None]


def test_runs_are_compared_by_time(
    tiny_run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["x", str(tiny_run), "--fcd", "1e9", "1e-9"])
    time_to_quality.main()
    head, row = capsys.readouterr().out.splitlines()
    assert head.split() == ["seconds", "until", "FCD", "<", "1e+09", "1e-09"]
    assert row.startswith("digits, bce, tiny ")
    assert row.endswith("-")


def test_the_wheel_is_small() -> None:
    assert wheel_bytes() < 300_000


@pytest.mark.slow
def test_a_whole_run_is_measured_beside_the_textbook() -> None:
    config = WholeRunsConfig(
        device="cpu",
        tiny=True,
        dataset="digits",
        data_dir=TINY.data.data_dir,
        engine="plain",
        textbook_iterations=2,
    )
    figures = whole_runs.measure(config, 30)
    assert figures["engine"] == "plain"
    base = statistics.median(figures["textbook_iterations_per_second"])
    whole = sum(figures["seconds"].values())
    assert figures["times_textbook_with_start_and_scores"] == pytest.approx(30 / whole / base)
    assert figures["times_textbook"] > figures["times_textbook_with_start_and_scores"]
    assert f"{figures['times_textbook']:.2f} x the textbook loop" in whole_runs.line(figures)


@pytest.mark.full
def test_few_images_cost_little_besides_steps(tmp_path: Path) -> None:
    config = frugality.FrugalityConfig(device="cpu", dataset="digits", data_dir=tmp_path)
    figures = frugality.measure(config, 20, tmp_path / "few")
    assert figures["iterations"] == 200  # 200 epochs, the default
    assert frugality.is_frugal(figures), frugality.line(figures)
    assert not frugality.is_frugal(figures | {"share": 0.101})
    assert not frugality.is_frugal(figures | {"megabytes": 201.0})
