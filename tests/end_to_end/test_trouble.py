"""When disk, data or numbers fail, the message is clear, and no half-written file is left."""

import pickle
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from export import score
from inference import ArtifactError, Sampler
from tests.support.comparing import assert_same_state, read_lines, without_timing
from tests.support.runs import ARGUMENTS, TINY
from training.data.datasets import load_images
from training.data.images import DataError, Images
from training.divergence import Diverged, check_classes, check_losses, check_weights
from training.engine.choice import create_engine
from training.engine.engine import Engine
from training.gan.state import TrainState
from training.run import main
from training.run_folder.checkpoint import load_generator
from training.run_folder.history import EpochRecord
from training.run_folder.scores import Scores
from training.run_folder.sealed_file import CheckpointError, DamagedError, load, save
from training.scoring import extractor
from training.scoring.extractor import Classifier, extractor_for
from training.scoring.reference import Reference
from training.scoring.subject import Subject
from training.train import train
from training.training_loop import Pace

CPU = torch.device("cpu")
SAVE_OFTEN = Pace(save_seconds=0.0)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Mounts a new file system, with options."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def mount(options: str) -> Path:
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
        try:
            subprocess.run(command, check=True, capture_output=True, timeout=10)
        except (OSError, subprocess.CalledProcessError):
            pytest.skip("mounting a small file system is not allowed here")
        return folder

    yield mount
    subprocess.run(["umount", str(folder)], check=False, capture_output=True, timeout=10)


def fill(folder: Path, leave: int) -> None:
    free = shutil.disk_usage(folder).free
    (folder / "filler").write_bytes(b"\0" * (free - leave))


def whole_files(run_dir: Path) -> None:
    """Each file with a final name is complete."""
    assert not list(run_dir.rglob("*.tmp"))
    for path in run_dir.rglob("*.pt"):
        load(path)


def at(step: int, action: Callable[[], Any]) -> Callable[[Engine, int], Any]:
    """An `Engine.launch` that calls an action when a step is reached."""
    launch = Engine.launch

    def acting(self: Engine, count: int) -> Any:
        launched = launch(self, count)
        if self.state.step >= step:
            action()
        return launched

    return acting


