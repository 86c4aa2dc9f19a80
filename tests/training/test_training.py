"""A run, from its folder to its resume."""

import json
import logging
import os
import re
import shutil
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tensorboard.plugins.hparams.api_pb2 import STATUS_SUCCESS
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from inference import Sampler
from inference.writing.pictures import grid
from tests.support.comparing import assert_same_state, events, read_lines, without_timing
from tests.support.runs import ARGUMENTS, TINY
from training.config import TrainConfig
from training.engine.engine import Engine
from training.gan.networks import Generator
from training.interruption import Interrupted
from training.records.metrics import Records
from training.records.progress import ProgressBar
from training.records.samples import grid_steps
from training.run import main
from training.run_folder.config_file import read_config
from training.run_folder.folder import RunFolder
from training.run_folder.scores import Scores
from training.run_folder.sealed_file import CheckpointError, load
from training.scoring import verdict as verdicts
from training.scoring.verdict import Verdict
from training.train import train

SCORES = Scores(fcd=1.5, excess=0.005, kid=0.1, recall=0.8)
STEPS = 43  # ceil(12 epochs * 1797 images / 512)


def test_a_run_leaves_what_the_design_promises(tiny_run: Path) -> None:
    assert read_config(tiny_run) == TINY
    config = json.loads((tiny_run / "config.json").read_text())
    assert config["versions"].keys() >= {"python", "torch", "ganpack"}
    assert len(config["data_sha256"]) == 64
    assert load(tiny_run / "last.pt")["step"] == STEPS
    best = json.loads((tiny_run / "best.json").read_text())
    assert (tiny_run / best["checkpoint"]).exists()
    steps = sorted(grid_steps(STEPS))
    assert len(steps) == 10
    assert sorted(p.name for p in (tiny_run / "samples").iterdir()) == [
        f"step-{step:07d}.png" for step in steps
    ]
    assert not list(tiny_run.rglob("*.tmp"))


