"""Runs continue after they were killed, stopped, damaged or locked."""

import json
import os
import random
import shutil
import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from inference.writing.files import atomic_write, sweep
from tests.support import processes
from tests.support.comparing import (
    assert_same_run,
    assert_same_state,
    read_lines,
    without_timing,
)
from tests.support.runs import ARGUMENTS, TINY
from tests.support.waiting import wait_for
from training.config import TrainConfig
from training.run import main, parse
from training.run_folder.folder import RunFolder, RunFolderError, locked
from training.run_folder.resume import Saves
from training.run_folder.sealed_file import CheckpointError, load
from training.train import train
from training.training_loop import Pace

LENGTH = ["--iterations", "80", "--score-every", "40"]
LONG = replace(TINY, iterations=80, score_every=40)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run of `LONG`. Do not write to it."""
    run_dir = tmp_path_factory.mktemp("runs") / "undisturbed"
    train(LONG, run_dir)
    return run_dir


def begun(run_dir: Path) -> list[str]:
    """The command that resumes a run, or starts it if there is none."""
    if (run_dir / "config.json").exists():
        return ["--resume", str(run_dir)]
    return [*ARGUMENTS, *LENGTH, "--run-dir", str(run_dir)]


def kill_and_resume(folder: Path, undisturbed: Path, kills: int, seed: int) -> dict[str, int]:
    """Kill runs of `LONG` at random moments, `kills` times, and finish the last run.

    Returns how many kills met each of two stages.
    """
    moments, met = random.Random(seed), {"before the run began": 0, "in the run": 0}
    done, number = 0, 0
    processes.start(time.sleep, 0).join()  # the time of the imports does not count
    started = time.monotonic()
    processes.start(processes.run, folder / "timing", begun(folder / "timing"), 0.1).join()
    whole = time.monotonic() - started
    while done < kills:
        run_dir, number = folder / f"run-{number}", number + 1
        finished = False
        while not finished:
            process = processes.start(processes.run, run_dir, begun(run_dir), 0.1)
            # Often during start-up, and sometimes late enough that the run makes progress.
            process.join(moments.uniform(0, 0.7 * whole) if done < kills else None)
            finished = process.exitcode is not None
            if not finished:
                process.kill()
                process.join()
                done += 1
                met["in the run" if (run_dir / "last.pt").exists() else "before the run began"] += 1
            elif process.exitcode != 0:
                pytest.fail(run_dir.with_suffix(".log").read_text())
        assert_same_run(run_dir, undisturbed)
    return met | {"runs": number, "milliseconds a run": int(1000 * whole)}


@pytest.mark.slow
def test_a_run_that_is_killed_is_as_if_it_had_not_been(undisturbed: Path, tmp_path: Path) -> None:
    met = kill_and_resume(tmp_path, undisturbed, kills=5, seed=0)
    print(met)
    assert met["in the run"] > 0


@pytest.mark.torture
def test_a_hundred_kills(undisturbed: Path, tmp_path: Path) -> None:
    met = kill_and_resume(tmp_path, undisturbed, kills=100, seed=time.time_ns())
    print(met)
    assert met["in the run"] > 30


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["SIGINT", "SIGTERM"]
)
def test_a_signal_ends_a_run_in_order(
    number: signal.Signals, code: int, undisturbed: Path, tmp_path: Path
) -> None:
    run_dir = tmp_path / "run"
    process = processes.start(processes.run, run_dir, begun(run_dir), 1e9)
    metrics = run_dir / "metrics.jsonl"
    wait_for(metrics.exists)
    assert process.pid is not None
    os.kill(process.pid, number)
    process.join(60)
    assert process.exitcode == code
    step = load(run_dir / "last.pt")["step"]
    assert step < 80
    said = run_dir.with_suffix(".log").read_text()
    assert f"stopped by {number.name}, saved at iteration {step}" in said
    assert f"--resume {run_dir}" in said
    assert main(["--resume", str(run_dir)]) == 0
    assert_same_run(run_dir, undisturbed)


def test_a_second_signal_ends_a_run_at_once(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    process = processes.start(processes.run_slowly, run_dir, begun(run_dir), 0.0)
    wait_for(run_dir.with_suffix(".slow").exists)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGTERM)
    process.join(0.3)
    assert process.exitcode is None  # the run finishes its step
    os.kill(process.pid, signal.SIGTERM)
    process.join(10)
    assert process.exitcode == -signal.SIGTERM  # a shell shows 143
    assert load(run_dir / "last.pt")["step"] > 20


@pytest.mark.slow
def test_a_compiled_run_resumes_exactly(tmp_path: Path) -> None:
    config = replace(TINY, engine="compiled", iterations=30)
    train(config, tmp_path / "whole")
    train(replace(config, iterations=17), tmp_path / "halves")
    assert json.loads((tmp_path / "halves" / "config.json").read_text())["config"]["engine"] == (
        "compiled"
    )
    assert main(["--resume", str(tmp_path / "halves"), "--iterations", "30"]) == 0
    assert_same_state(tmp_path / "halves", tmp_path / "whole")
    found, expected = (read_lines(tmp_path / name, "iteration") for name in ("halves", "whole"))
    assert found == expected


@pytest.mark.parametrize("place", ["before the first step", "after the last"])
def test_a_signal_before_or_after_the_steps_ends_at_once(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    name = "reference_for" if place == "before the first step" else "judge"

    def interrupted(*arguments: Any, **options: Any) -> Any:
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(f"training.train.{name}", interrupted)
    arguments = [*ARGUMENTS, "--epochs", "1", "--run-dir", str(tmp_path / "run")]
    assert main(arguments) == 130
    assert "stopped by SIGINT" in capsys.readouterr().err
    assert (tmp_path / "run" / "last.pt").exists() == (place == "after the last")


def test_a_run_is_saved_within_an_epoch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved = []
    write = Saves.write

    def observed(self: Any, state: Any, *arguments: Any, **options: Any) -> None:
        saved.append(state.step)
        write(self, state, *arguments, **options)

    monkeypatch.setattr(Saves, "write", observed)
    after_each_step = Pace(look_seconds=0.0, save_seconds=0.0)
    train(replace(TINY, epochs=4), tmp_path / "run", pace=after_each_step)
    assert saved == [0, *range(2, 16)]  # the run first looks at signals at the grid of step 2


def two_saves(run_dir: Path) -> None:
    train(replace(TINY, epochs=3), run_dir)
    train(replace(TINY, epochs=8), run_dir, resume=True)
    assert load(run_dir / "previous.pt")["step"] < load(run_dir / "last.pt")["step"]


@pytest.mark.parametrize("damage", ["missing", "cut short", "one bit"])
def test_previous_serves_where_last_is_of_no_use(
    damage: str, tiny_run: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run_dir = tmp_path / "run"
    two_saves(run_dir)
    last = run_dir / "last.pt"
    content = bytearray(last.read_bytes())
    content[len(content) // 3] ^= 1
    if damage == "missing":
        last.unlink()
    else:
        last.write_bytes(content[: len(content) // 2] if damage == "cut short" else content)
        damaged = last.read_bytes()
    train(TINY, run_dir, resume=True)
    assert_same_state(tiny_run, run_dir)
    assert without_timing(read_lines(run_dir, "epoch")) == without_timing(
        read_lines(tiny_run, "epoch")
    )
    assert "continuing from" in caplog.text
    assert "previous.pt" in caplog.text
    if damage != "missing":
        assert "last.pt cannot be read, it is damaged" in caplog.text
        assert (run_dir / "last.pt.damaged").read_bytes() == damaged


@pytest.mark.parametrize("reason", ["damaged", "missing"])
def test_without_a_save_a_run_does_not_begin_again(reason: str, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    two_saves(run_dir)
    for name in ("last.pt", "previous.pt"):
        (run_dir / name).unlink()
        if reason == "damaged":
            (run_dir / name).write_bytes(b"")
    lines = (run_dir / "metrics.jsonl").read_bytes()
    with pytest.raises(CheckpointError, match=f"are {reason}: its snapshots"):
        train(TINY, run_dir, resume=True)
    assert (run_dir / "metrics.jsonl").read_bytes() == lines


def test_every_damaged_byte_is_noticed(tiny_run: Path, tmp_path: Path) -> None:
    content = (tiny_run / "last.pt").read_bytes()
    file = tmp_path / "last.pt"
    for place in [*random.Random(0).sample(range(len(content)), 50), len(content) - 1]:
        damaged = bytearray(content)
        damaged[place] ^= 1
        file.write_bytes(damaged)
        with pytest.raises(CheckpointError, match=r"last\.pt cannot be read, it is damaged"):
            load(file)
    # PyTorch does not check this itself.
    weights = load(tiny_run / "last.pt")["tensors"]["generator.layers.0.weight"]
    damaged = bytearray(content)
    damaged[content.index(weights.numpy().tobytes())] ^= 1
    file.write_bytes(damaged)
    assert torch.load(file, weights_only=True)["step"] == 43


def test_temporary_files_of_a_killed_run_are_swept(tiny_run: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    shutil.copytree(tiny_run, run_dir)
    stale = [run_dir / ".last.pt.123.tmp", run_dir / "checkpoints" / ".step-0000004.pt.99.tmp"]
    others = [run_dir / ".notes.tmp", run_dir / "notes.tmp"]
    for path in stale + others:
        path.touch()
    train(TINY, run_dir, resume=True)
    assert [path.exists() for path in stale + others] == [False, False, True, True]


def test_what_others_may_be_writing_is_left_for_a_while(tmp_path: Path) -> None:
    for name, age in (("old", 7200), ("new", 0)):
        file = tmp_path / f".{name}.1.tmp"
        file.touch()
        os.utime(file, (time.time() - age,) * 2)
    sweep(tmp_path, seconds=3600)
    assert [path.name for path in tmp_path.iterdir()] == [".new.1.tmp"]


def test_a_file_keeps_the_one_before_it(tmp_path: Path) -> None:
    file, before = tmp_path / "file", tmp_path / "before"
    for content in (b"1", b"2", b"3"):
        with atomic_write(file, keep_as=before) as new:
            new.write(content)
    with pytest.raises(OSError, match="full"), atomic_write(file, keep_as=before) as new:
        raise OSError("full")
    assert (file.read_bytes(), before.read_bytes()) == (b"3", b"2")


def test_two_processes_cannot_write_to_one_folder(
    tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_dir = tmp_path / "run"
    shutil.copytree(tiny_run, run_dir)
    holder = processes.start(processes.hold, run_dir)
    wait_for(run_dir.with_suffix(".held").exists)
    before = {path: path.read_bytes() for path in run_dir.rglob("*") if path.is_file()}
    assert main(["--resume", str(run_dir)]) == 1
    error = capsys.readouterr().err
    assert f"being written by another process (process {holder.pid} on " in error
    assert {path: path.read_bytes() for path in run_dir.rglob("*") if path.is_file()} == before
    holder.kill()
    holder.join()
    assert main(["--resume", str(run_dir)]) == 0


def test_one_process_cannot_lock_twice(tmp_path: Path) -> None:
    with (
        locked(RunFolder(tmp_path / "run")),
        pytest.raises(RunFolderError),
        locked(RunFolder(tmp_path / "run")),
    ):
        pass
    with locked(RunFolder(tmp_path / "run")):
        pass


def test_a_folder_in_use_is_left_alone(tiny_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (tiny_run / "last.pt").stat().st_mtime_ns
    assert main(["--dataset", "digits", "--run-dir", str(tiny_run)]) == 1
    assert f"--resume {tiny_run}" in capsys.readouterr().err
    assert (tiny_run / "last.pt").stat().st_mtime_ns == before


def test_latest_is_the_run_that_was_saved_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit):
        parse(["--resume", "latest"])
    assert "no run under runs/" in capsys.readouterr().err
    for seed in (1, 2, 3):
        train(replace(TINY, epochs=1, seed=seed), Path("runs") / str(seed))
    os.utime(Path("runs") / "2" / "last.pt", (time.time() + 60,) * 2)
    command = parse(["--resume", "latest", "--epochs", "2"])
    assert command.resume == Path("runs") / "2"
    assert command.config == replace(TINY, epochs=2, seed=2)


def test_what_is_overridden_may_change(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    train(replace(TINY, epochs=3), run_dir)
    arguments = ["--resume", str(run_dir), "--epochs", "4", "--lr", "0.1", "--seed", "7"]
    assert main([*arguments, "--override", "lr", "seed"]) == 0
    config = json.loads((run_dir / "config.json").read_text())["config"]
    assert (config["recipe"]["lr"], config["seed"]) == (0.1, 7)
    assert [record["epoch"] for record in read_lines(run_dir, "epoch")] == [1, 2, 3, 4]
    train(replace(TINY, epochs=4), tmp_path / "other")
    ways = (
        load(run / "last.pt")["tensors"]["ema.layers.0.weight"]
        for run in (run_dir, tmp_path / "other")
    )
    assert not torch.equal(*ways)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--lr", "1"], "--lr 0.0002 -> 1.0 (--override lr allows it"),
        (["--lr", "1", "--seed", "4", "--override", "lr"], "differ: --seed 0 -> 4"),
        (["--engine", "compiled"], "--engine plain -> compiled"),
        (["--override", "nonsense"], "there is no setting nonsense"),
        (["--batch-size", "9", "--override", "batch-size"], "a resumed run cannot change it"),
    ],
)
def test_other_settings_are_refused_unless_named(
    arguments: list[str], complaint: str, tiny_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit_info:
        parse(["--resume", str(tiny_run), *arguments])
    assert exit_info.value.code == 2
    error = capsys.readouterr().err
    assert complaint in error
    assert error.count("\n") == 1


def test_a_run_of_another_device_goes_on_only_if_told_to(tiny_run: Path, tmp_path: Path) -> None:
    from training.run_folder.sealed_file import save

    run_dir = tmp_path / "run"
    shutil.copytree(tiny_run, run_dir)
    content = load(run_dir / "last.pt")
    save(
        content | {"device": "cuda", "noise": torch.zeros(16, dtype=torch.uint8)},
        run_dir / "last.pt",
    )
    longer: TrainConfig = replace(TINY, epochs=13)
    with pytest.raises(
        CheckpointError, match="trained on cuda, this is cpu: add --override device"
    ):
        train(longer, run_dir, resume=True)
    assert train(longer, run_dir, resume=True, override=frozenset({"device"})).step == 46