@pytest.mark.parametrize("leave", [0, 90_000])  # room for nothing, or for part of a save
def test_a_full_disk_ends_a_run_with_what_was_saved(
    leave: int,
    small_disk: Callable[[str], Path],
    tiny_run: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    disk = small_disk("size=4m")
    run_dir = disk / "run"

    def fill_once() -> None:
        if not (disk / "filler").exists():
            fill(disk, leave)

    with monkeypatch.context() as patch:
        patch.setattr(Engine, "launch", at(20, fill_once))
        arguments = [*ARGUMENTS, "--epochs", "12", "--score-every", "10"]
        assert main([*arguments, "--run-dir", str(run_dir)], pace=SAVE_OFTEN) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert "No space left on device" in error
    whole_files(run_dir)
    step = load(run_dir / "last.pt")["step"]
    assert 15 <= step < 43
    assert f"iteration {step} is saved: continue with --resume {run_dir}" in error
    (disk / "filler").unlink()
    train(TINY, run_dir, resume=True, pace=SAVE_OFTEN)
    assert_same_state(tiny_run, run_dir)
    assert len(read_lines(run_dir, "iteration")) == 43


def test_a_disk_full_from_the_start_is_said(
    small_disk: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    disk = small_disk("size=64k")
    fill(disk, 0)
    assert main([*ARGUMENTS, "--epochs", "2", "--run-dir", str(disk / "run")]) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert "No space left on device" in error
    assert error.endswith("nothing of the run is saved")


def test_a_read_only_folder_is_said(
    small_disk: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    disk = small_disk("size=4m")
    run_dir = disk / "run"
    train(replace(TINY, epochs=2), run_dir, pace=SAVE_OFTEN)
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True, timeout=10)
    assert main(["--resume", str(run_dir), "--epochs", "3"], pace=SAVE_OFTEN) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert "Read-only file system" in error
    assert f"iteration 8 is saved: continue with --resume {run_dir}" in error
    assert main([*ARGUMENTS, "--run-dir", str(disk / "new")], pace=SAVE_OFTEN) == 1
    assert "nothing of the run is saved" in capsys.readouterr().err


@pytest.mark.parametrize("reason", ["Read-only file system", "Not a directory"])
def test_a_data_folder_that_cannot_be_written_costs_nothing(
    reason: str,
    request: pytest.FixtureRequest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The classifier is kept in the run folder, and found there again."""
    data_dir, run_dir, made = tmp_path / "file", tmp_path / "run", []
    data_dir.touch()
    if reason == "Read-only file system":
        data_dir = request.getfixturevalue("small_disk")("size=1m,ro")

    def train_classifier(images: Images, *, least_steps: int) -> Classifier:
        made.append(Classifier(1, 10).eval())
        return made[-1]

    monkeypatch.setattr(extractor, "train_classifier", train_classifier)
    caplog.set_level("INFO", "training")
    place = ["--data-dir", str(data_dir)]
    arguments = [*ARGUMENTS, *place, "--iterations", "2", "--run-dir", str(run_dir)]
    assert main(arguments) == 0
    assert f"the classifier cannot be kept in {data_dir}/extractors: {reason}" in caplog.messages
    assert f"the classifier is kept in {run_dir}/extractor.safetensors" in caplog.messages
    assert main(["--resume", str(run_dir), "--iterations", "4"]) == 0
    assert score.main([str(run_dir), *place]) == 0
    assert len(made) == 1
    scores = [record["scores"] for record in read_lines(run_dir, "epoch")]
    assert len({each["extractor_sha256"] for each in scores}) == 1


def test_a_folder_deleted_under_the_run_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run_dir = tmp_path / "run"
    remove = at(20, lambda: shutil.rmtree(run_dir, ignore_errors=True))
    monkeypatch.setattr(Engine, "launch", remove)
    assert main([*ARGUMENTS, "--epochs", "12", "--run-dir", str(run_dir)], pace=SAVE_OFTEN) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert "No such file or directory" in error
    assert str(run_dir) in error
    assert error.endswith("nothing of the run is saved")
    assert not run_dir.exists()


def test_an_unwritable_tensorboard_is_said(
    tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_dir = tmp_path / "run"
    shutil.copytree(tiny_run, run_dir)
    shutil.rmtree(run_dir / "tensorboard")
    (run_dir / "tensorboard").touch()
    assert main(["--resume", str(run_dir), "--epochs", "13"]) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert "run/tensorboard: File exists" in error
    assert "iteration 43 is saved" in error
    (run_dir / "tensorboard").unlink()
    assert main(["--resume", str(run_dir), "--epochs", "13"]) == 0


def test_out_of_gpu_memory_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(self: Engine, count: int) -> Any:
        raise torch.OutOfMemoryError(
            "CUDA out of memory. Tried to allocate 20.50 GiB. GPU 0 has a total capacity of 8 GiB."
            "\nSee documentation"
        )

    monkeypatch.setattr(Engine, "launch", run)
    assert main([*ARGUMENTS, "--run-dir", str(tmp_path / "run")]) == 1
    folder, error = capsys.readouterr().err.splitlines()
    assert folder.startswith("run folder: ")
    assert "out of GPU memory: 20.50 GiB" in error
    assert "--batch-size (now 512)" in error
    assert "--image-size (now 8)" in error


def nan_at(
    step: int,
    times: int,
    monkeypatch: pytest.MonkeyPatch,
    wrong: Callable[[TrainState], None] | None,
) -> None:
    """Spoil the weights, or without `wrong` a loss, at a step, and repeat it `times` times.

    The steps of the trial of engines are not spoiled.
    """
    launch, create, left = Engine.launch, create_engine, [times]
    chosen: list[Engine] = []

    def created(*arguments: Any) -> Engine:
        chosen.append(create(*arguments))
        return chosen[-1]

    def broken(self: Engine, count: int) -> Any:
        first = self.state.step
        launched = launch(self, count)
        if chosen and first < step <= self.state.step and left[0]:
            left[0] -= 1
            if wrong is None:
                launched.losses()[step - first - 1 :, 0] = np.nan
            else:
                wrong(self.state)
        return launched

    monkeypatch.setattr("training.train.create_engine", created)
    monkeypatch.setattr(Engine, "launch", broken)


def spoil(state: TrainState) -> None:
    next(state.discriminator.parameters()).data[0, 0] = float("inf")


@pytest.mark.parametrize("wrong", [None, spoil], ids=["loss", "weight"])
def test_a_run_that_goes_wrong_goes_back_with_new_noise(
    wrong: Any,
    tiny_run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    run_dir = tmp_path / "run"
    with monkeypatch.context() as patch:
        nan_at(30, 1, patch, wrong)
        assert train(TINY, run_dir, pace=SAVE_OFTEN).step == 43
    assert "Back to iteration 22 with new noise, attempt 1 of 3" in caplog.text
    evidence = "loss_g nan, loss_g" if wrong is None else "discriminator.layers"
    assert evidence in caplog.text
    # Up to that step the records are the same, then they differ. Each step is recorded once.
    found, expected = (read_lines(run, "iteration") for run in (run_dir, tiny_run))
    assert [record["step"] for record in found] == list(range(1, 44))
    assert found[:22] == expected[:22]
    assert found[22]["loss_g"] != expected[22]["loss_g"]
    history = load(run_dir / "last.pt")["history"]
    assert len(history["divergences"]) == 1


def test_a_resume_after_going_back_is_exact(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, stop in (("whole", 14), ("halves", 10)):
        with monkeypatch.context() as patch:
            nan_at(8, 2, patch, spoil)
            train(replace(TINY, iterations=stop), tmp_path / name, pace=SAVE_OFTEN)
    train(replace(TINY, iterations=14), tmp_path / "halves", resume=True, pace=SAVE_OFTEN)
    assert len(load(tmp_path / "whole" / "last.pt")["history"]["divergences"]) == 2
    assert_same_state(tmp_path / "halves", tmp_path / "whole")
    found, expected = (read_lines(tmp_path / name, "epoch") for name in ("halves", "whole"))
    assert without_timing(found) == without_timing(expected)


def test_a_run_that_goes_wrong_again_and_again_stops_with_the_evidence(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    run_dir = tmp_path / "run"
    nan_at(9, 99, monkeypatch, None)
    assert main([*ARGUMENTS, "--epochs", "12", "--run-dir", str(run_dir)]) == 1
    assert caplog.text.count("Back to iteration 0 with new noise, attempt") == 3
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: the run has diverged 4 times (iteration 9: loss_g nan, loss_g")
    assert error.count("iteration 9: loss_g nan") == 4
    assert "iteration 0 is saved" in error
    assert "--override lr" in error
    whole_files(run_dir)


def test_what_is_not_finite_is_named() -> None:
    losses = np.ones((3, 4), np.float32)
    check_losses(losses, 11)
    losses[2, 1] = np.inf
    with pytest.raises(Diverged, match=r"^iteration 13: loss_d inf, loss_g 1, .* before$"):
        check_losses(losses, 11)
    state = TrainState.create(TINY.network, TINY.recipe, (1, 8, 8), CPU, 0)
    check_weights(state)
    for network in (state.generator, state.ema):
        next(network.buffers())[0] = float("nan")  # a statistic of BatchNorm
    with pytest.raises(Diverged, match=r"iteration 0: ema\..*running_mean, generator.*not finite$"):
        check_weights(state)


def test_a_collapsed_class_histogram_is_noticed() -> None:
    def record(epoch: int, class_tv: float | None) -> EpochRecord:
        scores = None if class_tv is None else Scores(class_tv=class_tv, fcd=9.0)
        return EpochRecord(epoch, 10 * epoch, 0, 0, 0, 0, 1, scores)

    for shares in ([0.9], [0.9, 0.8], [0.9, 0.1, None, 0.3], [0.25, 0.6]):
        check_classes([record(i, share) for i, share in enumerate(shares, 1)])
    with pytest.raises(Diverged, match=r"iteration 40: .* differ by 0\.60 .* 0\.10 before"):
        check_classes([record(i, share) for i, share in enumerate([0.9, 0.1, None, 0.6], 1)])


def test_a_collapsed_generator_takes_the_run_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    shares = iter([0.1, 0.1, 0.9, 0.1, 0.1, 0.1, 0.1])
    score = Reference.score

    def collapsing(self: Reference, subject: Subject, seed: int) -> Scores:
        return replace(score(self, subject, seed), class_tv=next(shares, 0.1))

    monkeypatch.setattr(Reference, "score", collapsing)
    train(TINY, tmp_path / "run", pace=SAVE_OFTEN)
    # Scored are steps 4, 11, 22, …: the save of step 11 is the last sound one, those after it,
    # at ends of epochs and grids, were not looked at.
    assert "iteration 22: the class shares of the images differ by 0.90" in caplog.text
    assert "Back to iteration 11 with new noise" in caplog.text
    assert [record["epoch"] for record in read_lines(tmp_path / "run", "epoch")] == [*range(1, 13)]


class Malicious:
    """Creates a file when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.target,)


def write_malicious(path: Path, target: Path) -> None:
    """Write a malicious pickle in the format that the name of `path` has."""
    payload = {"format_version": 1, "payload": Malicious(target)}
    if path.suffix == ".pt":
        save(payload, path)
    else:
        path.write_bytes(pickle.dumps(payload))


def test_a_malicious_pickle_is_refused_and_does_nothing(
    tiny_run: Path, tiny_artifact: Path, tmp_path: Path
) -> None:
    owned, run_dir = tmp_path / "owned", tmp_path / "run"
    pickle.loads(pickle.dumps(Malicious(owned)))
    assert owned.exists()  # it works
    owned.unlink()
    shutil.copytree(tiny_run, run_dir)
    shutil.copytree(tiny_artifact, tmp_path / "artifact")
    (checkpoint, *_) = sorted((run_dir / "checkpoints").iterdir())
    for path in (checkpoint, run_dir / "last.pt", run_dir / "previous.pt"):
        path.unlink(missing_ok=True)
        write_malicious(path, owned)
        with pytest.raises(DamagedError, match=f"{path.name} cannot be read.*or not ours"):
            load(path)
        path.write_bytes(pickle.dumps(Malicious(owned)))
        with pytest.raises(DamagedError, match=f"{path.name} cannot be read.*or not ours"):
            load(path)
    with pytest.raises(CheckpointError, match=r"last\.pt and previous\.pt are damaged"):
        train(TINY, run_dir, resume=True)
    model = tmp_path / "artifact" / "generator.onnx"
    write_malicious(model, owned)
    with pytest.raises(ArtifactError):
        Sampler(tmp_path / "artifact", provider="cpu")
    images = load_images(TINY.data)
    write_malicious(tmp_path / f"{images.sha256()}.safetensors", owned)
    with pytest.raises(DataError, match="is damaged"):
        extractor_for(images, tmp_path, CPU)
    assert not owned.exists()


def test_a_file_of_the_other_kind_is_refused_by_name(tiny_run: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    shutil.copytree(tiny_run, run_dir)
    with pytest.raises(CheckpointError, match="use a generator snapshot from checkpoints/"):
        load_generator(load(run_dir / "last.pt"))
    (checkpoint, *_) = (run_dir / "checkpoints").iterdir()
    shutil.copy(checkpoint, run_dir / "last.pt")
    with pytest.raises(CheckpointError, match=r"last\.pt is a generator snapshot"):
        train(TINY, run_dir, resume=True)


def test_networks_that_do_not_fit_the_save_are_refused(tiny_run: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    shutil.copytree(tiny_run, run_dir)
    other = replace(TINY, network=replace(TINY.network, latent_dim=11))
    with pytest.raises(CheckpointError, match=r"other networks than config\.json"):
        train(other, run_dir, resume=True)


@pytest.mark.gpu
def test_a_cuda_graph_goes_back_with_new_noise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = replace(TINY, device="cuda", engine="graph", iterations=14)
    for name, stop in (("whole", 14), ("halves", 10)):
        with monkeypatch.context() as patch:
            nan_at(8, 2, patch, spoil)
            train(replace(config, iterations=stop), tmp_path / name, pace=SAVE_OFTEN)
    train(config, tmp_path / "halves", resume=True, pace=SAVE_OFTEN)
    assert len(load(tmp_path / "whole" / "last.pt")["history"]["divergences"]) == 2
    assert_same_state(tmp_path / "halves", tmp_path / "whole")