def test_every_iteration_and_epoch_is_recorded_once(tiny_run: Path) -> None:
    iterations, epochs = read_lines(tiny_run, "iteration"), read_lines(tiny_run, "epoch")
    assert [record["step"] for record in iterations] == list(range(1, STEPS + 1))
    assert [record["epoch"] for record in epochs] == list(range(1, 13))
    assert [record["step"] for record in epochs] == [-(-e * 1797 // 512) for e in range(1, 13)]
    first = epochs[0]
    for name in ("loss_g", "loss_d", "d_real", "d_fake"):
        mean = np.mean([record[name] for record in iterations[: first["step"]]])
        assert first[name] == pytest.approx(mean)
    assert all(record["images_per_second"] > 0 for record in epochs)


def test_tensorboard_holds_the_same_numbers(tiny_run: Path) -> None:
    iterations = events(tiny_run)
    for tag, name in (
        ("loss/generator", "loss_g"),
        ("loss/discriminator", "loss_d"),
        ("probability/real", "d_real"),
        ("probability/generated", "d_fake"),
    ):
        scalars = iterations.Scalars(tag)
        records = read_lines(tiny_run, "iteration")
        assert [event.step for event in scalars] == [record["step"] for record in records]
        expected = [record[name] for record in records]
        np.testing.assert_allclose([event.value for event in scalars], expected, rtol=1e-6)
    assert iterations.Scalars("speed/images_per_second")
    grids = iterations.Images("samples/seed_0")
    assert [event.step for event in grids] == sorted(grid_steps(STEPS))
    for event in grids:
        file = RunFolder(tiny_run).grid(event.step)
        assert event.encoded_image_string == file.read_bytes()
        with Image.open(file) as picture:
            assert (event.width, event.height) == picture.size
    tags = [tag for tag in iterations.Tags()["scalars"] if tag.startswith("mean/")]
    assert len(tags) == 5
    ends = [record["step"] for record in read_lines(tiny_run, "epoch")]
    for tag in tags:
        assert [event.step for event in iterations.Scalars(tag)] == ends
    scored = [record for record in read_lines(tiny_run, "epoch") if record["scores"]]
    events_of_fcd = iterations.Scalars("quality/fcd")
    assert [event.step for event in events_of_fcd] == [record["step"] for record in scored]
    expected = [record["scores"]["fcd"] for record in scored]
    np.testing.assert_allclose([event.value for event in events_of_fcd], expected, rtol=1e-6)


def test_tensorboard_has_short_tags_and_says_what_they_mean(tiny_run: Path) -> None:
    board = events(tiny_run)
    tags = board.Tags()["scalars"]
    for tag in tags:
        assert re.fullmatch(r"[a-z]+/[a-z0-9_]+", tag), tag
        assert len(tag) <= 30  # its cards cut longer ones
        assert board.SummaryMetadata(tag).summary_description.endswith("."), tag
    assert sorted(tags)[0] == "loss/discriminator"  # the order that TensorBoard shows
    described = board.SummaryMetadata("quality/coverage")
    assert "higher is better" in described.summary_description


def test_tensorboard_sorts_runs_by_their_settings(tiny_run: Path) -> None:
    iterations = events(tiny_run)
    contents = {
        tag.rpartition("/")[2]: HParamsPluginData.FromString(content)
        for tag, content in iterations.PluginTagToContent("hparams").items()
    }
    settings = contents["session_start_info"].session_start_info.hparams
    assert settings["dataset"].string_value == "digits"
    assert settings["batch-size"].number_value == 512
    assert settings["betas"].string_value == "0.0 0.99"
    assert contents["session_end_info"].session_end_info.status == STATUS_SUCCESS
    judged = {metric.name.tag for metric in contents["experiment"].experiment.metric_infos}
    assert "quality/fcd" in judged
    assert judged <= set(iterations.Tags()["scalars"])


def test_checkpoints_are_scored_as_often_as_asked(tiny_run: Path) -> None:
    epochs = read_lines(tiny_run, "epoch")
    steps = [record["step"] for record in epochs if record["scores"]]
    # Epochs end at 4, 8, 11, 15, … Scored are the first, the last, and those that pass a ten.
    assert steps == [4, 11, 22, 32, 43]
    scores = epochs[-1]["scores"]
    assert (scores["images"], scores["split"], scores["extractor"]) == (898, "train", "trained")
    assert len(scores["extractor_sha256"]) == 64
    assert scores["excess"] == (scores["fcd"] - scores["floor"]) / scores["trace"]


def test_the_best_is_shown_by_both_rules(
    tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    epochs = read_lines(tiny_run, "epoch")
    best = json.loads((tiny_run / "best.json").read_text())
    assert best["rule"] == "fcd"
    assert {key: best[key] for key in best["choices"]["fcd"]} == best["choices"]["fcd"]
    scored = [record for record in epochs if record["scores"]]
    assert best["score"] == min(record["scores"]["fcd"] for record in scored)
    g_loss = best["choices"]["g-loss"]
    assert g_loss["score"] == min(record["loss_g"] for record in epochs[1:])
    for rule, choice in best["choices"].items():
        assert load(tiny_run / choice["checkpoint"])["step"] == choice["step"]
        final = best["final"][rule]
        assert final["fcd"] != choice["score"]  # with noise that was not used for the choice
        assert final["images"] == 898
    assert best["nearest"]["generated"] > 1
    assert 1 < best["nearest"]["real"] < 100
    with Image.open(tiny_run / "nearest.png") as image:
        assert image.size == (8 * 10 + 2, 4 * 10 + 2)
    shutil.copytree(tiny_run, tmp_path / "run")
    assert main(["--resume", str(tmp_path / "run"), "--select", "g-loss"]) == 0
    output = capsys.readouterr().out
    for rule in ("fcd", "g-loss"):
        final = best["final"][rule]
        assert f"best by {rule}: epoch {best['choices'][rule]['epoch']}" in output
        assert f"FCD {final['fcd']:.3f}, excess FCD {final['excess']:.2%}" in output
    again = json.loads((tmp_path / "run" / "best.json").read_text())
    assert again["checkpoint"] == g_loss["checkpoint"]
    assert again["choices"] == best["choices"]


def test_grids_are_drawn_when_the_exercise_drew_them() -> None:
    every_10000 = [1000, *range(10_000, 187_501, 10_000), 187_000, 187_500]
    assert sorted(grid_steps(187_500)) == every_10000
    assert len(grid_steps(89_999)) == 11
    for total in (10, 43, 999, 18_750, 89_998 // 2):
        steps = sorted(grid_steps(total))
        assert len(steps) >= 10
        assert steps[-1] == total
        gaps = np.diff([0, *steps])
        assert gaps.max() - gaps.min() <= 1
    assert sorted(grid_steps(3)) == [1, 2, 3]
    assert grid_steps(500, (1000, 30, 7)) == {7, 30, 500}


def test_grids_are_at_the_iterations_that_are_asked_for(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    train(replace(TINY, grids=(2, 5, 90), iterations=7), folder.path)
    assert list(folder.grids_by_step()) == [2, 5, 7]
    assert main(["--resume", str(folder.path), "--iterations", "10", "--grids", "8"]) == 0
    assert list(folder.grids_by_step()) == [2, 5, 7, 8, 10]


def test_the_sampler_draws_the_sample_grid(tiny_run: Path, tmp_path: Path) -> None:
    from export.artifact_folder import export

    last = f"step-{STEPS:07d}"
    export(tiny_run / "checkpoints" / f"{last}.pt", tmp_path / "artifact")
    with Image.open(tiny_run / "samples" / f"{last}.png") as image:
        drawn = np.asarray(image).astype(int)
    sampled = grid(Sampler(tmp_path / "artifact", provider="cpu").sample(64, seed=0))
    assert np.abs(sampled - drawn).max() <= 1
    assert (sampled != drawn).mean() < 1e-3


def test_one_seed_gives_one_run(tiny_run: Path, tmp_path: Path) -> None:
    train(TINY, tmp_path / "same")
    assert_same_state(tiny_run, tmp_path / "same")
    for name in (p.name for p in (tiny_run / "samples").iterdir()):
        same = (tmp_path / "same" / "samples" / name).read_bytes()
        assert same == (tiny_run / "samples" / name).read_bytes()
    train(replace(TINY, seed=1), tmp_path / "other")
    losses = [read_lines(run, "iteration")[-1]["loss_g"] for run in (tiny_run, tmp_path / "other")]
    assert losses[0] != losses[1]


@pytest.mark.parametrize(
    "half", [replace(TINY, epochs=3), replace(TINY, iterations=20)], ids=["epoch", "mid-epoch"]
)
def test_a_resumed_run_is_as_if_it_had_never_stopped(
    half: TrainConfig, tiny_run: Path, tmp_path: Path
) -> None:
    run_dir = tmp_path / "run"
    train(half, run_dir)
    assert load(run_dir / "last.pt")["step"] < STEPS
    train(TINY, run_dir, resume=True)
    assert_same_state(tiny_run, run_dir)
    for kind in ("iteration", "epoch"):
        resumed, whole = read_lines(run_dir, kind), read_lines(tiny_run, kind)
        assert without_timing(resumed) == without_timing(whole)
    assert (run_dir / "best.json").read_bytes() == (tiny_run / "best.json").read_bytes()
    for tag in ("loss/generator", "mean/generator_loss"):
        resumed, whole = (events(run).Scalars(tag) for run in (run_dir, tiny_run))
        assert [(e.step, e.value) for e in resumed] == [(e.step, e.value) for e in whole]


def test_a_resume_goes_back_to_the_last_save(tiny_run: Path, tmp_path: Path) -> None:
    """A killed run repeats everything that it had written after last.pt."""
    run_dir = tmp_path / "run"
    train(replace(TINY, epochs=3), run_dir)
    saved = {name: (run_dir / name).read_bytes() for name in ("last.pt", "config.json")}
    train(replace(TINY, epochs=8), run_dir, resume=True)
    for name, content in saved.items():
        (run_dir / name).write_bytes(content)
    with (run_dir / "metrics.jsonl").open("a") as metrics:
        metrics.write('{"kind": "iter')  # cut short by the kill
    train(TINY, run_dir, resume=True)
    assert_same_state(tiny_run, run_dir)
    assert without_timing(read_lines(run_dir, "epoch")) == without_timing(
        read_lines(tiny_run, "epoch")
    )
    assert len(read_lines(run_dir, "iteration")) == STEPS


def test_a_finished_run_resumes_to_itself(
    tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_dir = tmp_path / "run"
    shutil.copytree(tiny_run, run_dir)
    assert main(["--resume", str(run_dir)]) == 0
    assert f"{STEPS} iterations done" in capsys.readouterr().out
    assert_same_state(tiny_run, run_dir)


def test_other_images_are_refused_on_resume(tiny_run: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    shutil.copytree(tiny_run, run_dir)
    other = replace(TINY, data=replace(TINY.data, image_size=9))
    with pytest.raises(CheckpointError, match="trained on other images"):
        train(other, run_dir, resume=True)


def test_a_folder_in_use_is_left_alone(tiny_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (tiny_run / "last.pt").stat().st_mtime_ns
    assert main(["--dataset", "digits", "--run-dir", str(tiny_run)]) == 1
    assert f"--resume {tiny_run}" in capsys.readouterr().err
    assert (tiny_run / "last.pt").stat().st_mtime_ns == before


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_cuda_without_a_gpu_is_an_error(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    arguments = ["--dataset", "digits", "--device", "cuda", "--run-dir", str(tmp_path / "run")]
    assert main(arguments) == 1
    assert "--device cpu" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.gpu
@pytest.mark.parametrize("engine", ["plain", "graph"])
def test_training_on_cuda_resumes_and_repeats(
    tmp_path: Path, engine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    config = replace(TINY, device="cuda", engine=engine, deterministic=True)
    train(config, tmp_path / "a")
    train(replace(config, epochs=5), tmp_path / "b")
    train(config, tmp_path / "b", resume=True)
    assert_same_state(tmp_path / "a", tmp_path / "b")


def test_progress_off_a_terminal_is_a_line_now_and_then(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with ProgressBar(step=0, total=1000) as bar:
        for step in range(1, 1001):
            bar.update(step, 1, 0.5, 0.25)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1  # only at the end; the next save would come after 30 seconds
    for part in ("epoch 1", "1000/1000", "loss_g 0.500", "loss_d 0.250", "it/s", "00:00 left"):
        assert part in lines[0]


def test_progress_comes_soon_and_then_seldom(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    with ProgressBar(step=0, total=100) as bar:
        for step in range(1, 41):
            now[0] = 2.0 * step
            bar.update(step, 1, 0.5, 0.25)
    shown = re.findall(
        r"iteration (\d+)/100, .*, 2.0 s/it, \d\d:\d\d left", capsys.readouterr().err
    )
    assert shown == ["2", "17", "32"]  # after 4 seconds, and 30 seconds later each


def test_scores_are_said_off_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with ProgressBar(step=0, total=100) as bar:
        for step in (10, 20):
            bar.begin_scoring()
            bar.end_scoring(step, SCORES)
    assert capsys.readouterr().err.splitlines() == [
        "scoring the first snapshot",
        "scores of iteration 10: FCD 1.500, excess FCD 0.50%, recall 0.800",
        "scores of iteration 20: FCD 1.500, excess FCD 0.50%, recall 0.800",
    ]


def test_progress_on_a_terminal_is_a_bar(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    with ProgressBar(step=10, total=20) as bar:
        bar.begin_scoring()
        bar.end_scoring(20, SCORES)
        bar.update(20, 2, 0.5, 0.25)
    shown = capsys.readouterr().err
    for part in (
        "scoring",
        "scores of iteration 20: FCD 1.500, excess FCD 0.50%",
        "epoch 2",
        "20/20",
        "loss_g 0.500",
        "loss_d 0.250",
        "it/s",
    ):
        assert part in shown


def test_a_run_says_what_it_does(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    run_dir, engine = tmp_path / "run", ["--engine", "auto"]
    with caplog.at_level(logging.INFO):
        assert main([*ARGUMENTS, *engine, "--iterations", "3", "--run-dir", str(run_dir)]) == 0
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == f"run folder: {run_dir}"
    assert any(line.startswith("scores of iteration 3: FCD ") for line in lines)
    said = caplog.text
    assert "data: digits, 1,797 images of 8×8 in grey, 10 classes" in said
    assert "device: " in said
    assert re.search(r"3 iterations take about \d\d:\d\d at .* it/s \(plain engine\)", said)
    assert "scoring the best snapshots on fresh images" in said


def test_the_checkpoint_of_the_lowest_loss_is_of_its_epoch(tmp_path: Path) -> None:
    """A snapshot is written when the run is saved, long after its epoch."""
    rising = replace(TINY, recipe=replace(TINY.recipe, lr=0.01), epochs=9, score_every=1000)
    train(rising, tmp_path / "run")
    choices = json.loads((tmp_path / "run/best.json").read_text())["choices"]
    choice = choices["g-loss"]
    assert choice["step"] == 8
    # Its epoch was not scored during the run. It is at the end, and competes by FCD.
    assert choices["fcd"]["why"].startswith("lowest FCD of 3 scored checkpoints")
    names = sorted(path.name for path in (tmp_path / "run/checkpoints").iterdir())
    assert names == ["step-0000004.pt", "step-0000008.pt", "step-0000032.pt"]
    train(replace(rising, iterations=8), tmp_path / "short")
    found, expected = (load(tmp_path / run / choice["checkpoint"]) for run in ("run", "short"))
    for part in ("generator", "ema"):
        assert all(torch.equal(found[part][name], t) for name, t in expected[part].items())
    assert found["scores"] == {"loss_g": choice["score"]}


def test_a_resume_has_the_threads_of_its_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The last bits of sums on a CPU depend on the number of threads."""
    seen: list[int] = []
    launch = Engine.launch

    def observed(self: Engine, count: int) -> Any:
        with self.setting():
            seen.append(torch.get_num_threads())
        return launch(self, count)

    monkeypatch.setattr(Engine, "launch", observed)
    usual = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        train(replace(TINY, iterations=10), tmp_path / "run")
        torch.set_num_threads(2)
        with caplog.at_level("INFO"):
            train(replace(TINY, iterations=20), tmp_path / "run", resume=True)
        assert set(seen) == {1}
        assert torch.get_num_threads() == 2
        monkeypatch.setattr("training.engine.machine.core_count", lambda: 0)
        train(replace(TINY, iterations=22), tmp_path / "run", resume=True)
        assert set(seen) == {1, 2}
    finally:
        torch.set_num_threads(usual)
    assert "continuing with 1 threads, as before" in caplog.text
    assert "the run had 1 threads and continues with 2, because there are 0 cores" in caplog.text


def test_a_stopped_run_names_its_best_snapshot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(self: Records, step: int, generator: Generator) -> None:
        if step > 8:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(Records, "samples", stop)
    with pytest.raises(Interrupted, match=r"exports the best so far, of iteration \d+ by fcd$"):
        train(TINY, tmp_path / "run")


@pytest.mark.parametrize("nearer", ["fcd", "g-loss"])
def test_a_better_choice_by_loss_is_said(
    nearer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def judge(*arguments: Any) -> Verdict:
        verdict = verdicts.judge(*arguments)
        scores = {
            rule: replace(found, fcd=1.0 if rule == nearer else 2.0)
            for rule, found in verdict.scores.items()
        }
        return replace(verdict, scores=scores)

    monkeypatch.setattr("training.train.judge", judge)
    assert main([*ARGUMENTS, "--iterations", "8", "--run-dir", str(tmp_path / "run")]) == 0
    said = "on these images the choice by g-loss is better" in capsys.readouterr().out
    assert said == (nearer == "g-loss")
