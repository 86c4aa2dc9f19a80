"""The artifacts that are in the checkout, to be tried before anything is trained."""

import hashlib
import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from inference import Sampler
from inference.artifact import verify_seal
from tests.support.files import ROOT

FOLDERS = [ROOT / "artifacts" / name for name in ("fashion-mnist", "mnist")]
by_name = pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)


@by_name
def test_it_is_whole_and_draws_the_images_of_pytorch(folder: Path) -> None:
    for name in ("generator.onnx", "sampler.onnx"):
        verify_seal((folder / name).read_bytes())
    sampler = Sampler(folder, provider="cpu")
    check = sampler.check()
    assert check.passed, str(check)
    assert check.images == 4
    assert sampler.metadata.dataset == folder.name
    assert len(sampler.metadata.classes) == 10


@by_name
def test_its_other_files_are_those_of_one_export(folder: Path) -> None:
    parity = json.loads((folder / "parity.json").read_text("utf-8"))
    for name, sha256 in parity["sha256"].items():
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == sha256
    card = (folder / "README.md").read_text("utf-8")
    assert Sampler(folder, provider="cpu").metadata.weights_sha256 in card
    names = {"README.md", "parity.json", "samples.png", *parity["sha256"]}
    assert {path.name for path in folder.iterdir()} == names


@by_name
def test_git_never_changes_its_bytes(folder: Path) -> None:
    """Where git converts the line ends of texts, the seal would break."""
    if not (ROOT / ".git").exists():
        pytest.skip("no git checkout")
    files = [str(path.relative_to(ROOT)) for path in folder.glob("*.[ot][ns]*")]
    assert len(files) == 3
    command = ["git", "check-attr", "text", "--", *files]
    found = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT).stdout
    assert [line.rpartition(": ")[2] for line in found.splitlines()] == ["unset"] * 3


@pytest.mark.parametrize("page", ["README.md", "README.vi.md"])
def test_the_first_example_of_the_readme_runs(page: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    found = re.search(r"```python\n(.*?)```", (ROOT / page).read_text("utf-8"), re.DOTALL)
    assert found is not None
    names: dict[str, Any] = {}
    exec(found[1], names)
    assert names["images"].shape == names["more"].shape == (64, 28, 28)
    assert names["sevens"].shape == (8, 28, 28)


@pytest.mark.full
@by_name
def test_its_score_is_that_of_its_card(folder: Path) -> None:
    """Scored through onnxruntime; the run scored it with PyTorch."""
    if not (ROOT / "data" / "MNIST").is_dir():
        pytest.skip("no real images in data/")
    from export.scoring import RealImages, score

    (scored,) = score(folder, RealImages(None, ROOT / "data", "train"), None)
    scores = Sampler(folder, provider="cpu").metadata.scores
    assert scored.scores.fcd == pytest.approx(scores["fcd"], rel=0.01)
    assert scored.scores.recall == pytest.approx(scores["recall"], abs=0.01)
