"""Several processes train one run with the result of one process, and end together."""

import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import replace
from itertools import pairwise
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.support import processes
from tests.support.comparing import assert_same_state, read_lines
from tests.support.engines import R3GAN, tiny
from tests.support.files import ROOT
from tests.support.runs import ARGUMENTS, TINY
from tests.support.waiting import wait_for
from training.engine.distributed import Ranks
from training.engine.engine import Engine
from training.interruption import TrainingError
from training.run import main
from training.run_folder.sealed_file import CheckpointError, load
from training.train import train

# One hidden layer, because the generator's first layer has no BatchNorm. float32, so that rounding
# stays small.
EXACT = replace(
    TINY, network=replace(TINY.network, generator_dims=(32,)), matmul_precision="highest"
)
EXACT_ARGUMENTS = [
    *ARGUMENTS[: ARGUMENTS.index("--generator-dims")],
    *("--generator-dims", "32", "--matmul-precision", "highest"),
    *ARGUMENTS[ARGUMENTS.index("--discriminator-dims") :],
    *("--score-every", "1000"),
]
GPUS = torch.cuda.device_count()


def ended(ranks: list[BaseProcess], seconds: float = 60) -> list[int | None]:
    """Wait for processes to end by themselves; their exit codes."""
    deadline = time.monotonic() + seconds
    for process in ranks:
        process.join(max(0.0, deadline - time.monotonic()))
    codes = [process.exitcode for process in ranks]
    for process in ranks:
        process.kill()
    return codes


def train_on_two(run_dir: Path, iterations: int, *arguments: str) -> None:
    command = ["--resume", str(run_dir)] if run_dir.exists() else new(run_dir)
    command += ["--iterations", str(iterations), *arguments]
    assert ended(processes.start_ranks(processes.run, run_dir, command, 1e9)) == [0, 0]


def new(run_dir: Path) -> list[str]:
    return [*EXACT_ARGUMENTS, "--run-dir", str(run_dir)]


def log_of(run_dir: Path) -> str:
    return run_dir.with_suffix(".log").read_text()


def assert_close(
    found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor], but: str = "nothing"
) -> None:
    assert found.keys() == expected.keys()
    for name in {name for name in expected if not name.startswith(but)}:
        torch.testing.assert_close(found[name], expected[name], rtol=1e-3, atol=1e-5, msg=name)


def test_the_ranks_share_a_batch_out() -> None:
    batch, weight = torch.arange(12).view(6, 2), torch.ones(())
    shares = [Ranks(rank, 3).rows(batch, weight, 0.5, None) for rank in range(3)]
    assert torch.equal(torch.cat([rows for rows, *_ in shares]), batch)
    assert all(len(rows) == 2 for rows, *_ in shares)
    assert all(others == [weight, 0.5, None] for _, *others in shares)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("engine", "broken", "expected"),
    [("plain", None, "plain"), ("compiled", None, "compiled"), ("compiled", 1, "plain")],
)
def test_ranks_hold_the_same_weights_after_every_step(
    engine: Any, broken: int | None, expected: str, tmp_path: Path
) -> None:
    config = replace(TINY, recipe=R3GAN, engine=engine)
    ranks = processes.start_ranks(processes.take_steps, tmp_path, config, 12, broken)
    assert ended(ranks) == [0, 0]
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2))
    assert first["engine"] == second["engine"] == expected
    for one, other in zip(first["steps"], second["steps"], strict=True):
        differ = {name for name in one if not torch.equal(one[name], other[name])}
        # These differ between ranks, like noise. The average's are recomputed when it is used.
        assert differ == {"generator.layers.3.running_mean", "generator.layers.3.running_var"}
        assert one["generator.layers.3.weight.exp_avg"].any()
    weights = [step["generator.layers.0.weight"] for step in first["steps"]]
    assert not any(torch.equal(*pair) for pair in pairwise(weights))


@pytest.mark.parametrize("recipe", [TINY.recipe, replace(R3GAN, batch_size=512)])
def test_without_batch_norm_two_ranks_are_one_process(recipe: Any, tmp_path: Path) -> None:
    config = replace(EXACT, recipe=recipe)
    assert ended(processes.start_ranks(processes.take_steps, tmp_path, config, 12, None)) == [0, 0]
    found = torch.load(tmp_path / "0.pt", weights_only=True)["steps"]
    state, batches, _ = tiny(config)
    engine = Engine(state, batches, config)
    # Pairs of logits cancel the last bias, so its gradients are only rounding.
    but = "discriminator.layers.5.bias" if recipe.recipe == "r3gan" else "nothing"
    for step in found:
        losses = torch.from_numpy(engine.run(1))
        assert_close(step, state.tensors() | {"losses": losses}, but)


