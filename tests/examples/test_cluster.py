"""Jobs and sweeps on Ray continue after a kill, without loss and with the same result.

Only `make test-all` installs Ray.
"""

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import tracemalloc
from collections.abc import Iterator
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from examples.cluster import bulk, sweep
from examples.cluster.shards import (
    ManifestError,
    Order,
    Shard,
    draw,
    file_sha256,
    open_manifest,
    read_manifest,
)
from inference import Sampler
from tests.support.comparing import assert_same_run
from tests.support.files import ROOT
from tests.support.runs import ARGUMENTS
from tests.support.waiting import wait_for
from training.run import parse
from training.train import train

needs_ray = pytest.mark.skipif(
    find_spec("ray") is None, reason="Ray is not installed: pip install -e '.[cluster]'"
)
ORDER = Order("a" * 64, seed=7, start=100, count=1000, shard_size=300)

# Enough images that a process can be killed within a shard.
MANY = ["--count", "1_900_000", "--shard-size", "200_000", "--seed", "7", "--start", "100"]
SWEEP = ["--grid", "seed=0,3", *ARGUMENTS, "--iterations", "60", "--score-every", "30"]


def sha256_of(images: np.ndarray, folder: Path) -> str:
    """The sha256 of the file that numpy writes for the images."""
    np.save(folder / "reference.npy", images)
    return hashlib.sha256((folder / "reference.npy").read_bytes()).hexdigest()


def listed(folder: Path) -> dict[str, str]:
    """The ranges in the manifest; none if there is no manifest yet."""
    try:
        return read_manifest(folder).sha256
    except ManifestError:
        return {}


def test_a_shard_is_the_array_of_its_images_in_bounded_memory(
    tiny_artifact: Path, tmp_path: Path
) -> None:
    artifact = (tiny_artifact / "generator.onnx").read_bytes()
    draw(artifact, "cpu", tmp_path, 7, Shard(0, 2000))  # what is made once
    tracemalloc.start()
    sha256 = draw(artifact, "cpu", tmp_path, 7, Shard(2**40, 50_000))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    images = Sampler(tiny_artifact, provider="cpu").sample(50_000, seed=7, start=2**40)
    assert sha256 == sha256_of(images, tmp_path)
    assert file_sha256(tmp_path / f"{2**40}.npy") == sha256
    assert peak < images.nbytes / 2
    assert not list(tmp_path.glob(".*"))


def test_shards_cover_each_image_once() -> None:
    shards = list(ORDER.shards())
    assert [i for s in shards for i in range(s.start, s.start + s.count)] == list(range(100, 1100))
    assert [s.file for s in shards][:2] == ["0000000100.npy", "0000000400.npy"]
    assert shards[-1].count == 100


def test_a_manifest_says_what_is_there_and_is_of_one_order(tmp_path: Path) -> None:
    manifest = open_manifest(tmp_path / "new", ORDER)
    manifest.sha256["0000000400.npy"] = "b" * 64
    manifest.write(at_once=True)
    content = json.loads((tmp_path / "new" / "manifest.json").read_text())
    assert content == {
        "artifact_sha256": "a" * 64, "seed": 7, "start": 100, "count": 1000, "shard_size": 300,
        "shards": [{"file": "0000000400.npy", "start": 400, "count": 300, "sha256": "b" * 64}],
    }  # fmt: skip
    assert open_manifest(tmp_path / "new", ORDER).sha256 == manifest.sha256
    for other, what in (
        (Order("c" * 64, 7, 100, 1000, 300), "artifact_sha256 aaa"),
        (Order("a" * 64, 8, 100, 1000, 300), "seed 7 -> 8"),
        (Order("a" * 64, 7, 100, 2000, 300), "count 1000 -> 2000"),
    ):
        with pytest.raises(ManifestError, match=what):
            open_manifest(tmp_path / "new", other)
    with pytest.raises(ManifestError, match=r"holds files, and no manifest\.json"):
        open_manifest(tmp_path, ORDER)


