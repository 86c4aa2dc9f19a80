"""A checkout that is not installed trains, exports and draws, and its tests can be collected."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tomllib
from pathlib import Path

import pytest

from tests.support.files import ROOT
from tests.support.runs import TINY

# Runs a module as `python -m` does. It finds packages only in the two given folders.
RUN = """
import runpy, sys
sys.path[:0] = sys.argv[1:3]
del sys.argv[:3]
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of the three packages, outside git."""
    for name in ("training", "export", "inference"):
        shutil.copytree(
            ROOT / name, tmp_path / "checkout" / name, ignore=shutil.ignore_patterns("__pycache__")
        )
    return tmp_path / "checkout"


@pytest.fixture
def dependencies(tmp_path: Path) -> Path:
    """A folder of the installed packages, without this project."""
    folder = tmp_path / "dependencies"
    folder.mkdir()
    for path in Path(sysconfig.get_path("purelib")).iterdir():
        if "ganpack" not in path.name.lower():
            (folder / path.name).symlink_to(path)
    return folder


@pytest.mark.slow
def test_a_checkout_that_is_not_installed_trains_exports_and_draws(
    checkout: Path, dependencies: Path
) -> None:
    def run(module: str, *arguments: str) -> str:
        command = [sys.executable, "-I", "-S", "-c", RUN, str(checkout), str(dependencies), module]
        done = subprocess.run(
            [*command, *arguments], cwd=checkout, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    data = ["--dataset", "digits", "--data-dir", str(TINY.data.data_dir), "--image-size", "8"]
    network = ["--latent-dim", "10", "--generator-dims", "16", "--discriminator-dims", "8"]
    length = ["--iterations", "8", "--batch-size", "512", "--device", "cpu", "--engine", "plain"]
    run("training.run", *data, *network, *length, "--run-dir", "run")
    run("export.run", "run")
    run("inference.run", "run/artifact", "--output", "samples.png")
    assert (checkout / "samples.png").stat().st_size > 0

    import inference

    facts = json.loads((checkout / "run" / "config.json").read_text())
    assert facts["versions"]["ganpack"] == inference.__version__
    parity = json.loads((checkout / "run" / "artifact" / "parity.json").read_text())
    assert parity["versions"]["ganpack"] == inference.__version__


def test_a_package_without_metadata_is_recorded_as_such() -> None:
    from training.run_folder.origin import NO_METADATA, package_versions

    versions = package_versions("pytest", "no-such-package")
    assert versions["pytest"] == pytest.__version__
    assert versions["no-such-package"] == NO_METADATA


@pytest.mark.slow
def test_tests_are_collected_without_the_packages_that_only_tests_need(tmp_path: Path) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    requirements = [*extras["dev"], *extras["service"], *extras["cluster"]]
    names = {line.partition(">=")[0].partition("[")[0].replace("-", "_") for line in requirements}
    assert {"hypothesis", "torch_fidelity", "fastapi", "selenium"} <= names
    for name in names:
        if not name.startswith("pytest"):  # the project's own options need these plugins
            code = f"raise ModuleNotFoundError('No module named {name}', name='{name}')\n"
            (tmp_path / f"{name}.py").write_text(code)
    theirs = [
        "-p",
        "no:hypothesispytest",
        "-p",
        "no:schemathesis",
    ]  # plugins of packages that are missing
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", *theirs],
        cwd=ROOT, capture_output=True, text=True, check=False,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr
    assert "could not import 'hypothesis'" in done.stdout
