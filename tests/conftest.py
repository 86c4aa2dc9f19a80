"""Fixtures: a tiny trained run and its artifact, made once."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from training.config import DataConfig, NetworkConfig, RecipeConfig, TrainConfig

ROOT = Path(__file__).parents[1]
TINY = TrainConfig(
    # The folder keeps the extractor that scores are measured with: trained once, not each time.
    data=DataConfig(dataset="digits", data_dir=ROOT / ".pytest_cache" / "data", image_size=8),
    network=NetworkConfig(latent_dim=10, generator_dims=(16, 32), discriminator_dims=(16, 8)),
    recipe=RecipeConfig(batch_size=512),  # 3.5 batches an epoch: epochs end within batches
    epochs=12,
    score_every=10,
    device="cpu",
    engine="plain",
)
CONV = replace(
    TINY, network=replace(TINY.network, network="conv", conv_width=4, conditional=True), epochs=6
)
CONDITIONAL = replace(TINY, network=replace(TINY.network, conditional=True), epochs=6)

COLOUR = replace(
    TINY,
    data=replace(TINY.data, image_size=32, channels=3),
    recipe=RecipeConfig(batch_size=16, lr=5e-3),
    iterations=60,
    score_every=30,
)
"""Of the runs in colour, but for where their images are."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="no CUDA device"))


def trained(config: TrainConfig, run_dir: Path) -> Path:
    """The folder of a run that has ended."""
    from training.train import train

    train(config, run_dir)
    return run_dir


def exported(run_dir: Path, folder: Path) -> Path:
    """The artifact of a run's best checkpoint."""
    from export.artifact_folder import best_checkpoint, export

    export(best_checkpoint(run_dir), folder)
    return folder


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run of `TINY`. Do not write to it."""
    return trained(TINY, tmp_path_factory.mktemp("runs") / "tiny")


@pytest.fixture(scope="session")
def tiny_artifact(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The artifact of that run's best checkpoint. Do not write to it."""
    return exported(tiny_run, tmp_path_factory.mktemp("artifacts") / "artifact")


@pytest.fixture(scope="session")
def conditional_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run of `CONDITIONAL`. Do not write to it."""
    return trained(CONDITIONAL, tmp_path_factory.mktemp("runs") / "conditional")


@pytest.fixture(scope="session")
def conditional_artifact(conditional_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The artifact of that run's best checkpoint. Do not write to it."""
    return exported(conditional_run, tmp_path_factory.mktemp("artifacts") / "artifact")


@pytest.fixture(scope="session")
def colour_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run on a mixed folder of images in colour. Do not write to it."""
    from tests.support.own_images import write_images

    folder = tmp_path_factory.mktemp("own")
    write_images(folder / "images", 36)
    data = replace(COLOUR.data, dataset=str(folder / "images"), data_dir=folder / "data")
    with pytest.MonkeyPatch.context() as patch:
        # A thousand take half a minute.
        patch.setattr("training.scoring.extractor._LEAST_STEPS", 20)
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
    """The artifact of that run's best checkpoint. Do not write to it."""
    return exported(conv_run, tmp_path_factory.mktemp("artifacts") / "artifact")


@pytest.fixture(scope="session")
def golden_artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The artifact of the generator in `tests/golden`. Do not write to it."""
    from export.artifact_folder import export
    from tests.support.golden_file import CHECKPOINT

    folder = tmp_path_factory.mktemp("golden") / "artifact"
    export(CHECKPOINT, folder)
    return folder
