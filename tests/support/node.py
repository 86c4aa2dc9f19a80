"""Node and npm, for the tests of the examples."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import onnx
import pytest

from inference.artifact import CONTRACT_KEY
from tests.support.files import ROOT
from tests.support.forging import contract_with, resealed

needs_node = pytest.mark.skipif(
    shutil.which("node") is None or shutil.which("npm") is None,
    reason="Node and npm are not installed: apt-get install nodejs npm",
)


def run(*command: str | Path, cwd: Path, seconds: float = 120) -> str:
    """Run a command; its output. If it fails, the error has all its output."""
    done = subprocess.run(
        list(map(str, command)), cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, timeout=seconds, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{command}:\n{done.stdout}"
    return done.stdout


def installed(example: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of an example with exactly the packages of its lock file."""
    folder = tmp_path_factory.mktemp(example) / example
    ignored = shutil.ignore_patterns("node_modules", "dist")
    shutil.copytree(ROOT / "examples" / example, folder, ignore=ignored)
    shutil.copy(ROOT / "examples" / "artifact.mjs", folder.parent)
    run("npm", "ci", cwd=folder, seconds=300)
    return folder


CONTRACTS: dict[str, tuple[dict[str, Any] | str, str]] = {
    "null-shape": ({"image_shape": None}, r"the contract's image_shape must be .*, got null"),
    "flat": ({"image_shape": [1, 0, 28]}, r"image_shape must be .*, got \[1,0,28\]"),
    "huge": ({"image_shape": [3, 65536, 65536]}, "image_shape must be"),
    "null-classes": ({"classes": None}, "the contract's classes must be a list of texts, got null"),
    "numbers": ({"classes": [1, 2]}, r"classes must be a list of texts, got \[1,2\]"),
    "null-data": ({"dataset": None}, "the contract's dataset must be a text, got null"),
    "long": ({"step": "x" * 9999}, 'step must be a whole number, got "x{59}…'),
    "role": ({"role": "both"}, 'role must be "generator" or "sampler", got "both"'),
    "missing": ('{"format_version": 1, "role": "sampler"}', "dataset must be a text, got nothing"),
    "newer": ({"format_version": 2}, "artifact format 2, this program reads format 1"),
    "null": ("null", "a contract that is not a JSON object"),
    "deep": ("[" * 99_999, "a contract that is not a JSON object"),
}
"""Contracts, whole or as changes of a good one, and what the examples in JavaScript say of them."""


def with_contract(artifact: Path, contract: dict[str, Any] | str) -> bytes:
    """generator.onnx with another contract, and a good seal."""

    def replace(model: onnx.ModelProto) -> None:
        (entry,) = (entry for entry in model.metadata_props if entry.key == CONTRACT_KEY)
        entry.value = str(contract)

    change = replace if isinstance(contract, str) else contract_with(**contract)
    return resealed(artifact, change)


def node_reads(*files: Path) -> list[str | dict[str, Any]]:
    """What examples/artifact.mjs reads in each file: the contract, or the message of its error."""
    code = """
import { readFile } from "node:fs/promises";
const { readArtifact } = await import(process.argv[1]);
const read = async (file) => {
  try {
    return (await readArtifact(file, new Uint8Array(await readFile(file)))).contract;
  } catch (error) {
    return error.message;
  }
};
console.log(JSON.stringify(await Promise.all(process.argv.slice(2).map(read))));
"""
    module = ROOT / "examples" / "artifact.mjs"
    command: list[str | Path] = ["node", "--input-type=module", "-e", code, module, *files]
    found: list[str | dict[str, Any]] = json.loads(run(*command, cwd=ROOT))
    return found
