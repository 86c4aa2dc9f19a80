"""What ours is measured against must itself be sound."""

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from torch import nn
from torchvision import datasets

from benchmarks import textbook
from tests.conftest import TINY
from training.data import load_images


def fake_mnist(root: Path, *, train: bool, download: bool, transform: Any) -> datasets.FakeData:
    assert train
    assert download
    return datasets.FakeData(130, (1, 28, 28), transform=transform)


def test_the_textbook_loop_trains_and_is_scored(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    digits = replace(load_images(replace(TINY.data, image_size=28)), labels=None, classes=())
    monkeypatch.setitem(textbook._DATASETS, "mnist", fake_mnist)
    monkeypatch.setattr(textbook, "load_images", lambda config: digits)
    arguments = ["textbook", "--run-dir", str(tmp_path / "run"), "--epochs", "2"]
    monkeypatch.setattr(sys, "argv", [*arguments, "--data-dir", str(TINY.data.data_dir)])
    textbook.main()
    assert capsys.readouterr().out.count("D loss") == 2 * 3
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    first, second = map(json.loads, lines)
    assert (first["step"], second["step"]) == (3, 6)
    assert first["scores"] == {}
    assert second["scores"]["excess"] > 0.5  # it has seen noise, not digits
    assert second["loss_d"] < first["loss_d"] < 0.75


def test_the_textbook_generator_has_the_eps_of_its_copies() -> None:
    generator, _ = textbook.textbook_networks()
    norms = [layer for layer in generator.layers if isinstance(layer, nn.BatchNorm1d)]
    assert [norm.eps for norm in norms] == [0.8] * 3
