"""`python -m inference.run`."""

import io
import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from inference import ProviderError, Sampler, __version__, run
from inference.command.long_job import Progress
from inference.run import main
from inference.writing.pictures import grid
from tests.support.files import ROOT


def test_it_draws_the_images_of_the_sampler(
    tiny_artifact: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "samples.png"
    options = ["-n", "7", "--seed", "5", "--start", "3", "--output", str(output)]
    assert main([str(tiny_artifact), *options]) == 0
    assert capsys.readouterr().out == f"{output}: images 3 to 9 of seed 5\n"
    with Image.open(output) as image:
        expected = grid(Sampler(tiny_artifact).sample(7, seed=5, start=3))
        np.testing.assert_array_equal(np.asarray(image), expected)


def test_the_newest_artifact_is_the_default(
    tiny_artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "a").mkdir(parents=True)
    (tmp_path / "runs" / "a" / "artifact").symlink_to(tiny_artifact)
    assert main([]) == 0
    assert (tmp_path / "samples.png").exists()


def test_without_a_run_the_artifacts_of_the_checkout_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([]) == 1
    assert capsys.readouterr().err.endswith("`python -m export.run` makes one\n")
    (tmp_path / "artifacts" / "mnist").mkdir(parents=True)
    assert main([]) == 1
    assert capsys.readouterr().err.endswith("makes one; try artifacts/mnist\n")


@pytest.mark.parametrize(
    "arguments",
    [["-n", "0"], ["--seed", "-1"], ["--start", "-1"], ["--output", "a.tif"], ["--provider", "x"],
     ["--threads", "-1"], ["--nonsense"], ["-n", "x"], ["--walk", "1"], ["--steps", "0"],
     ["--walk", "3", "--output", "a.npy"], ["--captions", "--output", "a.npy"],
     ["--captions", "--walk", "3"], ["--json"], ["--scale", "0"],
     ["--walk", "3", "--fps", "0"]],
)  # fmt: skip
def test_bad_usage_exits_with_2(
    tiny_artifact: Path, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit_info:
        main([str(tiny_artifact), *arguments])
    assert exit_info.value.code == 2
    assert "error: " in capsys.readouterr().err


def test_failures_exit_with_1(
    tiny_artifact: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([]) == 1
    assert "python -m export.run" in capsys.readouterr().err
    assert main(["nowhere"]) == 1
    (tmp_path / "file").touch()
    assert main([str(tiny_artifact), "--output", "file/samples.png"]) == 1
    assert "file" in capsys.readouterr().err.splitlines()[-1]


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_info:
        main(["--version"])
    assert exit_info.value.code == 0
    assert capsys.readouterr().out == f"{__version__}\n"


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "inference.run", *map(str, arguments)]


@pytest.mark.parametrize("name", ["a.npy", "a.npz"])
def test_arrays(tiny_artifact: Path, tmp_path: Path, name: str) -> None:
    options = ["-n", "2500", "--seed", "5", "--start", "3", "--output", str(tmp_path / name)]
    assert main([str(tiny_artifact), *options]) == 0
    expected = Sampler(tiny_artifact, provider="cpu").sample(2500, seed=5, start=3)
    loaded = np.load(tmp_path / name)
    np.testing.assert_array_equal(loaded if name == "a.npy" else loaded["images"], expected)


def test_a_folder_can_be_continued(
    tiny_artifact: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    there = [str(tiny_artifact), "--output", str(tmp_path / "folder")]
    assert main([*there, "-n", "3"]) == 0
    assert main([*there, "-n", "5"]) == 1
    assert "0 to 2" in capsys.readouterr().err
    assert main([*there, "--start", "3", "-n", "2"]) == 0
    expected = Sampler(tiny_artifact, provider="cpu").sample(5)
    for i, path in enumerate(sorted((tmp_path / "folder").iterdir())):
        assert path.name == f"{i:010d}.png"
        with Image.open(path) as image:
            np.testing.assert_array_equal(np.asarray(image), expected[i])


def test_a_pipe_gets_bytes_alone(tiny_artifact: Path) -> None:
    arguments = command(tiny_artifact, "-n", 1500, "--output", "-")
    done = subprocess.run(arguments, check=True, capture_output=True, cwd=ROOT, timeout=60)
    assert done.stdout == Sampler(tiny_artifact, provider="cpu").sample(1500).tobytes()


def test_a_pipe_that_nobody_reads_ends_it_quietly(tiny_artifact: Path) -> None:
    arguments = command(tiny_artifact, "-n", 10**9, "--output", "-", "--provider", "cpu")
    with subprocess.Popen(
        arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.read(1000)
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(30) == 1


@pytest.mark.parametrize("suffix", ["gif", "webp", "png"])
def test_a_walk_is_a_smooth_loop_through_images_of_the_seed(
    tiny_artifact: Path, tmp_path: Path, suffix: str
) -> None:
    output = tmp_path / f"walk.{suffix}"
    options = ["--walk", "3", "--steps", "5", "--seed", "2", "--start", "4", "--scale", "2"]
    assert main([str(tiny_artifact), *options, "--fps", "10", "--output", str(output)]) == 0
    sampler = Sampler(tiny_artifact, provider="cpu")
    images = sampler.sample(3, seed=2, start=4)
    z = sampler.latents(3, seed=2, start=4)
    with Image.open(output) as file:
        animation: Any = file
        assert animation.n_frames == 15
        assert animation.info["loop"] == 0
        frames = []
        for i in range(15):
            animation.seek(i)
            frames.append(np.asarray(animation.convert("L"))[::2, ::2])
    for i in range(3):
        np.testing.assert_array_equal(frames[5 * i], images[i])
    # Equal steps from each image to the next, and from the last to the first.
    for i in range(3):
        leg = sampler.decode(sampler.interpolate(z[i], z[(i + 1) % 3], 6))
        np.testing.assert_array_equal(frames[5 * i : 5 * i + 5], leg[:5])


def test_a_gif_is_a_walk_and_captions_go_on_grids(tiny_artifact: Path, tmp_path: Path) -> None:
    assert main([str(tiny_artifact), "--steps", "2", "--output", str(tmp_path / "a.gif")]) == 0
    with Image.open(tmp_path / "a.gif") as animation:
        assert getattr(animation, "n_frames") == 16  # noqa: B009
    options = ["-n", "4", "--seed", "12", "--start", "7", "--captions"]
    assert main([str(tiny_artifact), *options, "--output", str(tmp_path / "a.png")]) == 0
    images = Sampler(tiny_artifact, provider="cpu").sample(4, seed=12, start=7)
    expected = grid(images, captions=["12/7", "12/8", "12/9", "12/10"])
    with Image.open(tmp_path / "a.png") as picture:
        np.testing.assert_array_equal(np.asarray(picture), expected)


@pytest.mark.parametrize("name", ["a.png", "a.gif", "a.npy"])
def test_what_is_there_is_written_over_by_force_alone(
    tiny_artifact: Path, tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / name).write_bytes(b"mine")
    there = [str(tiny_artifact), "--output", str(tmp_path / name)]
    assert main(there) == 1
    assert "--force" in capsys.readouterr().err
    assert (tmp_path / name).read_bytes() == b"mine"
    assert main([*there, "--force"]) == 0
    assert (tmp_path / name).read_bytes() != b"mine"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("name", ["a.npy", "folder"])
def test_a_long_job_that_is_stopped_leaves_whole_files_and_can_go_on(
    tiny_artifact: Path, tmp_path: Path, name: str, number: signal.Signals
) -> None:
    arguments = command(tiny_artifact, "-n", 10**7, "--output", tmp_path / name)
    process = subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True, cwd=ROOT)
    end = time.monotonic() + 30
    begun = ("folder/*.png", ".a.npy.*.tmp")
    while not any(p.stat().st_size for pattern in begun for p in tmp_path.glob(pattern)):
        assert time.monotonic() < end
        time.sleep(0.02)
    process.send_signal(number)  # in the middle of a batch
    _, text = process.communicate(timeout=30)
    assert process.returncode == 128 + number
    words = text.split()
    start, rest = (int(words[words.index(name) + 1]) for name in ("--start", "--count"))
    assert start + rest == 10**7
    assert [path.name for path in tmp_path.iterdir()] == [name]
    expected = Sampler(tiny_artifact, provider="cpu").sample(start)
    if name == "a.npy":
        np.testing.assert_array_equal(np.load(tmp_path / name), expected)
    else:
        files = sorted((tmp_path / name).iterdir())
        assert len(files) == start
        for path in (files[0], files[-1]):
            with Image.open(path) as image:
                np.testing.assert_array_equal(np.asarray(image), expected[int(path.stem)])


def test_progress_is_shown_of_long_jobs_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    terminal, log = io.StringIO(), io.StringIO()
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    shown = [Progress(1000, terminal), Progress(1000, log)]
    for seconds in (1, 4, 4.2, 5, 20, 40):
        now[0] = 100.0 + seconds
        for progress in shown:
            progress.show(int(20 * seconds))
    for progress in shown:
        progress.end()
    lines = terminal.getvalue().split("\r")
    assert [line.split(" of")[0] for line in lines] == ["", "80", "100", "400", "800"]
    assert log.getvalue() == (
        "80 of 1,000 images, 20/s, 46 s left\n800 of 1,000 images, 20/s, 10 s left\n"
    )


def test_the_doctor_tells_the_truth(
    tiny_artifact: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(tiny_artifact), "--doctor", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["ganpack"] == __version__
    assert report["numpy"] == np.__version__
    assert report["artifact"]["provider"] == Sampler(tiny_artifact).provider
    assert report["artifact"]["golden_images"].startswith("passed")
    assert (report["cuda"]["problem"] is None) == (report["artifact"]["provider"] != "cpu")
    assert main([str(tiny_artifact), "--doctor", "--provider", "cpu"]) == 0
    text = capsys.readouterr().out
    assert "provider: cpu" in text
    assert "onnxruntime:" in text


def test_the_doctor_needs_no_artifact_and_fails_with_the_one_it_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["--doctor"]) == 0
    assert "none found" in capsys.readouterr().out
    assert main(["nowhere", "--doctor"]) == 1


def test_a_provider_that_cannot_be_had_is_a_failure(
    tiny_artifact: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: object, **__: object) -> Sampler:
        raise ProviderError("no NVIDIA driver")

    monkeypatch.setattr(run, "Sampler", refuse)
    assert main([str(tiny_artifact), "--provider", "cuda"]) == 1
    assert "no NVIDIA driver" in capsys.readouterr().err
    assert main([str(tiny_artifact), "--provider", "cuda", "--doctor"]) == 1
