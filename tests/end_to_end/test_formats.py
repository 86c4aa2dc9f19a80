"""A small file of each format that ganpack has ever written: each must load forever.

The files come from 7 steps of `SMALL` on `Batches` of seed 0 (torch 2.15, CPU). The expected
averages, noise and losses are those of the program that wrote the files.
"""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from training.config import NetworkConfig, RecipeConfig
from training.gan.networks import to_pixels
from training.gan.state import TrainState
from training.run_folder.checkpoint import load_generator, weights_sha256
from training.run_folder.folder import RunFolder
from training.run_folder.resume import Saves
from training.run_folder.scores import Scores
from training.run_folder.sealed_file import FORMAT_VERSION, CheckpointError, load, save

FORMATS = Path(__file__).parents[1] / "formats"
SMALL = NetworkConfig(latent_dim=2, generator_dims=(2,), discriminator_dims=(2,))


def test_every_format_has_its_file() -> None:
    versions = range(1, FORMAT_VERSION + 1)
    names = {f"{kind}-{version}.pt" for kind in ("checkpoint", "last") for version in versions}
    assert {path.name for path in FORMATS.iterdir()} == names


def test_a_checkpoint_of_format_1_loads() -> None:
    content = load(FORMATS / "checkpoint-1.pt")
    assert content["step"] == 7
    assert content["scores"] == {"loss_g": 0.5, "fcd": 12.0}
    assert content["dataset"] == "digits"
    generator = load_generator(content)
    assert (
        weights_sha256(generator)
        == "188c7212af47102ad40f57d67d733448035879802eb1e61cf08c2bd24b60784d"
    )
    with torch.no_grad():
        pixels = to_pixels(generator(torch.tensor([[0.0, 0.0], [1.0, -1.0]])))
    np.testing.assert_allclose(
        pixels.flatten(1), [[105, 136, 160, 173], [100, 135, 163, 181]], atol=1
    )


def test_a_save_of_format_1_goes_on(tmp_path: Path) -> None:
    shutil.copy(FORMATS / "last-1.pt", tmp_path / "last.pt")
    state = TrainState.create(SMALL, RecipeConfig(), (1, 2, 2), torch.device("cpu"), seed=1)
    history = Saves(RunFolder(tmp_path), "d" * 64).resume(state, 0)
    assert state.step == 7
    assert (
        weights_sha256(state.ema)
        == "188c7212af47102ad40f57d67d733448035879802eb1e61cf08c2bd24b60784d"
    )
    assert (history.steps, history.divergences) == (3, ["iteration 5: loss_g nan"])
    assert [(record.epoch, record.scores) for record in history.epochs] == [(1, Scores(fcd=12.0))]
    assert history.to_dict()["epochs"][0]["scores"] == {"fcd": 12.0}
    moment = state.tensors()["discriminator.layers.1.weight.exp_avg"]
    assert float(moment.abs().sum()) == pytest.approx(0.047086331993341446)
    # The noise continues where it stopped.
    np.testing.assert_allclose(state.next_noise(1).flatten(), [-0.8646363, 0.2568098], rtol=1e-5)


@pytest.mark.parametrize("version", [0, FORMAT_VERSION + 1, None, "1"])
def test_another_format_is_refused_by_name(version: object, tmp_path: Path) -> None:
    save({"format_version": version}, tmp_path / "other.pt")
    with pytest.raises(
        CheckpointError, match=f"checkpoint format {version}, this version reads {FORMAT_VERSION}"
    ):
        load(tmp_path / "other.pt")
