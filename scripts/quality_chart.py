"""Plot excess FCD over iterations: `python scripts/quality_chart.py CHART.png RUN_DIR …`.

The chart has a panel for each data set, and a colour for each recipe and network. If several runs
have the same colour, the longest one is bold. The program prints the best snapshot of each run.
"""

import sys
from pathlib import Path

import matplotlib as mpl

from benchmarks.curves import Curve, read_curve

mpl.use("Agg")

import matplotlib.pyplot as plt
from matplotlib.ticker import LogLocator, NullFormatter

COLOURS = {
    "textbook": "tab:gray", "bce": "tab:blue", "r3gan": "tab:red", "hinge": "tab:green",
    "r3gan, conv": "tab:purple", "bce, conv": "tab:cyan", "hinge, conv": "tab:olive",
}  # fmt: skip


def main(chart: Path, run_dirs: list[Path]) -> None:
    curves = sorted(map(read_curve, run_dirs), key=lambda curve: curve.steps[-1])
    datasets = sorted({curve.dataset for curve in curves}, reverse=True)
    figure, panels = plt.subplots(
        1, len(datasets), figsize=(4.2 * len(datasets), 3.8), layout="constrained", squeeze=False
    )
    for dataset, axes in zip(datasets, panels[0], strict=True):
        of_dataset = [curve for curve in curves if curve.dataset == dataset]
        longest = {curve.recipe: curve for curve in of_dataset}
        for curve in of_dataset:
            bold = longest[curve.recipe] is curve
            axes.plot(
                curve.steps,
                [100 * scores["excess"] for scores in curve.scores],
                color=COLOURS[curve.recipe],
                lw=2 if bold else 0.7,
                label=curve.recipe if bold else None,
            )
        axes.set_title(dataset)
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xlabel("iterations")
        axes.set_ylabel("excess FCD (%)")
        for axis, subs in ((axes.xaxis, (1,)), (axes.yaxis, (1, 2, 5))):
            axis.set_major_locator(LogLocator(subs=subs))
            axis.set_major_formatter("{x:,g}")
            axis.set_minor_formatter(NullFormatter())
        axes.grid(alpha=0.3, which="both")
        axes.legend()
    figure.savefig(chart, dpi=100)
    for curve in curves:
        print(describe(curve))


def describe(curve: Curve) -> str:
    """The best snapshot of a run, in one line."""
    best = curve.best()
    scores = curve.scores[best]
    return (
        f"{curve.name}: best of {curve.steps[-1]} iterations at {curve.steps[best]}, "
        f"{curve.minutes[best]:.1f} of {curve.minutes[-1]:.1f} min: excess {scores['excess']:.2%}, "
        f"precision {scores['precision']:.3f}, recall {scores['recall']:.3f}"
    )


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), [Path(argument) for argument in sys.argv[2:]])