@pytest.mark.parametrize(
    ("damaged", "message"),
    [
        ("{", "JSONDecodeError"),
        ("[]", "TypeError"),
        ('{"shards": []}', "missing 5 required"),
        ("[" * 10**6, "RecursionError"),
        ('{"count": ' + "9" * 10**5 + "}", "ValueError"),
        ({"shard_size": 200}, "is no shard of its order"),
        ({"count": 2**62, "shard_size": 1}, "more than 1,000,000 files"),
        ({"count": 2**63}, "start [+] count"),
        ({"count": 0}, "at least 1"),
        ({"shard_size": 1.5}, "must be a whole number, got 1.5"),
        ({"seed": True}, "must be a whole number, got True"),
        ({"seed": -1}, "seed"),
        ({"artifact_sha256": 7}, "must be a text"),
        ({"shards": [{"file": "x" * 10**5, "start": 400, "count": 300, "sha256": ""}]}, "no shard"),
        ({"shards": [{"file": "0000000401.npy", "start": 401, "count": 300}]}, "no shard"),
        ({"shards": [{"file": "0000001300.npy", "start": 1300, "count": 300}]}, "no shard"),
    ],
)
def test_a_manifest_that_cannot_be_is_refused(
    damaged: str | dict[str, Any], message: str, tmp_path: Path
) -> None:
    listed = {"file": "0000000400.npy", "start": 400, "count": 300, "sha256": "b" * 64}
    content = {**asdict(ORDER), "shards": [listed]}
    text = damaged if isinstance(damaged, str) else json.dumps(content | damaged)
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(ManifestError, match=f"damaged .*{message}") as refusal:
        open_manifest(tmp_path, ORDER)
    assert len(str(refusal.value)) < 1500


@pytest.mark.parametrize("kind", ["folder", "pipe", "link to /dev/zero"])
def test_what_is_no_plain_file_is_refused_and_not_read(
    kind: str, tiny_artifact: Path, tmp_path: Path
) -> None:
    def put(path: Path) -> None:
        if kind == "folder":
            path.mkdir()
        elif kind == "pipe":
            os.mkfifo(path)
        else:
            path.symlink_to("/dev/zero")

    what = "it is a folder" if kind == "folder" else "it is no plain file"
    put(tmp_path / "manifest.json")
    with pytest.raises(ManifestError, match=what):
        open_manifest(tmp_path, ORDER)
    artifact = (tiny_artifact / "generator.onnx").read_bytes()
    put(tmp_path / "0000000100.npy")
    with pytest.raises(OSError, match=what):
        file_sha256(tmp_path / "0000000100.npy")
    with pytest.raises(OSError, match=what):
        draw(artifact, "cpu", tmp_path, 7, Shard(100, 9))
    put(tmp_path / "sweep.json")
    arguments = [*SWEEP, "--output", str(tmp_path)]
    assert sweep.main(arguments) == 1


def test_without_ray_both_say_how_to_get_it(
    tiny_artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setitem(sys.modules, "ray", None)
    output = ["--output", str(tmp_path / "new")]
    assert bulk.main([str(tiny_artifact), "--count", "9", *output]) == 1
    assert "pip install -e '.[cluster]'" in capsys.readouterr().err
    assert bulk.main(["nowhere", "--count", "9", *output]) == 1
    assert "nowhere" in capsys.readouterr().err
    assert sweep.main([*SWEEP, "--output", str(tmp_path / "sweep")]) == 1
    assert "pip install -e '.[cluster]'" in capsys.readouterr().err
    # The folder now belongs to a sweep.
    other = ["--grid", "seed=0,4", *SWEEP[2:], "--output", str(tmp_path / "sweep")]
    assert sweep.main(other) == 1
    assert "holds a sweep of other settings" in capsys.readouterr().err
    assert sweep.main([*SWEEP, "--output", str(tmp_path)]) == 1
    assert "is not empty" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (["--grid", "seed"], "NAME=VALUE"),
        (["--grid", "seed=1,1"], "different values"),
        (["--run-dir", "runs/x"], "no --run-dir"),
        (["--grid", "lr=-1"], "--lr must be positive"),
    ],
)
def test_a_sweep_that_cannot_be_is_bad_usage(
    changed: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        sweep.main([*SWEEP, *changed, "--output", str(tmp_path / "sweep")])
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "sweep").exists()


