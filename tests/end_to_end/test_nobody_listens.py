"""Commands do their work whether or not anybody reads what they print."""

import importlib
import io
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

import numpy as np
import pytest

from inference import Sampler
from tests.support.files import ROOT
from tests.support.runs import ARGUMENTS
from training.run_folder.sealed_file import load

# Nothing is closed, one of them, or all; a full disk; and a pipe whose reader has gone.
PLACES = ("", "2>&-", ">&-", "<&- >&- 2>&-", ">/dev/full 2>&1", "2>&1 | true")


@pytest.fixture(params=["a pipe without a reader", "a full disk"])
def deaf(request: pytest.FixtureRequest) -> Iterator[TextIO]:
    """A file that cannot be written."""
    if request.param == "a full disk":
        number = os.open("/dev/full", os.O_WRONLY)
    else:
        reader, number = os.pipe()
        os.close(reader)
    with os.fdopen(number, "w", encoding="utf-8", buffering=1) as file:
        yield file


def listen_at(file: TextIO, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdout", file)
    monkeypatch.setattr("sys.stderr", file)


def drawing(options: list[str], place: str, folder: Path) -> "subprocess.CompletedProcess[str]":
    """`python -m inference.run`, with its output in one of the places; prints the exit code."""
    words = " ".join([sys.executable, "-m", "inference.run", "--provider", "cpu", *options])
    script = f"( {words}; echo $? > {folder / 'code'} ) {place}"
    return subprocess.run(
        ["sh", "-c", script], capture_output=True, text=True, check=True, cwd=ROOT
    )


@pytest.mark.parametrize("place", PLACES)
def test_drawing_needs_no_listener(place: str, tiny_artifact: Path, tmp_path: Path) -> None:
    output = tmp_path / "a.npy"
    done = drawing([str(tiny_artifact), "-n", "3", "--output", str(output)], place, tmp_path)
    assert (tmp_path / "code").read_text() == "0\n", done.stderr
    np.testing.assert_array_equal(np.load(output), Sampler(tiny_artifact).sample(3))
    assert "Exception" not in done.stderr
    assert "Error" not in done.stderr


@pytest.mark.parametrize(
    ("options", "place", "code", "words"),
    [
        (["--check"], ">&- 2>&-", 0, ""),
        (["--check"], ">/dev/full", 0, ""),
        (["--info"], "2>&-", 0, ""),
        (["--info"], ">/dev/full", 1, "error: stdout cannot be written: No space left on device\n"),
        (["--info"], ">&-", 1, "error: stdout cannot be written: it is closed\n"),
        (
            ["--output", "-"],
            ">&-",
            1,
            "error: stdout is closed, and nothing can be written to it\n",
        ),
        (["--output", "-"], ">/dev/full", 1, "error: [Errno 28] No space left on device\n"),
        (["--fps", "x"], "2>&-", 2, ""),
        (["--help"], ">/dev/full", 0, ""),
    ],
)
def test_the_exit_code_is_that_of_the_work(
    options: list[str], place: str, code: int, words: str, tiny_artifact: Path, tmp_path: Path
) -> None:
    """If the result goes to stdout, printing it is the work of the command."""
    done = drawing([str(tiny_artifact), *options], place, tmp_path)
    assert (tmp_path / "code").read_text() == f"{code}\n"
    assert done.stderr == words


def test_training_needs_no_listener(
    deaf: TextIO, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from training import run

    listen_at(deaf, monkeypatch)
    arguments = [*ARGUMENTS, "--iterations", "5", "--run-dir", str(tmp_path / "run")]
    assert run.main(arguments) == 0
    assert load(tmp_path / "run" / "last.pt")["step"] == 5
    assert (tmp_path / "run" / "report.html").exists()
    with pytest.raises(SystemExit) as exit_info:
        run.main([*arguments, "--no-such-option"])
    assert exit_info.value.code == 2


def test_reports_need_no_listener(
    deaf: TextIO, tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from training import compare

    listen_at(deaf, monkeypatch)
    page = tmp_path / "compare.html"
    assert compare.main([str(tiny_run), str(tiny_run), "--output", str(page)]) == 0
    assert page.exists()


@pytest.mark.parametrize(
    "module",
    ["training.run", "training.report", "training.compare", "export.run", "export.score",
     "inference.run"],
)  # fmt: skip
@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_help_can_be_read_in_any_encoding(
    module: str, encoding: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    stdout = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    monkeypatch.setattr("sys.stdout", stdout)
    with pytest.raises(SystemExit) as exit_info:
        importlib.import_module(module).main(["--help"])
    assert exit_info.value.code == 0
    assert isinstance(stdout.buffer, io.BytesIO)
    text = stdout.buffer.getvalue().decode(encoding)
    assert "--output" in text or "--dataset" in text
    assert "\\u" not in text
    assert stdout.errors == "strict"  # as it was


def test_names_that_cannot_be_encoded_are_printed(
    tiny_artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from inference.run import main

    stdout = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    monkeypatch.setattr("sys.stdout", stdout)
    output = os.fsdecode(os.fsencode(tmp_path) + b"/\xff.png")
    assert main([str(tiny_artifact), "--provider", "cpu", "--output", output]) == 0
    assert os.path.exists(output)  # noqa: PTH110 - as it was given
    assert isinstance(stdout.buffer, io.BytesIO)
    assert rb"/\udcff.png: images 0 to 63" in stdout.buffer.getvalue()
