"""A typed program that embeds the sampler runs, and type checkers accept it."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

import inference
from tests.support.files import ROOT

HOST = ROOT / "examples" / "typed_host.py"
PYRIGHT = shutil.which("basedpyright") or shutil.which("pyright")


def test_it_runs(tiny_artifact: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "examples.typed_host", str(tiny_artifact), str(tmp_path)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT)
    assert done.stdout == "100\n"
    with Image.open(tmp_path / "walk.gif") as walk:
        assert getattr(walk, "n_frames") == 9  # noqa: B009
    command[-2] = "nowhere"
    done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 1
    assert done.stderr.startswith("nowhere: ")


def test_it_names_all_that_is_public() -> None:
    text = HOST.read_text("utf-8")
    assert [name for name in inference.__all__ if name not in text] == ["__version__"]
    methods = {name for name in vars(inference.Sampler) if not name.startswith("_")}
    assert {name for name in methods if f".{name}(" not in text} == {
        "close"
    }  # `with` closes the sampler
    assert (ROOT / "inference" / "py.typed").exists()


def faulty(folder: Path) -> Path:
    """The program with a seed of the wrong type."""
    path = folder / "faulty.py"
    text = HOST.read_text("utf-8")
    assert "seed=visitor, start" in text
    path.write_text(text.replace("seed=visitor, start", 'seed="visitor", start'), "utf-8")
    return path


@pytest.mark.slow
def test_mypy_finds_no_fault_but_one_that_is_made(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(tmp_path / "cache")]
    for path, code in ((HOST, 0), (faulty(tmp_path), 1)):
        done = subprocess.run(
            [*command, str(path)], check=False, capture_output=True, text=True, cwd=ROOT
        )
        assert done.returncode == code, done.stdout
    assert 'No overload variant of "sample" of "Sampler" matches argument types' in done.stdout


@pytest.mark.skipif(PYRIGHT is None, reason="neither pyright nor basedpyright is installed")
def test_pyright_finds_no_fault_but_one_that_is_made(tmp_path: Path) -> None:
    assert PYRIGHT is not None
    for path, code in ((HOST, 0), (faulty(tmp_path), 1)):
        config = {
            "include": [str(path)], "typeCheckingMode": "strict", "extraPaths": [str(ROOT)]
        }  # fmt: skip
        (tmp_path / "pyrightconfig.json").write_text(json.dumps(config), "utf-8")
        command = [PYRIGHT, "-p", str(tmp_path), "--pythonpath", sys.executable]
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        assert done.returncode == code, done.stdout
    assert '"seed"' in done.stdout
