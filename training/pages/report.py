"""report.html: a page about one run, finished or not."""

import shlex
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from training.config import TrainConfig, grouped, option, usual_recipe
from training.pages.run_view import RunView, read_run
from training.run_folder.scores import shown

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_MOST_PICTURE_BYTES = 1_100_000  # of all sample grids in the page
_MOST_CLASSES = 40


def write_report(run_dir: Path, output: Path | None = None) -> Path:
    """Write the report of a run, and return its path.

    Raises:
        ConfigError: if the folder holds no run, or if the run has recorded nothing yet.
    """
    from training.pages.html import embedded, minutes, write_page  # imports Jinja

    run = read_run(run_dir)
    output = output or run.folder.report
    best_grid = _best_grid(run)
    pictures = {
        "best": None if best_grid is None else embedded(best_grid),
        **{
            path.stem: embedded(path)
            for path in (run.folder.real, run.folder.nearest, run.folder.classes)
        },
    }
    write_page(
        output,
        "report.html",
        run=run,
        made=f"{datetime.now():%Y-%m-%d %H:%M}",
        rules=_rules(run),
        table=shown(scores for _, scores in run.scored),
        pictures=pictures,
        frames=[(step, grid) for step, path in _frames(run) if (grid := embedded(path))],
        charts=_charts(run),
        settings=_settings(run),
        facts=_facts(run),
        timing={
            "training": minutes(run.minutes()[-1]) if run.epochs else "-",
            "until the best": minutes(run.minutes_at(run.best.step)) if run.best else "-",
            "iterations a second": f"{run.iterations_per_second():.0f}",
            "images a second": f"{run.iterations_per_second() * run.config.recipe.batch_size:,.0f}",
        },
        folder=shlex.quote(str(run_dir)),
        longer=_longer(run.config) if run.finished else "",
    )
    return output


def _rules(run: RunView) -> list[dict[str, Any]]:
    """The choice of each rule with its scores; the rule of the run comes first."""
    asked = run.best.rule if run.best else ""
    return [
        {**vars(choice), "scores": run.scores_of(rule)}
        for rule, choice in sorted(run.choices.items(), key=lambda item: item[0] != asked)
    ]


def _best_grid(run: RunView) -> "NDArray[np.uint8] | None":
    """Images 0 to 63 of seed 0 from the best snapshot; None if it has been removed."""
    if not run.best:
        return None
    from inference.writing.pictures import grid
    from training.records.samples import GRID_IMAGES, sample_images
    from training.run_folder.checkpoint import load_generator
    from training.run_folder.sealed_file import CheckpointError, load

    try:
        generator = load_generator(load(run.folder.path / run.best.checkpoint))
    except CheckpointError:
        return None
    return grid(sample_images(generator, GRID_IMAGES))


def _frames(run: RunView) -> list[tuple[int, Path]]:
    """Steps and files of the sample grids; some are left out if all would be too large."""
    from training.pages.html import evenly

    frames = list(run.folder.grids_by_step().items())
    size = sum(path.stat().st_size for _, path in frames)
    return evenly(frames, max(2, int(len(frames) * _MOST_PICTURE_BYTES / max(size, 1))))


def _charts(run: RunView) -> dict[str, Any]:
    from training.pages.charts import (
        by_heart_chart,
        class_chart,
        fcd_chart,
        loss_chart,
        probability_chart,
    )

    charts = {"losses": loss_chart(run), "probabilities": probability_chart(run)}
    if run.scored:
        charts["fcd"] = fcd_chart(run)
        by_heart = by_heart_chart(run)
        if by_heart is not None:
            charts["by heart"] = by_heart
        step, last = run.scored[-1]
        best = run.best_scores()
        of = "of the best snapshot" if best else f"of iteration {step:,}"
        scores = best or last
        names = run.facts.class_names
        counts = scores.class_counts, scores.real_class_counts
        if 1 < len(names) <= _MOST_CLASSES and all(len(each) == len(names) for each in counts):
            charts["classes"] = class_chart(names, *counts, of)
    return charts


def _settings(run: RunView) -> list[tuple[str, list[tuple[str, str, str | None]]]]:
    """For each group: (option, value, the recipe's default if the value differs)."""
    recipe, network = run.config.recipe.recipe, run.config.network
    usual = grouped(TrainConfig(recipe=usual_recipe(recipe, network.discriminator)))
    return [
        (
            group,
            [
                (option(name), _text(value), None if value == default else _text(default))
                for (name, value), default in zip(
                    values.items(), usual[group].values(), strict=True
                )
            ],
        )
        for group, values in grouped(run.config).items()
    ]


def _longer(config: TrainConfig) -> str:
    """The option that doubles the length of the run."""
    if config.iterations:
        return f" --iterations {2 * config.iterations}"
    return f" --epochs {2 * config.epochs}"


def _text(value: Any) -> str:
    if isinstance(value, tuple):
        return " ".join(map(str, value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _facts(run: RunView) -> dict[str, dict[str, str]]:
    """Hardware, versions and origin, if config.json has them."""
    origin = {
        "commit": (run.facts.git_commit or "not in git")[:12],
        "data sha256": f"{run.facts.data_sha256[:12]}…",
        "seed": str(run.config.seed),
    }
    versions, machine = run.facts.versions, run.facts.machine
    return {
        "Hardware": {name: value for name, value in machine.items() if name not in versions},
        "Versions": versions,
        "Origin": origin,
        "Where the time went": _phases(run),
    }


def _phases(run: RunView) -> dict[str, str]:
    """Seconds and share of each phase, and of all."""
    seconds = run.facts.seconds
    total = sum(seconds.values()) or 1.0
    rows = {name: f"{value:,.1f} s, {value / total:.0%}" for name, value in seconds.items()}
    return rows | {"together": f"{total:,.1f} s"} if rows else {}
