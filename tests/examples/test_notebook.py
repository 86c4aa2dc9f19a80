"""The notebook runs from its first cell to its last, on the CPU and the embedded data set."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.files import ROOT

NOTEBOOK = ROOT / "notebooks" / "colab.ipynb"

# In another process, because the notebook writes to runs/ in the project's folder.
EXECUTE = """
import sys, nbformat
from nbclient import NotebookClient
notebook = nbformat.read(sys.argv[1], 4)
NotebookClient(notebook, timeout=400, resources={"metadata": {"path": sys.argv[2]}}).execute()
nbformat.write(notebook, sys.argv[3])
"""


def outputs(notebook: Path) -> str:
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    return json.dumps([cell.get("outputs") for cell in cells])


@pytest.mark.full
def test_the_notebook_runs(tmp_path: Path) -> None:
    pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    for name in ("training", "export", "inference"):
        (tmp_path / name).symlink_to(ROOT / name)
    executed = tmp_path / "executed.ipynb"
    settings = {"NOTEBOOK_DATASET": "digits", "NOTEBOOK_ITERATIONS": "200", "PYTHONPATH": ""}
    subprocess.run(
        [sys.executable, "-c", EXECUTE, NOTEBOOK, tmp_path, executed],
        env=os.environ | settings,
        check=True,
        timeout=500,
    )
    assert "(64, 28, 28) uint8 on cpu" in outputs(executed) or "on cuda" in outputs(executed)
    assert (tmp_path / "runs/notebook-digits/artifact/generator.onnx").exists()


def test_its_kept_outputs_are_small_and_name_no_place() -> None:
    kept = outputs(NOTEBOOK)
    assert "image/png" in kept
    assert "uint8 on " in kept
    assert NOTEBOOK.stat().st_size < 300_000
    assert "/home/" not in kept
    assert "Traceback" not in kept
