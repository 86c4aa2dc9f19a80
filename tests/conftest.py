"""Fixtures: tiny trained runs and their artifacts, each made once."""

import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.support.files import ROOT
from tests.support.runs import COLOUR, CONDITIONAL, CONV, TINY, exported, trained

# Keep compiled code for the next time.
os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(ROOT / ".pytest_cache" / "compiled"))

# Time limit of a test in seconds, by its marker. It includes fixtures that the test is the first
# to need.
_LIMITS = {"torture": 3600, "full": 1800, "slow": 300}
_LIMIT = 120


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    limited = config.pluginmanager.hasplugin("timeout")
    for item in items:
        if item.get_closest_marker("gpu") and not torch.cuda.is_available():
            item.add_marker(pytest.mark.skip(reason="no CUDA device"))
        if limited and item.get_closest_marker("timeout") is None:
            limits = [seconds for name, seconds in _LIMITS.items() if item.get_closest_marker(name)]
            item.add_marker(pytest.mark.timeout(max(limits, default=_LIMIT)))


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run of `TINY`. Do not write to it."""
    return trained(TINY, tmp_path_factory.mktemp("runs") / "tiny")


@pytest.fixture(scope="session")
def tiny_artifact(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The artifact of that run's best snapshot. Do not write to it."""
    return exported(tiny_run, tmp_path_factory.mktemp("artifacts") / "artifact")


@pytest.fixture(scope="session")
def conditional_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run of `CONDITIONAL`. Do not write to it."""
    return trained(CONDITIONAL, tmp_path_factory.mktemp("runs") / "conditional")


@pytest.fixture(scope="session")
def conditional_artifact(conditional_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The artifact of that run's best snapshot. Do not write to it."""
    return exported(conditional_run, tmp_path_factory.mktemp("artifacts") / "artifact")


@pytest.fixture(scope="session")
def colour_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run on a mixed folder of images in colour. Do not write to it."""
    from tests.support.own_images import write_images
    from training.data.datasets import load_images
    from training.scoring.extractor import extractor_for

    folder = tmp_path_factory.mktemp("own")
    write_images(folder / "images", 36)
    data = replace(COLOUR.data, dataset=str(folder / "images"), data_dir=folder / "data")
    # Put a classifier into the cache for the run. Training the usual one takes half a minute.
    images = load_images(data)
    extractor_for(images, folder / "data" / "extractors", torch.device("cpu"), least_steps=20)
    return trained(replace(COLOUR, data=data), folder / "run")


@pytest.fixture(scope="session")
def colour_artifact(colour_run: Path) -> Path:
    """The artifact of that run's best checkpoint, where it belongs. Do not write to it."""
    return exported(colour_run, colour_run / "artifact")


@pytest.fixture(scope="session")
def conv_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run of `CONV`. Do not write to it."""
    return trained(CONV, tmp_path_factory.mktemp("runs") / "conv")


@pytest.fixture(scope="session")
def conv_artifact(conv_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The artifact of that run's best snapshot. Do not write to it."""
    return exported(conv_run, tmp_path_factory.mktemp("artifacts") / "artifact")


@pytest.fixture(scope="session")
def golden_artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The artifact of the generator in `tests/golden`. Do not write to it."""
    from export.artifact_folder import export
    from tests.support.golden_file import CHECKPOINT

    folder = tmp_path_factory.mktemp("golden") / "artifact"
    export(CHECKPOINT, folder)
    return folder


@pytest.fixture
def uncompiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run traced steps without compiling them, which would take seconds."""
    from training.engine.compiled import Compilation

    monkeypatch.setattr(Compilation, "compile_part", lambda self, traced, tensors: traced)
    monkeypatch.setattr(Compilation, "note_compiled", lambda self: None)
