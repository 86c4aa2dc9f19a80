"""Options that make no sense, or need more than the machine has, give an error of one line."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from inference import Sampler, save
from inference.run import main
from inference.writing import files, room
from tests.support.files import ROOT

IMAGES = np.zeros((2, 8, 8), np.uint8)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--walk", "4", "--fps", "0.001", "--output", "a.gif"], "fps must be 0.01 to 1000"),
        (["--walk", "4", "--fps", "nan", "--output", "a.webp"], "fps must be 0.01 to 1000"),
        (["--walk", "4", "--fps", "1e9", "--output", "a.gif"], "fps must be 0.01 to 1000"),
        (["--threads", "3000000000"], "--threads 3000000000: this machine has "),
        (["--threads", str((os.cpu_count() or 1) + 1)], " cores; 0 takes all"),
        (["--threads", "-1"], "threads must be 0 (all cores) to 1,024, got -1"),
        (["-n", str(10**12), "--output", "folder"], "1,000,000,000,000 files need "),
        (["-n", str(10**15), "--output", "new/a.npy"], "images need 64,000,000.0 GB, and "),
        (["-n", str(10**12), "--captions", "--output", "a.png"], "too many for one picture"),
        (["-n", "1", "--output", "a.gif"], "walks between at least 2 images, got -n 1"),
        (["-n", "0", "--output", "a.gif"], "walks between at least 2 images, got -n 0"),
        (["-n", "4", "--walk", "4", "--output", "a.gif"], "--walk N is the number of images, so"),
        (["-n", "4", "--walk", "5", "--output", "a.png"], "--walk N is the number of images, so"),
        (["--per-class", "--output", ""], "got an empty name"),
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


@pytest.mark.parametrize("options", [["-n", "100"], ["--walk", "9"]])
def test_what_the_memory_cannot_hold_is_refused_with_its_size(
    options: list[str], tiny_artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setattr(room, "free_memory", lambda: 1_000)
    with pytest.raises(SystemExit) as stopped:
        main([str(tiny_artifact), *options, "--output", str(tmp_path / "new" / "a.png")])
    assert stopped.value.code == 2
    assert "GB of memory, and 0.0 GB are free" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.gif", "a.webp", "a.npy", "a.npz", "folder"])
def test_missing_folders_are_made(name: str, tiny_artifact: Path, tmp_path: Path) -> None:
    output = tmp_path / "new" / "place" / name
    assert main([str(tiny_artifact), "-n", "3", "--output", str(output)]) == 0
    assert output.exists()
    save(IMAGES, tmp_path / "saved" / name)
    assert (tmp_path / "saved" / name).exists()


def test_the_count_is_that_of_the_walk(
    tiny_artifact: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "a.gif"
    assert main([str(tiny_artifact), "-n", "3", "--steps", "5", "--output", str(output)]) == 0
    assert f"{output}: 15 frames through images 0 to 2 of seed 0" in capsys.readouterr().out


def test_a_grid_is_written_as_jpeg(
    tiny_artifact: Path, conditional_artifact: Path, tmp_path: Path
) -> None:
    output = tmp_path / "a.JPG"
    draw = ["-n", "9", "--scale", "8", "--output", str(output)]
    assert main([str(tiny_artifact), *draw, "--captions"]) == 0
    with Image.open(output) as picture:
        assert picture.format == "JPEG"
    assert main([str(conditional_artifact), *draw, "--per-class", "--force"]) == 0
    images = Sampler(conditional_artifact, provider="cpu").sample(9, label=0)
    with Image.open(output) as picture:
        found = np.asarray(picture).astype(int)[2:66, 2:66]
    assert np.abs(found - images[0].repeat(8, 0).repeat(8, 1)).mean() < 3
    with pytest.raises(ValueError, match="at most 65,535 pixels a side"):
        save(np.zeros((1, 1, 70_000), np.uint8), tmp_path / "wide.jpg")


KILLED = """
import os, signal, sys
from pathlib import Path
from inference.writing.outputs import writer_for
from inference.writing.writer import Job
import numpy as np
writers = [writer_for(Path(name), Job(10, (8, 8))) for name in sys.argv[1:]]
for writer in writers:
    writer.__enter__()
    writer.write(np.zeros((5, 8, 8), np.uint8))
(Path(sys.argv[1]).parent / "folder").mkdir()
(Path(sys.argv[1]).parent / "folder" / f".0000000001.png.{os.getpid()}.tmp").write_text("")
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_job_left_is_removed_by_the_next(tiny_artifact: Path, tmp_path: Path) -> None:
    outputs = [tmp_path / "a.npy", tmp_path / "b.npz"]
    subprocess.run([sys.executable, "-c", KILLED, *map(str, outputs)], cwd=ROOT, check=False)
    (left,) = tmp_path.glob(".*")
    assert left.name.startswith(".a.npy.")
    other = tmp_path / left.name.replace(".a.", ".c.")
    other.write_text("another output's")
    alive = tmp_path / f".a.npy.{os.getpid()}.tmp"
    alive.write_text("of a writer that lives")
    locked = tmp_path / ".a.npy.99999999.tmp"
    with files.atomic_write(tmp_path / "x") as file:
        Path(file.name).rename(locked)  # of a writer on another machine
        for output in (tmp_path / "a.npz", *outputs, tmp_path / "folder"):
            if output.name == "a.npy":
                alive.unlink()  # this process writes there
            assert main([str(tiny_artifact), "-n", "3", "--output", str(output)]) == 0
        assert set(tmp_path.glob(".*")) == {other, locked}
        locked.rename(file.name)
    assert len(list((tmp_path / "folder").iterdir())) == 3


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