@pytest.fixture(scope="module")
def reference(golden_artifact: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """sha256 of each shard of `MANY` by its file name, generated without Ray."""
    folder = tmp_path_factory.mktemp("reference")
    with Sampler(golden_artifact, provider="cpu") as sampler:
        return {
            shard.file: sha256_of(sampler.sample(shard.count, seed=7, start=shard.start), folder)
            for shard in Order("", 7, 100, 1_900_000, 200_000).shards()
        }


@pytest.fixture(scope="module")
def two_workers() -> Iterator[None]:
    """Ray, started by this process, for all commands."""
    import ray

    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


def begun(folder: Path, module: str, *arguments: str) -> subprocess.Popen[bytes]:
    """Start a command in a new process group."""
    command = [sys.executable, "-m", module, *arguments, "--output", str(folder)]
    return subprocess.Popen([*command, "--workers", "2"], cwd=ROOT)


def drawer(folder: Path) -> int | None:
    """A process that is writing a shard now."""
    for path in folder.glob(".*.npy.*.tmp"):
        found = re.fullmatch(r"\.\d+\.npy\.(\d+)\.tmp", path.name)
        if found and path.stat().st_size > 100_000:
            return int(found[1])
    return None


@needs_ray
@pytest.mark.full
@pytest.mark.filterwarnings("ignore")
@pytest.mark.usefixtures("two_workers")
def test_a_worker_is_killed_and_nothing_is_lost(
    golden_artifact: Path, reference: dict[str, str], tmp_path: Path
) -> None:
    folder, killed = tmp_path / "images", []

    def caught() -> bool:
        """Kill a worker in the middle of a shard; returns whether that succeeded."""
        worker = drawer(folder) if len(listed(folder)) >= 2 else None
        if worker is not None:
            os.kill(worker, signal.SIGKILL)
            killed.append(worker)
        return worker is not None

    killer = threading.Thread(target=wait_for, args=(caught, 200))
    killer.start()
    assert bulk.main([str(golden_artifact), *MANY, "--output", str(folder)]) == 0
    killer.join()
    assert len(killed) == 1
    assert listed(folder) == reference
    assert {path.name: file_sha256(path) for path in folder.glob("*.npy")} == reference
    assert not list(folder.glob(".*"))


@needs_ray
@pytest.mark.full
@pytest.mark.filterwarnings("ignore")
def test_a_killed_command_goes_on_exactly(
    golden_artifact: Path, reference: dict[str, str], tmp_path: Path,
    capsys: pytest.CaptureFixture[str], request: pytest.FixtureRequest,
) -> None:  # fmt: skip
    folder = tmp_path / "images"
    command = [str(golden_artifact), *MANY, "--output", str(folder)]
    driver = begun(folder, "examples.cluster.bulk", str(golden_artifact), *MANY)
    wait_for(lambda: len(listed(folder)) >= 3, 200)
    driver.kill()
    driver.wait()
    there = sorted(listed(folder))
    assert 3 <= len(there) < len(reference)
    kept = {name: (folder / name).stat().st_mtime_ns for name in there[2:]}
    (folder / there[0]).unlink()
    with (folder / there[1]).open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"\x80")
    request.getfixturevalue("two_workers")
    assert bulk.main([*command, "--verify"]) == 1
    wrong = capsys.readouterr().out
    assert f"{there[0]}: missing" in wrong
    assert f"{there[1]}: damaged" in wrong
    assert bulk.main(command) == 0
    assert f"{len(kept)} were there" in capsys.readouterr().out
    assert {name: (folder / name).stat().st_mtime_ns for name in kept} == kept
    assert {path.name: file_sha256(path) for path in folder.glob("*.npy")} == reference
    assert bulk.main([*command, "--verify"]) == 0


@needs_ray
@pytest.mark.full
@pytest.mark.filterwarnings("ignore")
def test_a_killed_sweep_goes_on_and_ends_with_the_best_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], request: pytest.FixtureRequest
) -> None:
    folder = tmp_path / "sweep"
    driver = begun(folder, "examples.cluster.sweep", *SWEEP)
    runs = [folder / "seed=0", folder / "seed=3"]
    wait_for(lambda: any((run / "last.pt").exists() for run in runs), 200)
    driver.kill()
    driver.wait()
    assert not all((run / "report.html").exists() for run in runs)
    request.getfixturevalue("two_workers")
    capsys.readouterr()
    assert sweep.main([*SWEEP, "--output", str(folder)]) == 0
    output = capsys.readouterr().out
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as in Ray's workers: other numbers of threads round differently
    try:
        for run in runs:
            undisturbed = tmp_path / run.name
            settings = [f"--{run.name.replace('=', ' ')}".split()[0], run.name.partition("=")[2]]
            train(parse([*SWEEP[2:], *settings]).config, undisturbed)
            assert_same_run(run, undisturbed)
    finally:
        torch.set_num_threads(threads)
    final = [json.loads((run / "best.json").read_text())["final"]["fcd"] for run in runs]
    excess = [scores["excess"] for scores in final]
    best = excess.index(min(excess))
    (line,) = re.findall(r"  excess FCD .*", output)
    assert line.split()[2:][best] == f"{excess[best]:.2%}*"
    assert line.count("*") == 1
    assert f"best: {runs[best]} " in output
    assert (folder / "compare.html").exists()
