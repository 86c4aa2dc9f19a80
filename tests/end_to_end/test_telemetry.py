"""The commands open no connection, and write only the files that they are asked for."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

# Runs a command in this process, then lists what onnxruntime has left open.
CODE = """
import json, os, sys
{run}
files = []
for number in os.listdir("/proc/self/fd"):
    try:
        files.append(os.readlink("/proc/self/fd/" + number))
    except OSError:
        pass
odd = [path for path in files if path.startswith(("socket:", os.environ["HOME"]))]
with open(sys.argv[1], "w") as file:
    json.dump(odd, file)
"""
DRAW = "from inference.run import main; assert main(sys.argv[2:]) == 0"
EXPORT = "from export.run import main; assert main(sys.argv[2:]) == 0"
SERVE = """
import uvicorn
uvicorn.run = lambda app, **options: None
from examples.http_service.__main__ import main
assert main(sys.argv[2:]) == 0
"""
HOST = """
from inference import Sampler
Sampler(sys.argv[2], provider="cpu").sample(1)
assert "ORT_DISABLE_TELEMETRY" not in os.environ
"""


def left_behind(run: str, folder: Path, *arguments: object) -> tuple[list[Any], list[str]]:
    """The files that a process has open after a command, and the files below its HOME."""
    home = folder / "home"
    home.mkdir()
    environment = {k: v for k, v in os.environ.items() if k not in {"ORT_DISABLE_TELEMETRY"}}
    environment |= {"HOME": str(home), "XDG_CACHE_HOME": str(home / ".cache")}
    command = [sys.executable, "-c", CODE.format(run=run), folder / "open.json", *arguments]
    subprocess.run(list(map(str, command)), env=environment, check=True, capture_output=True)
    opened: list[Any] = json.loads((folder / "open.json").read_text())
    return opened, [str(path) for path in home.rglob("*") if path.is_file()]


def test_drawing_leaves_nothing_behind(tiny_artifact: Path, tmp_path: Path) -> None:
    output = tmp_path / "a.png"
    arguments = [tiny_artifact, "--provider", "cpu", "--output", output]
    assert left_behind(DRAW, tmp_path, *arguments) == ([], [])
    assert output.exists()


@pytest.mark.slow
def test_exporting_leaves_nothing_behind(tiny_run: Path, tmp_path: Path) -> None:
    arguments = [tiny_run, "--output", tmp_path / "artifact"]
    assert left_behind(EXPORT, tmp_path, *arguments) == ([], [])


def test_the_service_leaves_nothing_behind(tiny_artifact: Path, tmp_path: Path) -> None:
    pytest.importorskip("fastapi")
    assert left_behind(SERVE, tmp_path, tiny_artifact) == ([], [])


def test_a_host_decides_for_itself(tiny_artifact: Path, tmp_path: Path) -> None:
    left_behind(HOST, tmp_path, tiny_artifact)
