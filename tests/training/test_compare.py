"""The comparison of runs."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from training.compare import main
from training.pages.comparison import compare, names, notes
from training.pages.run_view import read_run
from training.run_folder.config_file import to_dict


@pytest.fixture
def two_runs(tiny_run: Path, tmp_path: Path) -> tuple[Path, Path]:
    """The tiny run, and a copy with other settings, scores and speed."""
    other = tmp_path / "other"
    shutil.copytree(tiny_run, other)
    config = read_run(other).config
    config = replace(config, seed=7, recipe=replace(config.recipe, lr=1e-3))
    content = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps({**content, "config": to_dict(config)}))
    best = json.loads((other / "best.json").read_text())
    best["final"]["fcd"] |= {"fcd": 1.25, "excess": 0.5, "recall": 0.0}
    (other / "best.json").write_text(json.dumps(best))
    lines = []
    for line in (other / "metrics.jsonl").read_text().splitlines():
        record = json.loads(line)
        if record["kind"] == "epoch":
            record["images_per_second"] = 512_000.0
        lines.append(json.dumps(record) + "\n")
    (other / "metrics.jsonl").write_text("".join(lines))
    return tiny_run, other


def test_the_table_shows_what_differs_and_marks_the_best(
    two_runs: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "page.html"
    assert main([*map(str, two_runs), "--output", str(page)]) == 0
    output = capsys.readouterr().out
    rows = {re.split(r"\s{2,}", line.strip())[0]: re.split(r"\s{2,}", line.strip())[1:]
            for line in output.splitlines() if line.startswith("  ")}  # fmt: skip
    assert rows["--seed"] == ["0", "7"]
    assert rows["--lr"] == ["0.0002", "0.001"]
    assert not {"--batch-size", "--dataset", "torch"} & rows.keys()
    final = json.loads((two_runs[0] / "best.json").read_text())["final"]["fcd"]
    assert rows["FCD"] == [f"{final['fcd']:.3f}", "1.250*"]
    assert rows["recall"][0].startswith(f"{final['recall']:.3f}")
    assert rows["iterations a second"][1] == "1000*"
    html = page.read_text()
    assert '<td class="best">1.250</td>' in html
    assert html.count("data:image/png;base64,") == 2
    assert ">excess FCD (%)<" in html
    assert ">training (minutes)<" in html


def test_scores_that_do_not_compare_are_not_ranked(two_runs: tuple[Path, Path]) -> None:
    runs = [read_run(run_dir) for run_dir in two_runs]
    assert notes(runs) == []
    best = runs[1].best
    assert best is not None
    best.final["fcd"] = replace(best.final["fcd"], extractor_sha256="0" * 64)
    (note,) = notes(runs)
    assert "only the excess FCD can be compared" in note
    scores = {row.name: row for row in compare(runs)["scores of the best snapshot"]}
    assert scores["FCD"].best == frozenset()
    assert scores["excess FCD"].best
    best.final.clear()
    assert any("Not finished: other" in note for note in notes(runs))


def test_runs_of_one_name_are_told_apart_by_their_paths(tiny_run: Path) -> None:
    from training.pages.charts import comparison_chart

    run = read_run(tiny_run)
    assert names([run, run]) == [str(tiny_run)] * 2
    assert "var(--run-0)" in comparison_chart([run, run], ["a", "b"]).wide


def test_bad_usage_is_told(tiny_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tiny_run)]) == 2
    assert "at least two" in capsys.readouterr().err
    assert main([str(tiny_run), str(tiny_run.parent)]) == 2
    assert "holds no run" in capsys.readouterr().err
