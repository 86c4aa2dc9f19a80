"""Each example of docs/sampler.md runs, in order, and the page has all public names."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import inference
from inference import Sampler
from tests.support.files import ROOT

PAGE = (ROOT / "docs" / "sampler.md").read_text("utf-8")


def examples(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture
def folder(tiny_artifact: Path, conditional_artifact: Path, tmp_path: Path) -> Path:
    (tmp_path / "artifact").symlink_to(tiny_artifact)
    (tmp_path / "with-classes").symlink_to(conditional_artifact)
    return tmp_path


def test_the_examples_in_python_run(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    codes = examples("python")
    assert len(codes) == 10
    names: dict[str, object] = {}
    for code in codes:
        exec(compile(code, "docs/sampler.md", "exec"), names)
    files = {"grid.png", "frames.gif", "images.npy", "images.npz", "folder"}
    assert files <= {path.name for path in folder.iterdir()}


def test_the_commands_run(folder: Path) -> None:
    lines = [line for block in examples("sh") for line in block.splitlines()]
    assert len(lines) == 13
    for line in lines:
        command = line.replace("ganpack ", f"{sys.executable} -m ganpack ", 1)
        subprocess.run(
            ["bash", "-euo", "pipefail", "-c", command],
            check=True, cwd=folder, env=os.environ | {"PYTHONPATH": str(ROOT)}, timeout=60,
        )  # fmt: skip
    assert len(list((folder / "images").iterdir())) == 200
    assert {"samples.png", "images.npy", "walk.gif"} <= {path.name for path in folder.iterdir()}


def test_the_page_names_all_there_is() -> None:
    public = [name for name in dir(Sampler) if not name.startswith("_")] + inference.__all__
    missing = [name for name in public if name not in PAGE]
    assert set(missing) <= {
        "__version__",
        "Metadata",
        "close",
    }  # the page shows `with` and `.metadata`
    options = re.findall(
        r"--[a-z0-9]+", (ROOT / "inference" / "command" / "options.py").read_text("utf-8")
    )
    assert {"--walk", "--doctor", "--json", "--force", "--captions", "--label"} <= set(options)
