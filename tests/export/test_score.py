"""`python -m export.score`."""

import json
from pathlib import Path

import pytest

from export.score import main
from export.scoring import trained_on
from tests.support.runs import TINY
from training.config import ConfigError

DATA_DIR = str(TINY.data.data_dir)


def test_a_run_is_scored_as_it_was_while_it_trained(
    tiny_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(tiny_run), "--data-dir", DATA_DIR, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    checkpoints = sorted((tiny_run / "checkpoints").iterdir())
    assert list(rows) == [path.name for path in checkpoints]
    best = json.loads((tiny_run / "best.json").read_text())
    row = rows[Path(best["checkpoint"]).name]
    assert row["fcd"] == pytest.approx(best["score"], rel=1e-9)


def test_an_artifact_scores_as_its_checkpoint(
    tiny_run: Path, tiny_artifact: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    best = json.loads((tiny_run / "best.json").read_text())
    assert main([str(tiny_artifact), "--data-dir", DATA_DIR]) == 0
    heading, row, note = capsys.readouterr().out.splitlines()
    assert heading.split() == [
        "fcd", "excess", "kid", "precision", "recall", "coverage", "class_tv"
    ]  # fmt: skip
    assert row.startswith("artifact on ")
    assert float(row.split()[-7]) == pytest.approx(best["score"], rel=1e-3)
    assert "898 generated against as many train images" in note
    assert main([str(tiny_run / best["checkpoint"]), "--data-dir", DATA_DIR, "--seed", "3"]) == 0
    assert float(capsys.readouterr().out.splitlines()[1].split()[1]) != best["score"]


def test_errors_say_what_to_do(
    tiny_artifact: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(tmp_path)]) == 1
    assert "generator.onnx" in capsys.readouterr().err
    assert main([str(tmp_path / "none.pt")]) == 1
    assert "no such file" in capsys.readouterr().err
    assert main([str(tiny_artifact), "--data-dir", DATA_DIR, "--split", "test"]) == 1
    assert "no test images" in capsys.readouterr().err
    assert main([str(tiny_artifact), "--dataset", "nonsense"]) == 2
    assert "nonsense" in capsys.readouterr().err
    with pytest.raises(ConfigError, match=r"a folder of images called birds.*--dataset FOLDER"):
        trained_on(tiny_artifact, "birds")
