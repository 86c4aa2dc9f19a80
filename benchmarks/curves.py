"""The scores of runs over their training time, of ours and of `benchmarks.textbook`."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Curve:
    """The scored checkpoints of a run, in order."""

    name: str
    dataset: str
    recipe: str
    """And the network, where it is not the fully connected one: "r3gan, conv"."""
    seed: int
    steps: list[int]
    minutes: list[float]
    """Minutes of training steps; scoring, saving, drawing and compiling do not count."""
    scores: list[dict[str, Any]]

    def best(self) -> int:
        """The index of the lowest FCD."""
        return min(range(len(self.steps)), key=lambda i: float(self.scores[i]["fcd"]))


def read_curve(run_dir: Path) -> Curve:
    """The curve of the run in a folder, from config.json and metrics.jsonl."""
    config = json.loads((run_dir / "config.json").read_text("utf-8"))["config"]
    recipe = config["recipe"]
    network = config.get("network", {}).get("network", "mlp")
    name = recipe["recipe"] if network == "mlp" else f"{recipe['recipe']}, {network}"
    curve = Curve(run_dir.name, config["data"]["dataset"], name, config["seed"], [], [], [])
    before, seconds = 0, 0.0
    with (run_dir / "metrics.jsonl").open(encoding="utf-8") as lines:
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
