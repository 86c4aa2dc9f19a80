"""Draw excess FCD over training time: `python scripts/quality_chart.py CHART.png RUN_DIR …`.

One panel a data set, one line a recipe; of several runs of a recipe, the one with most iterations
is drawn bold. Prints the best of each run.
"""

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt

COLOURS = {"textbook": "tab:gray", "bce": "tab:blue", "r3gan": "tab:red", "hinge": "tab:green"}


@dataclass(frozen=True)
class Run:
    """The scored checkpoints of a run, in order."""

    name: str
    dataset: str
    recipe: str
    steps: list[int]
    minutes: list[float]
    """Of training; without scoring, saving and drawing."""
    scores: list[dict[str, Any]]


def read(run_dir: Path) -> Run:
    """The run in a folder, from config.json and metrics.jsonl."""
    config = json.loads((run_dir / "config.json").read_text("utf-8"))["config"]
    run = Run(run_dir.name, config["data"]["dataset"], config["recipe"]["recipe"], [], [], [])
    before, seconds = 0, 0.0
    with (run_dir / "metrics.jsonl").open(encoding="utf-8") as lines:
        for record in map(json.loads, lines):
            if record["kind"] != "epoch":
                continue
            images = (record["step"] - before) * config["recipe"]["batch_size"]
            seconds += images / record["images_per_second"]
            before = record["step"]
            if record["scores"]:
                run.steps.append(record["step"])
                run.minutes.append(seconds / 60)
                run.scores.append(record["scores"])
    return run


def main(chart: Path, run_dirs: list[Path]) -> None:
    runs = sorted(map(read, run_dirs), key=lambda run: run.steps[-1])
    datasets = sorted({run.dataset for run in runs}, reverse=True)
    figure, panels = plt.subplots(
        1, len(datasets), figsize=(4.2 * len(datasets), 3.8), layout="constrained", squeeze=False
    )
    for dataset, axes in zip(datasets, panels[0], strict=True):
        longest = {run.recipe: run for run in runs if run.dataset == dataset}
        for run in runs:
            if run.dataset == dataset:
                bold = longest[run.recipe] is run
                axes.plot(
                    run.minutes,
                    [100 * scores["excess"] for scores in run.scores],
                    color=COLOURS[run.recipe],
                    lw=2 if bold else 0.7,
                    label=run.recipe if bold else None,
                )
        axes.set_title(dataset)
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xlabel("minutes of training")
        axes.set_ylabel("excess FCD (%)")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter("{x:g}")
        axes.grid(alpha=0.3, which="both")
        axes.legend()
    figure.savefig(chart, dpi=100)
    for run in runs:
        best = min(range(len(run.steps)), key=lambda i: run.scores[i]["fcd"])
        scores = run.scores[best]
        print(
            f"{run.name}: best of {run.steps[-1]} iterations at {run.steps[best]}, "
            f"{run.minutes[best]:.1f} of {run.minutes[-1]:.1f} min: excess {scores['excess']:.2%}, "
            f"precision {scores['precision']:.3f}, recall {scores['recall']:.3f}"
        )


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), [Path(argument) for argument in sys.argv[2:]])
