"""The notebook runs from its first cell to its last, on the embedded data set."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.files import ROOT

NOTEBOOK = ROOT / "notebooks" / "colab.ipynb"

EXECUTE = """
import sys, nbformat
from nbclient import NotebookClient
notebook = nbformat.read(sys.argv[1], 4)
NotebookClient(notebook, timeout=900, resources={"metadata": {"path": sys.argv[2]}}).execute()
nbformat.write(notebook, sys.argv[3])
"""


def outputs(notebook: Path) -> str:
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    return json.dumps([cell.get("outputs") for cell in cells])


@pytest.mark.full
def test_the_notebook_runs_in_a_fresh_folder_and_environment(tmp_path: Path) -> None:
    """As a person opens it: it clones the project, installs the packages, trains and draws."""
    python = tmp_path / "environment" / "bin" / "python"
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "environment"], check=True)
    install = ["-m", "pip", "--disable-pip-version-check", "install", "-q"]
    subprocess.run([python, *install, "nbclient", "nbformat", "ipykernel"], check=True)
    executed, place = tmp_path / "executed.ipynb", tmp_path / "place"
    place.mkdir()
    settings = {
        "NOTEBOOK_REPOSITORY": str(ROOT),
        "NOTEBOOK_DATASET": "digits",
        "NOTEBOOK_ITERATIONS": "200",
        "PYTHONPATH": "",
    }
    subprocess.run(
        [python, "-c", EXECUTE, NOTEBOOK, place, executed],
        env=os.environ | settings,
        check=True,
        timeout=1500,
    )
    assert "(64, 28, 28) uint8 on cpu" in outputs(executed) or "on cuda" in outputs(executed)
    assert (place / "ganpack/runs/notebook-digits/artifact/generator.onnx").exists()


def test_its_kept_outputs_are_small_and_name_no_place() -> None:
    kept = outputs(NOTEBOOK)
    assert "image/png" in kept
    assert "uint8 on " in kept
    assert NOTEBOOK.stat().st_size < 300_000
    assert "/home/" not in kept
    assert "Traceback" not in kept