@pytest.mark.slow
def test_a_run_goes_on_with_another_number_of_ranks(tmp_path: Path) -> None:
    one, two, one_two, two_one, two_two = (
        tmp_path / name for name in ("1", "2", "1-2", "2-1", "2-2")
    )
    assert main([*new(one), "--iterations", "20"]) == 0
    shutil.copytree(one, one_two)
    train_on_two(two, 20)
    shutil.copytree(two, two_one)
    shutil.copytree(two, two_two)
    for run_dir in (one, two_one):
        assert main(["--resume", str(run_dir), "--iterations", "40"]) == 0
    for run_dir in (one_two, two_two):
        train_on_two(run_dir, 40)
    shutil.rmtree(two)
    train_on_two(two, 40)
    assert_same_state(two_two, two)
    whole = load(one / "last.pt")["tensors"]
    for run_dir in (two, one_two, two_one):
        assert_close(load(run_dir / "last.pt")["tensors"], whole)
        lines = read_lines(run_dir, "iteration")
        assert [line["step"] for line in lines] == list(range(1, 41))


def test_what_rank_0_refuses_ends_all(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "mine").touch()
    ranks = processes.start_ranks(processes.run, tmp_path / "run", new(tmp_path / "run"), 1e9)
    assert ended(ranks) == [1, 0]
    error = log_of(tmp_path / "run")
    assert error.count("error:") == 1
    assert "is not empty" in error


@pytest.mark.parametrize(("batch_size", "count"), [(512, 3), (4, 4)])
def test_a_batch_that_cannot_be_shared_out_is_refused(
    batch_size: int, count: int, tmp_path: Path
) -> None:
    config = replace(TINY, recipe=replace(TINY.recipe, batch_size=batch_size))
    with pytest.raises(TrainingError, match=f"use a multiple of {count}, at least {2 * count}"):
        train(config, tmp_path / "run", ranks=Ranks(0, count))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("signalled", [0, 1])
def test_a_signal_to_one_rank_ends_all_in_order(signalled: int, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    command = [*new(run_dir), "--iterations", "1000000"]
    ranks = processes.start_ranks(processes.run, run_dir, command, 1e9)
    wait_for((run_dir / "metrics.jsonl").exists)
    os.kill(ranks[signalled].pid or 0, signal.SIGTERM)
    assert ended(ranks) == [143, 0]
    step = load(run_dir / "last.pt")["step"]
    assert log_of(run_dir).count(f"stopped by SIGTERM, saved at iteration {step}") == 1


def saved_step(run_dir: Path) -> int:
    """The step of the newest save. last.pt may be missing while it becomes previous.pt."""
    for name in ("last.pt", "previous.pt"):
        with suppress(CheckpointError):
            return int(load(run_dir / name)["step"])
    return 0


@pytest.mark.parametrize("lost", [0, 1])
def test_a_lost_rank_ends_the_run_with_what_was_saved(lost: int, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    command = [*new(run_dir), "--iterations", "1000000"]
    ranks = processes.start_ranks(processes.run, run_dir, command, 0.0)
    wait_for(lambda: saved_step(run_dir) > 10)
    ranks[lost].kill()
    codes = ended(ranks, seconds=20)
    assert codes[lost] == -signal.SIGKILL
    assert codes[1 - lost] == 1
    error = log_of(run_dir).splitlines()[-1]
    assert "error: another process of this run has ended, or cannot be reached" in error
    step = saved_step(run_dir)
    if lost == 1:
        assert f"iteration {step} is saved: continue with --resume" in error
    assert main(["--resume", str(run_dir), "--iterations", str(step + 5)]) == 0
    assert [line["step"] for line in read_lines(run_dir, "iteration")] == list(range(1, step + 6))


def test_what_goes_wrong_on_one_rank_takes_all_back(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    command = [*new(run_dir), "--iterations", "20"]
    assert ended(processes.start_ranks(processes.run_with_nan, run_dir, command, 0.0)) == [0, 0]
    content = load(run_dir / "last.pt")
    assert content["step"] == 20
    (evidence,) = content["history"]["divergences"]
    assert "iteration 9: loss_g nan" in evidence
    assert all(np.isfinite(line["loss_g"]) for line in read_lines(run_dir, "iteration"))


@pytest.mark.slow
def test_torchrun_trains_one_run(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    # Seldom, a thread of gloo aborts while Python cleans up. Here, each process would.
    aborting = "import atexit, os\nif 'RANK' in os.environ:\n    atexit.register(os.abort)\n"
    (tmp_path / "sitecustomize.py").write_text(aborting)
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*torchrun, "-m", "training.run", *new(run_dir), "--iterations", "20"]
    done = subprocess.run(
        [sys.executable, *command],
        cwd=ROOT,
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("20 iterations done") == 1
    assert done.stderr.count("2 processes, 256 images of each batch to each") == 1
    assert load(run_dir / "last.pt")["step"] == 20
    assert (run_dir / "report.html").exists()


@pytest.mark.gpu
@pytest.mark.skipif(GPUS < 2, reason="fewer than two GPUs")
@pytest.mark.parametrize("engine", ["plain", "graph", "compiled"])
def test_two_gpus_are_one(engine: str, tmp_path: Path) -> None:
    one, two = tmp_path / "1", tmp_path / "2"
    on_gpu = ("--device", "cuda", "--engine", engine)
    assert main([*new(one), "--iterations", "40", *on_gpu]) == 0
    train_on_two(two, 40, *on_gpu)
    found, expected = (
        [[line[name] for name in ("loss_g", "loss_d")] for line in read_lines(run, "iteration")]
        for run in (two, one)
    )
    np.testing.assert_allclose(found, expected, rtol=1e-2, atol=1e-3)
