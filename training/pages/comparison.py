"""A comparison of runs: settings that differ, scores and speed, as a table and as a page."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from training.config import differences, option, options
from training.pages.run_view import RunView
from training.run_folder.scores import shown


@dataclass(frozen=True)
class Row:
    """A line of the table, with a cell for each run."""

    name: str
    cells: tuple[str, ...]
    best: frozenset[int] = frozenset()
    """Indices of the best cells; empty if the values have no order."""


def compare(runs: Sequence[RunView]) -> dict[str, list[Row]]:
    """The lines of the table, in groups."""
    return {
        "settings that differ": _settings(runs),
        "scores of the best snapshot": _scores(runs),
        "speed": _speed(runs),
    }


def notes(runs: Sequence[RunView]) -> list[str]:
    """Warnings about figures that cannot be compared directly."""
    found = []
    if not all(run.finished for run in runs):
        running = ", ".join(run.name for run in runs if not run.finished)
        found.append(
            f"Not finished: {running}. Its scores use the noise that it chooses by, those of "
            f"finished runs use fresh noise."
        )
    found += [f"{run.name}: {run.lost}." for run in runs if run.lost]
    if not _measured_alike(runs):
        found.append(
            "The scores were measured against different images or in different features: only the "
            "excess FCD can be compared."
        )
    return found


def table(runs: Sequence[RunView], groups: dict[str, list[Row]]) -> str:
    """The table as text for a terminal; * marks the best of a line."""
    rows = [row for group in groups.values() for row in group]
    cells = {row.name: [_starred(row, i) for i in range(len(runs))] for row in rows}
    left = max(len(name) for name in [*cells, *groups])
    widths = [
        max(len(name), *(len(line[i]) for line in cells.values()))
        for i, name in enumerate(names(runs))
    ]

    def line(name: str, values: Sequence[str]) -> str:
        padded = (f"{value:>{width}}" for value, width in zip(values, widths, strict=True))
        return "  ".join([f"{name:{left}}", *padded]).rstrip()

    lines = [line("", names(runs))]
    for group, its_rows in groups.items():
        lines += ["", group]
        lines += [line(f"  {row.name}"[: left + 2], cells[row.name]) for row in its_rows]
        if not its_rows:
            lines.append("  none")
    return "\n".join([*lines, *(f"\n{note}" for note in notes(runs))])


def write_comparison(runs: Sequence[RunView], groups: dict[str, list[Row]], output: Path) -> None:
    """Write the table as a page, with a chart and the last sample grids."""
    from training.pages.charts import comparison_chart
    from training.pages.html import embedded, write_page

    last = [
        (step, picture)
        for run in runs
        for step, path in list(run.folder.grids_by_step().items())[-1:]
        if (picture := embedded(path))
    ]
    write_page(
        output,
        "compare.html",
        names=names(runs),
        groups=groups,
        notes=notes(runs),
        chart_of_all=comparison_chart(runs, names(runs))
        if all(run.scored for run in runs)
        else None,
        grids=last if len(last) == len(runs) else [],
    )


def names(runs: Sequence[RunView]) -> list[str]:
    """The names of the runs: their folders' names, or the paths if two names are equal."""
    short = [run.name for run in runs]
    return short if len(set(short)) == len(short) else [str(run.folder.path) for run in runs]


def _settings(runs: Sequence[RunView]) -> list[Row]:
    wanted = {name for run in runs for name in differences(runs[0].config, run.config)}
    values = [options(run.config) for run in runs]
    rows = [
        Row(option(name), tuple(str(of_run[name]) for of_run in values))
        for name in values[0]
        if name.replace("-", "_") in wanted
    ]
    for name, value in (
        ("data sha256", lambda run: run.facts.data_sha256[:12]),
        ("commit", lambda run: (run.facts.git_commit or "not in git")[:12]),
        ("torch", lambda run: run.facts.versions.get("torch", "unknown")),
        ("processor", lambda run: run.facts.machine.get("processor", "unknown")),
        ("gpu", lambda run: run.facts.machine.get("gpu", "none")),
    ):
        cells = tuple(value(run) for run in runs)
        if len(set(cells)) > 1:
            rows.append(Row(name, cells))
    return rows


def _scores(runs: Sequence[RunView]) -> list[Row]:
    rows = [
        Row("chosen by", tuple(run.best.rule if run.best else "-" for run in runs)),
        Row("iteration", tuple(f"{run.best.step:,}" if run.best else "-" for run in runs)),
    ]
    found = [run.best_scores() for run in runs]
    for score in shown(found):
        values = [score.value(scores) if scores else None for scores in found]
        row = _row(score.title, values, score.format, highest=score.higher_is_better)
        comparable = score.name == "excess" or _measured_alike(runs)
        rows.append(row if comparable else Row(row.name, row.cells))
    return rows


def _measured_alike(runs: Sequence[RunView]) -> bool:
    return len({scores.measure for run in runs if (scores := run.best_scores())}) <= 1


def _speed(runs: Sequence[RunView]) -> list[Row]:
    speeds = [run.iterations_per_second() for run in runs]
    images = [speed * run.config.recipe.batch_size for speed, run in zip(speeds, runs, strict=True)]
    trained = [float(run.minutes()[-1]) if run.epochs else None for run in runs]
    until_best = [run.minutes_at(run.best.step) if run.best else None for run in runs]
    return [
        Row("iterations", tuple(f"{run.step:,}" for run in runs)),
        _row("iterations a second", speeds, ".0f", highest=True),
        _row("images a second", images, ",.0f", highest=True),
        Row("minutes of training", tuple(_number(value, ".1f") for value in trained)),
        Row("minutes until the best", tuple(_number(value, ".1f") for value in until_best)),
    ]


def _row(name: str, values: Sequence[float | None], form: str, *, highest: bool) -> Row:
    known = [value for value in values if value is not None and not math.isnan(value)]
    best = (max(known) if highest else min(known)) if len(known) > 1 else None
    marked = frozenset(i for i, value in enumerate(values) if value == best is not None)
    return Row(name, tuple(_number(value, form) for value in values), marked)


def _number(value: float | None, form: str) -> str:
    return "-" if value is None or math.isnan(value) else format(value, form)


def _starred(row: Row, i: int) -> str:
    """The cell with its mark, or a space instead in a row with marks."""
    return row.cells[i] + ("*" if i in row.best else " " if row.best else "")
