"""Node and npm, for the tests of the examples."""

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.files import ROOT

needs_node = pytest.mark.skipif(
    shutil.which("node") is None or shutil.which("npm") is None,
    reason="Node and npm are not installed: apt-get install nodejs npm",
)


def run(*command: str | Path, cwd: Path, seconds: float = 120) -> str:
    """What a command prints; where it fails, all that it printed is the error."""
    done = subprocess.run(
        list(map(str, command)), cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, timeout=seconds, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{command}:\n{done.stdout}"
    return done.stdout


def installed(example: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of an example with what its lock file names, and nothing else."""
    folder = tmp_path_factory.mktemp(example) / example
    ignored = shutil.ignore_patterns("node_modules", "dist")
    shutil.copytree(ROOT / "examples" / example, folder, ignore=ignored)
    run("npm", "ci", cwd=folder, seconds=300)
    return folder
