"""The programs in docs/embedding.md run unchanged, and give the images of `Sampler`."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

from inference import Sampler
from tests.support.files import ROOT
from tests.support.golden_file import require_same_pixels
from tests.support.node import installed, needs_node, run

TEXT = (ROOT / "docs" / "embedding.md").read_text(encoding="utf-8")


def programs(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", TEXT, flags=re.DOTALL)


@pytest.fixture
def folder(golden_artifact: Path, tmp_path: Path) -> Path:
    (tmp_path / "artifact").symlink_to(golden_artifact)
    return tmp_path


def test_python(folder: Path, golden_artifact: Path) -> None:
    drawn = Sampler(golden_artifact, provider="cpu").sample(64, seed=7)
    ours, plain, _ = programs("python")
    ours = ours.replace("from ganpack", "from inference")  # its name in the checkout
    for program, result in ((ours, "images"), (plain, "pixels[..., 0]")):
        save = f"\nnp.save('drawn.npy', {result})\n"
        command = [sys.executable, "-c", f"import numpy as np\n{program}{save}"]
        subprocess.run(command, check=True, cwd=folder, env={"PYTHONPATH": str(ROOT)})
        require_same_pixels(np.load(folder / "drawn.npy"), drawn)


def test_the_program_that_compares_a_runtime_passes_and_can_fail(
    folder: Path, golden_artifact: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = programs("python")[2]
    assert len([line for line in program.splitlines() if line and "import" not in line]) <= 10
    monkeypatch.chdir(folder)
    exec(program, {})
    (folder / "artifact").unlink()
    (folder / "artifact").mkdir()
    model = onnx.load(golden_artifact / "generator.onnx")
    bias = next(x for x in model.graph.initializer if len(x.dims) == 1 and x.dims[0] == 256)
    bias.raw_data = (np.frombuffer(bias.raw_data, np.float32) + 0.05).tobytes()
    onnx.save(model, folder / "artifact" / "generator.onnx")
    with pytest.raises(AssertionError, match="wrong images"):
        exec(program, {})


@needs_node
@pytest.mark.full
def test_javascript(
    folder: Path, golden_artifact: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    (program,) = programs("javascript")
    example = installed("node", tmp_path_factory)
    (example / "artifact").symlink_to(golden_artifact)
    save = """
import { writeFile } from "node:fs/promises";
await writeFile("drawn.bin", pixels.data);
console.log(JSON.stringify(pixels.dims));
"""
    (example / "program.mjs").write_text(program + save, encoding="utf-8")
    assert run("node", "program.mjs", cwd=example).strip() == "[64,16,16,1]"
    drawn = np.fromfile(example / "drawn.bin", np.uint8).reshape(64, 16, 16)
    require_same_pixels(drawn, Sampler(golden_artifact, provider="cpu").sample(64, seed=7))


def test_what_is_not_run_here_is_said_to_be_so() -> None:
    sections = dict(re.findall(r"## (C\+\+|C#)\n(.*?)```", TEXT, flags=re.DOTALL))
    assert sections.keys() == {"C++", "C#"}
    for section in sections.values():
        assert "not compiled or run here" in section
