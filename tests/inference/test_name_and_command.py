"""`ganpack` in a checkout is `inference` itself; the command `ganpack` reaches all commands."""

import os
import pkgutil
import shutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import ganpack
import inference
from inference import Sampler
from inference.__main__ import main
from tests.support.files import ROOT

FRESH = """
import sys
{first}
import ganpack, inference, ganpack.noise, inference.noise, ganpack.runtime.session
from ganpack import Sampler, save
from ganpack.gpu import kernels
assert ganpack is inference and Sampler is inference.Sampler
assert kernels is inference.gpu.kernels
assert ganpack.noise.__spec__.name == ganpack.noise.__name__ == "inference.noise"
for name, module in list(sys.modules.items()):
    if name.partition(".")[0] == "ganpack":
        assert module is sys.modules["inference" + name.removeprefix("ganpack")], name
"""


def run(*command: str | Path, cwd: Path = ROOT, **environment: str) -> tuple[int, str, str]:
    """A command of a fresh Python: exit code, stdout and stderr."""
    done = subprocess.run(
        [sys.executable, *map(str, command)], cwd=cwd, env={**os.environ, **environment},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


def test_both_names_are_the_same_modules() -> None:
    names = [each.name for each in pkgutil.walk_packages(inference.__path__, "inference.")]
    assert len(names) > 40
    for name in names:
        other = name.replace("inference", "ganpack", 1)
        assert import_module(other) is import_module(name)
    assert ganpack is inference
    with pytest.raises(ModuleNotFoundError, match=r"No module named 'ganpack\.nothing'"):
        import_module("ganpack.nothing")


@pytest.mark.parametrize("first", ["import ganpack.gpu.kernels", "import inference.gpu.kernels"])
def test_whichever_name_comes_first(first: str) -> None:
    assert run("-W", "error", "-c", FRESH.format(first=first)) == (0, "", "")


def test_python_runs_both_names() -> None:
    for module in ("ganpack", "ganpack.run"):
        said = run("-W", "error", "-m", module, "--version")
        assert said == (0, f"{inference.__version__}\n", "")


def test_another_package_of_the_name_is_told(tmp_path: Path) -> None:
    (tmp_path / "inference.py").write_text("")
    code, _, error = run("-c", "import ganpack", PYTHONPATH=f"{tmp_path}:{ROOT}", cwd=tmp_path)
    assert code == 1
    other = tmp_path / "inference.py"
    assert f"another package named inference, {other}, hides the one of the checkout" in error


def test_the_command_draws_checks_and_tells(
    tiny_artifact: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    artifact, output = str(tiny_artifact), tmp_path / "a.npy"
    assert main(["draw", artifact, "-n", "9", "--output", str(output)]) == 0
    assert output.exists()
    assert main(["check", artifact]) == 0
    assert "4 golden images passed" in capsys.readouterr().out
    assert main(["info", artifact]) == 0
    assert "digits" in capsys.readouterr().out
    assert main(["doctor", artifact]) == 0
    assert f"ganpack: {inference.__version__}" in capsys.readouterr().out
    with pytest.raises(SystemExit) as stopped:
        main(["draw", artifact, "-n", "0"])
    assert stopped.value.code == 2
    assert "usage: ganpack draw [ARTIFACT] [OPTIONS]" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["train", "export", "score", "report", "compare"])
def test_the_command_reaches_the_checkout(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main([name, "--help"])
    assert stopped.value.code == 0
    assert "usage: python -m" in capsys.readouterr().out


def test_what_is_no_command_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["paint"]) == 2
    assert capsys.readouterr().err.startswith("error: ganpack has no command 'paint': take one of")
    for words in ([], ["--help"]):
        assert main(words) == 0
        assert capsys.readouterr().out.startswith("usage: ganpack COMMAND")


def test_where_training_is_not_installed_the_command_says_how(
    tiny_artifact: Path, tmp_path: Path
) -> None:
    """The package alone, under the name of the wheel, beside a stranger's `training`."""
    shutil.copytree(ROOT / "inference", tmp_path / "ganpack")
    (tmp_path / "training").mkdir()
    (tmp_path / "training" / "run.py").write_text("raise AssertionError")
    path = {"PYTHONPATH": str(tmp_path), "cwd": tmp_path}
    assert run("-m", "ganpack", "train", **path) == (  # type: ignore[arg-type]
        1, "", "error: ganpack train is not part of this installation. In a checkout of ganpack's "
        "repository, this installs all of it: pip install -e '.[cpu,training,export]'\n",
    )  # fmt: skip
    code, said, _ = run("-m", "ganpack", "check", tiny_artifact, **path)  # type: ignore[arg-type]
    assert code == 0
    assert "passed" in said


@pytest.mark.parametrize(
    "module",
    ["training.run", "export.run", "inference.run", "ganpack", "examples.http_service"],
)
def test_outside_the_environment_a_line_says_how_to_get_in(module: str) -> None:
    code, said, error = run("-S", "-m", module, PYTHONPATH="")
    assert (code, said) == (1, "")
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert "numpy is not installed" in error or "tyro is not installed" in error
    assert "Activate the project's environment first: . " in error or "pip install -e" in error


def test_a_sampler_and_the_package_show_what_they_are(tiny_artifact: Path) -> None:
    assert "save" in dir(inference)
    with Sampler(tiny_artifact, provider="cpu") as sampler:
        step = sampler.metadata.step
        assert repr(sampler) == f"<Sampler: digits by bce, step {step}, 8×8 grey, on cpu>"
    assert repr(sampler) == "<Sampler, closed>"
