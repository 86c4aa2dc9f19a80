"""Draw the losses of a run: `python scripts/loss_chart.py RUN_DIR CHART.png`."""

import json
import sys
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
import numpy as np


def main(run_dir: Path, chart: Path) -> None:
    with (run_dir / "metrics.jsonl").open(encoding="utf-8") as lines:
        records = [json.loads(line) for line in lines]
    iterations = [record for record in records if record["kind"] == "iteration"]
    epochs = [record for record in records if record["kind"] == "epoch"]
    steps = np.array([record["step"] for record in iterations])
    figure, axes = plt.subplots(figsize=(7.2, 3.6), layout="constrained")
    for name, label, colour in (
        ("loss_g", "generator", "tab:blue"),
        ("loss_d", "discriminator", "tab:orange"),
    ):
        axes.plot(steps, [record[name] for record in iterations], color=colour, alpha=0.2, lw=0.4)
        means = [record[name] for record in epochs]
        axes.plot([record["step"] for record in epochs], means, color=colour, lw=2, label=label)
    axes.set_title("Losses of both networks: every iteration, and each epoch's mean")
    axes.set_xlabel("iteration")
    axes.set_ylabel("binary cross entropy (nats)")
    axes.set_ylim(0, None)
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(chart, dpi=100)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), Path(sys.argv[2]))
