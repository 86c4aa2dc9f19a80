"""The ONNX files on an old and on the newest onnxruntime, each in an environment of its own."""

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from inference import Sampler
from tests.support.files import ROOT

CODE = """
import sys
import numpy as np
import onnxruntime
from inference import Sampler

print(onnxruntime.__version__)
folder = sys.argv[1]
check = Sampler(folder, provider="cpu").check()
assert check.passed, check
assert check.versions["onnxruntime"] == onnxruntime.__version__
session = onnxruntime.InferenceSession(f"{folder}/sampler.onnx", providers=["CPUExecutionProvider"])
feeds = {"seed": 2**63 - 1, "start": 2**63 - 301, "count": 300}
feeds = {name: np.array(number, np.int64) for name, number in feeds.items()}
pixels, z = session.run(["pixels", "z"], feeds)
np.savez("drawn.npz", pixels=pixels, z=z)
"""


@pytest.mark.full
@pytest.mark.parametrize("requirements", [["onnxruntime==1.16.3", "numpy<2"], ["onnxruntime"]])
def test_old_and_new_runtimes_draw_the_same(
    tiny_artifact: Path, tmp_path: Path, requirements: list[str]
) -> None:
    python: str | None = sys.executable
    if "==" in requirements[0] and sys.version_info[:2] != (3, 11):
        python = shutil.which("python3.11")
        if python is None:
            pytest.skip(f"{requirements[0]} needs Python 3.11, and there is none")
    subprocess.run([str(python), "-m", "venv", str(tmp_path / "venv")], check=True)
    python = str(tmp_path / "venv" / "bin" / "python")
    pip = [python, "-m", "pip", "--disable-pip-version-check", "-q", "install"]
    subprocess.run([*pip, *requirements], check=True)
    shutil.copytree(ROOT / "inference", tmp_path / "inference")
    command = [python, "-c", CODE, str(tiny_artifact)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=tmp_path)
    if "==" in requirements[0]:
        assert done.stdout.strip() == requirements[0].partition("==")[2]
    ours = Sampler(tiny_artifact, provider="cpu")
    place: dict[str, Any] = {"seed": 2**63 - 1, "start": 2**63 - 301}
    with np.load(tmp_path / "drawn.npz") as drawn:
        assert drawn["z"].tobytes() == ours.latents(300, **place).tobytes()
        difference = np.abs(drawn["pixels"][..., 0].astype(int) - ours.sample(300, **place))
    assert difference.max() <= 1
    assert (difference > 0).mean() <= 1e-3
