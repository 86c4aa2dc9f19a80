"""Scores over training time, for runs of ganpack and of `benchmarks.textbook`."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.run_folder.folder import RunFolder


@dataclass(frozen=True)
class Curve:
    """The scored snapshots of a run, in order."""

    name: str
    dataset: str
    recipe: str
    """With the network, unless it is fully connected: "r3gan, conv"."""
    seed: int
    steps: list[int]
    minutes: list[float]
    """Minutes of training steps; scoring, saving, grids and compiling do not count."""
    scores: list[dict[str, Any]]

    def best(self) -> int:
        """The index of the lowest FCD."""
        return min(range(len(self.steps)), key=lambda i: float(self.scores[i]["fcd"]))


def read_curve(run_dir: Path) -> Curve:
    """Read the curve of a run from its config.json and metrics.jsonl."""
    folder = RunFolder(run_dir)
    config = json.loads(folder.config.read_text("utf-8"))["config"]
    recipe = config["recipe"]
    network = config.get("network", {}).get("network", "mlp")
    name = recipe["recipe"] if network == "mlp" else f"{recipe['recipe']}, {network}"
    curve = Curve(run_dir.name, config["data"]["dataset"], name, config["seed"], [], [], [])
    before, seconds = 0, 0.0
    with folder.metrics.open(encoding="utf-8") as lines:
        for record in map(json.loads, lines):
            if record["kind"] != "epoch":
                continue
            images = (record["step"] - before) * recipe["batch_size"]
            seconds += images / record["images_per_second"]
            before = record["step"]
            if record["scores"]:
                curve.steps.append(record["step"])
                curve.minutes.append(seconds / 60)
                curve.scores.append(record["scores"])
    return curve
