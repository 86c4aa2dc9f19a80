"""Options that make no sense, or need more than the machine has, give an error of one line."""

import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from inference import Sampler, save
from inference.run import main

IMAGES = np.zeros((2, 8, 8), np.uint8)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--walk", "4", "--fps", "0.001", "--output", "a.gif"], "fps must be 0.01 to 1000"),
        (["--walk", "4", "--fps", "nan", "--output", "a.webp"], "fps must be 0.01 to 1000"),
        (["--walk", "4", "--fps", "1e9", "--output", "a.gif"], "fps must be 0.01 to 1000"),
        (["--threads", "3000000000"], "threads must be 0 (all cores) to 1,024, got 3000000000"),
        (["-n", str(2**63 - 1), "--output", "a.png"], "too many for one picture"),
        (["-n", "5_000_000", "--scale", "9", "--output", "a.png"], "too many for one picture"),
        (["--scale", "1000000", "--output", "a.png"], "64 images of 8,000,000×8,000,000 pixels"),
        (["--walk", "1000000", "--output", "a.gif"], "too many for one animation"),
        (
            ["--walk", "2", "--steps", "100000000", "--output", "a.gif"],
            "too many for one animation",
        ),
        (["--walk", "2", "--scale", "5000", "--output", "a.webp"], "too many for one animation"),
        (["-n", str(10**15), "--output", "a.npy"], "images need 64,000,000.0 GB, and "),
        (["-n", str(10**15), "--output", "a.npz"], " GB left"),
        (["--output", ""], "got an empty name"),
    ],
)
def test_an_odd_option_is_a_usage_error_of_one_line(
    options: list[str], message: str, tiny_artifact: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as exit_info:
        main([str(tiny_artifact), "--provider", "cpu", *options])
    assert exit_info.value.code == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert "error: " in last
    assert message in last
    assert list(tmp_path.iterdir()) == []


def test_images_of_classes_are_counted_before_they_are_drawn(
    conditional_artifact: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "a.png"
    with pytest.raises(SystemExit):
        main([str(conditional_artifact), "--per-class", "-n", str(10**12), "--output", str(output)])
    assert "too many for one picture" in capsys.readouterr().err


def test_a_folder_with_other_files_is_left_alone(
    tiny_artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    (tmp_path / "letter.txt").write_text("dear")
    draw = [str(tiny_artifact), "--provider", "cpu", "-n", "2", "--output", "."]
    assert main(draw) == 1
    assert (
        "holds other files (letter.txt): name an empty or a new folder" in capsys.readouterr().err
    )
    assert len(list(tmp_path.iterdir())) == 1
    assert main([*draw, "--force"]) == 0
    assert len(list(tmp_path.iterdir())) == 3
    save(IMAGES, tmp_path / "new")
    save(IMAGES, tmp_path / "new", start=2)  # its own pictures do not count as other files
    assert len(list((tmp_path / "new").iterdir())) == 4


def test_a_disk_that_cannot_hold_the_images_is_named_with_what_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = SimpleNamespace(free=127)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(ValueError, match=r"^2 images need 0\.0 GB, and .* has 0\.0 GB left"):
        save(IMAGES, tmp_path / "a.npy")
    usage.free = 128
    save(IMAGES, tmp_path / "a.npy")
    with pytest.raises(ValueError, match=r"GB left"):
        save(IMAGES, tmp_path / "a.npz")  # the archive is made from a second file beside it


def test_a_closed_stdout_is_an_error_of_one_line(tiny_artifact: Path) -> None:
    code = "import sys; from inference.run import main; sys.stdout = None; sys.exit(main())"
    arguments = [str(tiny_artifact), "--provider", "cpu", "--output", "-"]
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stderr == "error: stdout is closed, and nothing can be written to it\n"


def test_a_sampler_refuses_threads_that_no_machine_has(tiny_artifact: Path) -> None:
    with pytest.raises(ValueError, match="threads must be 0"):
        Sampler(tiny_artifact, provider="cpu", threads=10**6)
