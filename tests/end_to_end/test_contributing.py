"""Follow the examples of CONTRIBUTING.md in a copy of the sources."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.comparing import events, read_lines
from tests.support.files import ROOT
from tests.support.runs import ARGUMENTS


def follow(diff: str, folder: Path) -> None:
    """Apply a diff whose hunks have no line numbers: each must fit in exactly one place."""
    for file, hunks in re.findall(r"^\+\+\+ (\S+)\n(.*?)(?=^\+\+\+ |\Z)", diff, re.M | re.S):
        path = folder / file
        for hunk in hunks.split("@@\n")[1:]:
            lines = hunk.splitlines(keepends=True)
            before = "".join(line[1:] for line in lines if line[0] != "+")
            after = "".join(line[1:] for line in lines if line[0] != "-")
            text = path.read_text("utf-8")
            assert text.count(before) == 1, (file, before)
            path.write_text(text.replace(before, after), "utf-8")


def python(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, *arguments], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_a_recipe_and_a_score_are_added_as_it_says(tmp_path: Path) -> None:
    for package in ("training", "inference", "export"):
        shutil.copytree(ROOT / package, tmp_path / package)
    text = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    diffs = re.findall(r"^```diff\n(.*?)^```", text, re.M | re.S)
    assert len(diffs) == 2
    for diff in diffs:
        follow(diff, tmp_path)
    command = ["-m", "training.run", *ARGUMENTS, "--recipe", "lsgan", "--iterations", "20"]
    output = python(tmp_path, *command, "--run-dir", "runs/try")
    run_dir = tmp_path / "runs" / "try"
    assert json.loads((run_dir / "config.json").read_text())["config"]["recipe"]["lr"] == 1e-4
    score = read_lines(run_dir, "epoch")[-1]["scores"]["mean_distance"]
    assert score > 0
    assert re.search(r"mean distance \d+\.\d{3}", output)
    assert events(run_dir).Scalars("quality/mean_distance")[-1].value == (pytest.approx(score))
    assert "squared distance between mean features" in (run_dir / "report.html").read_text("utf-8")
    table = python(tmp_path, "-m", "training.compare", "runs/try", "runs/try")
    assert "mean distance" in table
    target = ["runs/try/checkpoints/step-0000020.pt", *ARGUMENTS[2:4]]
    assert "mean_distance" in python(tmp_path, "-m", "export.score", *target)
