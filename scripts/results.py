"""Show a finished run under docs/results: `python scripts/results.py docs/results RUN_DIR …`.

For each run, this program writes DATASET-RECIPE-curves.png (losses, excess FCD and the choices of
both rules), DATASET-RECIPE-grids.png (images of the same noise during training) and
DATASET-RECIPE.json. With --network conv, --conditional or --differences, the names begin with
DATASET-RECIPE-conv, DATASET-RECIPE-conditional, and so on.
"""

import io
import json
import sys
from pathlib import Path
from typing import Any

import matplotlib as mpl
from PIL import Image

mpl.use("Agg")

import matplotlib.pyplot as plt
from matplotlib.ticker import LogLocator, NullFormatter

from inference.writing.files import atomic_write
from training.pages.charts import binned
from training.pages.run_view import RunView, read_run
from training.records.metrics_file import COLUMNS
from training.run_folder.config_file import to_dict

STEPS = (1_000, 10_000, 20_000, 30_000, 40_000, 50_000, 100_000, 187_000)  # the exercise's steps
COLOURS = {"fcd": "tab:green", "g-loss": "tab:red"}


def main(folder: Path, run_dirs: list[Path]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for run in map(read_run, run_dirs):
        network = run.config.network
        parts = [run.config.data.dataset, run.config.recipe.recipe]
        parts += ["conv"] if network.network == "conv" else []
        parts += [part for part in ("conditional", "differences") if getattr(network, part)]
        name = "-".join(parts)
        save_curves(run, folder / f"{name}-curves.png")
        save_grids(run, folder / f"{name}-grids.png")
        with atomic_write(folder / f"{name}.json") as file:
            file.write((json.dumps(figures(run), indent=1) + "\n").encode())
        print(folder / f"{name}.json")


def save_curves(run: RunView, path: Path) -> None:
    """Plot losses and excess FCD of a run over its iterations."""
    figure, (losses, quality) = plt.subplots(
        2, 1, figsize=(7.2, 5.6), layout="constrained", sharex=True
    )
    for column, label in (("loss_g", "generator"), ("loss_d", "discriminator")):
        x, low, median, high = binned(run.steps, run.losses[:, COLUMNS.index(column)])
        (line,) = losses.plot(x, median, label=label)
        losses.fill_between(x, low, high, color=line.get_color(), alpha=0.2, lw=0)
    recipe, network = run.config.recipe.recipe, run.config.network.network
    losses.set_title(f"{run.config.data.dataset}, {recipe}, {network}")
    losses.set_ylabel("loss (nats): median, 5 to 95 %")
    quality.plot(
        [step for step, _ in run.scored],
        [100 * scores.excess for _, scores in run.scored],
        color="tab:gray",
    )
    for rule, choice in run.choices.items():
        scores = run.scores_of(rule)
        assert scores is not None  # the run has finished
        excess = 100 * scores.excess
        label = f"chosen by {rule}: iteration {choice.step:,}, {excess:.2f} % on test images"
        for axes in (losses, quality):
            axes.axvline(choice.step, color=COLOURS[rule], ls="--", lw=1)
        quality.plot(choice.step, excess, "o", color=COLOURS[rule], label=label)
    quality.set_yscale("log")
    quality.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    quality.yaxis.set_major_formatter("{x:g}")
    quality.yaxis.set_minor_formatter(NullFormatter())
    quality.xaxis.set_major_formatter("{x:,.0f}")
    quality.set_xlabel("iteration")
    quality.set_ylabel("excess FCD (%)")
    for axes in (losses, quality):
        axes.grid(alpha=0.3)
        axes.legend()
    figure.savefig(path, dpi=100)
    plt.close(figure)


def save_grids(run: RunView, path: Path) -> None:
    """Put the grids of several iterations side by side: 8 × 8 images of the same noise.

    The iterations are the exercise's. A shorter run shows others.
    """
    grids = run.folder.grids_by_step()
    of_run = sorted(grids)
    own = (of_run[i * (len(of_run) - 1) // (len(STEPS) - 1)] for i in range(len(STEPS)))
    figure, panels = plt.subplots(2, 4, figsize=(9.6, 5.3), layout="constrained")
    for step, axes in zip(STEPS if STEPS[-1] in grids else own, panels.flat, strict=True):
        axes.set_axis_off()
        if step in grids:
            axes.set_title(f"iteration {step:,}", fontsize=10)
            axes.imshow(Image.open(grids[step]).convert("L"), cmap="gray", vmin=0, vmax=255)
    picture = io.BytesIO()
    figure.savefig(picture, dpi=100)
    plt.close(figure)
    Image.open(picture).convert("L").save(path, optimize=True)  # grey needs a third of the size


def figures(run: RunView) -> dict[str, Any]:
    """Settings, machine and results of the run, as JSON values."""
    return {
        "config": to_dict(run.config),
        "machine": run.facts.machine,
        "versions": run.facts.versions,
        "git_commit": run.facts.git_commit,
        "iterations": run.step,
        "minutes": round(float(run.minutes()[-1]), 1),
        "choices": {
            rule: {"step": choice.step, "scores": scores.to_dict() if scores else {}}
            for rule, choice in run.choices.items()
            for scores in [run.scores_of(rule)]
        },
        "curve": [
            {"step": step, "fcd": scores.fcd, "excess": scores.excess, "recall": scores.recall}
            for step, scores in run.scored
        ],
    }


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), [Path(argument) for argument in sys.argv[2:]])
