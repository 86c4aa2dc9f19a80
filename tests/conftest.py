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
CONDITIONAL = replace(TINY, network=replace(TINY.network, conditional=True), epochs=6)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="no CUDA device"))


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run of `TINY`. Do not write to it."""
    from training.loop import train

    run_dir = tmp_path_factory.mktemp("runs") / "tiny"
    train(TINY, run_dir)
    return run_dir


@pytest.fixture(scope="session")
def tiny_artifact(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The artifact of that run's best checkpoint. Do not write to it."""
    from export.artifact_folder import best_checkpoint, export

    folder = tmp_path_factory.mktemp("artifacts") / "artifact"
    export(best_checkpoint(tiny_run), folder)
    return folder


@pytest.fixture(scope="session")
def conditional_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run of `CONDITIONAL`. Do not write to it."""
    from training.loop import train

    run_dir = tmp_path_factory.mktemp("runs") / "conditional"
    train(CONDITIONAL, run_dir)
    return run_dir


@pytest.fixture(scope="session")
def conditional_artifact(conditional_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The artifact of that run's best checkpoint. Do not write to it."""
    from export.artifact_folder import best_checkpoint, export

    folder = tmp_path_factory.mktemp("artifacts") / "conditional"
    export(best_checkpoint(conditional_run), folder)
    return folder


@pytest.fixture(scope="session")
def golden_artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The artifact of the generator in `tests/golden`. Do not write to it."""
    from export.artifact_folder import export
    from tests.golden_file import CHECKPOINT

    folder = tmp_path_factory.mktemp("golden") / "artifact"
    export(CHECKPOINT, folder)
    return folder
