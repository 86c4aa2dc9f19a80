"""Odd names are shown unchanged."""

import json
import shlex
import shutil
import signal
from pathlib import Path
from xml.etree import ElementTree

import pytest

from training.interruption import Interrupted
from training.pages.charts import class_chart, comparison_chart
from training.pages.run_view import read_run
from training.pages.svg import Chart
from training.run_folder.config_file import refuse_used
from training.run_folder.folder import RunFolder, RunFolderError

NAMES = [
    "$x^2$", "$", "_x", "_child0", "#010101", "#0000a1", 'a "b" \'c\'', "<b>&amp;</b>", ' id="x"',
    "two\nlines", "猫", "\\frac{1}{2}", "font: 3px serif",
]  # fmt: skip


def shown(chart: Chart) -> str:
    """All text of a chart."""
    return "\n".join(
        text
        for svg in (chart.wide, chart.narrow)
        for text in ElementTree.fromstring(svg.replace("xlink:href", "href")).itertext()
    )


@pytest.mark.parametrize("name", NAMES)
def test_a_chart_shows_a_name_as_it_is(name: str, tiny_run: Path) -> None:
    run = read_run(tiny_run)
    charts = [
        class_chart([name, "b"], [10, 20], [15, 15], "of this run"),
        comparison_chart([run, run], [name, "b"]),
    ]
    for chart in charts:
        text = shown(chart)
        for line in name.split("\n"):
            assert text.count(line) >= 2  # in the wide and the narrow version
        assert "var(--" not in text
        assert chart.wide.count("var(--ink)") > 1


@pytest.mark.parametrize("name", NAMES)
def test_the_pages_of_a_run_with_an_odd_name_are_written(
    name: str, tiny_run: Path, tmp_path: Path
) -> None:
    from training.pages.report import write_report

    run_dir = tmp_path / name.replace("/", "-")
    shutil.copytree(tiny_run, run_dir)
    config = json.loads((run_dir / "config.json").read_text())
    config["class_names"] = [*NAMES[:-1], *"abcdefghi"][: len(config["class_names"])]
    (run_dir / "config.json").write_text(json.dumps(config))
    assert "</html>" in write_report(run_dir).read_text("utf-8")


def test_commands_that_are_printed_can_be_pasted(
    tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The commands that one command prints for the next can be run."""
    from export.run import main as export
    from inference.run import main as draw

    run_dir = tmp_path / "a run's $HOME; `folder`"
    shutil.copytree(tiny_run, run_dir)
    assert export([str(run_dir)]) == 0
    command = capsys.readouterr().out.rpartition("python -m inference.run ")[2]
    (artifact,) = shlex.split(command)
    assert draw([artifact, "--output", str(tmp_path / "a.png")]) == 0
    assert shlex.split(RunFolder(run_dir).quoted) == [str(run_dir)]
    stopped = str(Interrupted(run_dir, 7, signal.SIGTERM, "of iteration 4 by fcd"))
    resume, _, export_best = stopped.partition("--resume ")[2].partition("; python")
    assert shlex.split(resume) == [str(run_dir)]
    assert shlex.split(export_best)[:3] == ["-m", "export.run", str(run_dir)]
    with pytest.raises(RunFolderError) as used:
        refuse_used(RunFolder(run_dir))
    assert shlex.split(str(used.value).rpartition("--resume ")[2]) == [str(run_dir)]
