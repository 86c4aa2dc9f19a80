"""Which packages are loaded, and what the wheel contains."""

import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

from tests.support.files import ROOT


def run_python(code: str, *arguments: str, python: str = sys.executable, cwd: Path = ROOT) -> str:
    return subprocess.run(
        [python, "-c", code, *arguments], check=True, capture_output=True, text=True, cwd=cwd
    ).stdout


def test_drawing_an_image_imports_neither_torch_nor_our_other_packages(tiny_artifact: Path) -> None:
    code = """
import sys
from inference import Sampler
from inference.run import main
before = sys.argv[1]
assert Sampler(before).sample(2).shape == (2, 8, 8)
assert main([before, "--output", sys.argv[2]]) == 0
heavy = {"torch", "torchvision", "onnx", "sklearn", "tyro", "training", "export"}
print(sorted(heavy & {name.partition(".")[0] for name in sys.modules}))
"""
    output = run_python(code, str(tiny_artifact), str(tiny_artifact.parent / "samples.png"))
    assert output.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    "module",
    [
        "training.config",
        "training.run",
        "training.report",
        "training.compare",
        "export.run",
        "inference",
    ],
)
def test_help_and_settings_need_no_heavy_import(module: str) -> None:
    code = f"""
import sys
import {module}
print(sorted({{"torch", "onnx", "onnxruntime", "PIL", "matplotlib"}} & set(sys.modules)))
"""
    assert run_python(code) == "[]\n"


def test_training_knows_no_runtime_and_draws_no_charts() -> None:
    code = """
import sys
import training.train
print(sorted({"onnxruntime", "onnx", "export", "matplotlib", "jinja2"} & set(sys.modules)))
"""
    assert run_python(code) == "[]\n"


@pytest.mark.full
def test_the_wheel_draws_images_in_a_clean_environment(tiny_artifact: Path, tmp_path: Path) -> None:
    """The built wheel with the extra `cpu`, installed outside the checkout."""
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q"]
    subprocess.run([*pip, "wheel", "--no-deps", "-w", str(tmp_path), str(ROOT)], check=True)
    (wheel,) = tmp_path.glob("ganpack-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        packages = {name.partition("/")[0] for name in archive.namelist()}
        assert {"ganpack/gpu/kernels.cu", "ganpack/gpu/kernels.ptx"} <= set(archive.namelist())
    assert {name for name in packages if not name.endswith(".dist-info")} == {"ganpack"}
    assert wheel.stat().st_size < 300_000

    venv.create(tmp_path / "venv", with_pip=True)
    python = str(tmp_path / "venv" / "bin" / "python")
    constraints = ROOT / "constraints.txt"
    install = ["-m", "pip", "--disable-pip-version-check", "-q", "install", "-c", str(constraints)]
    subprocess.run([python, *install, f"{wheel}[cpu]"], check=True)
    code = """
import importlib.util, sys
import numpy as np
from ganpack import Sampler
assert importlib.util.find_spec("inference") is None
assert importlib.util.find_spec("torch") is None
np.save("drawn.npy", Sampler(sys.argv[1]).sample(8, seed=4))
"""
    run_python(code, str(tiny_artifact), python=python, cwd=tmp_path)
    command = [str(tmp_path / "venv" / "bin" / "ganpack"), "draw", str(tiny_artifact), "-n", "9"]
    subprocess.run([*command, "--output", "s.png"], check=True, cwd=tmp_path, capture_output=True)
    assert (tmp_path / "s.png").exists()

    import numpy as np

    from inference import Sampler

    ours = Sampler(tiny_artifact, provider="cpu").sample(8, seed=4).astype(int)
    assert np.abs(ours - np.load(tmp_path / "drawn.npy")).max() <= 1
