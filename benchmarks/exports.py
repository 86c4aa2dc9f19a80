"""Export short runs of both networks, and compare each file with PyTorch on all providers.

python -m benchmarks.exports --json exports.json
"""

import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import tyro

from benchmarks.engines import TINY, data_for
from benchmarks.figures import device_named, write_figures
from export.artifact_folder import best_checkpoint, export
from export.parity import Check, ParityError
from training.config import RECIPES, NetworkConfig, TrainConfig
from training.engine.machine import describe_machine
from training.train import train


@dataclass(frozen=True)
class ExportsConfig:
    """What to train before it is exported."""

    device: Literal["auto", "cuda", "cpu"] = "auto"
    networks: tuple[Literal["mlp", "conv"], ...] = ("mlp", "conv")
    iterations: int = 1000
    tiny: bool = False
    """Train networks of a few neurons, to check that this program works."""
    dataset: str = "mnist"
    data_dir: Path = Path("data")
    json: Path | None = None
    """File to write the figures to; rewritten after each export."""


def measure(config: ExportsConfig) -> dict[str, Any]:
    """Measure everything; the figures as JSON values."""
    rows: dict[str, Any] = {}
    figures = {"machine": describe_machine(device_named(config.device)), "exports": rows}
    with tempfile.TemporaryDirectory() as folder:
        for network in config.networks:
            run_dir = Path(folder) / network
            train(_settings(config, network), run_dir)
            begin = time.monotonic()
            try:
                checks = export(best_checkpoint(run_dir), run_dir / "artifact")
                rows[network] = {"largest": _largest(checks)}
            except ParityError as error:
                rows[network] = {"failed": str(error)}
            rows[network]["seconds"] = round(time.monotonic() - begin, 1)
            print(_lines(network, rows[network]), flush=True)
            write_figures(config.json, figures)
    return figures


def _settings(config: ExportsConfig, network: Literal["mlp", "conv"]) -> TrainConfig:
    return TrainConfig(
        data=data_for(config.dataset, config.data_dir, tiny=config.tiny),
        network=replace(TINY if config.tiny else NetworkConfig(), network=network),
        recipe=RECIPES["r3gan"],
        iterations=config.iterations,
        score_every=config.iterations,
        device=config.device,
        engine="plain",
    )


def _largest(checks: list[Check]) -> dict[str, Any]:
    """The largest and the allowed difference of each file on each provider."""
    found: dict[str, Any] = {}
    for check in checks:
        row = found.setdefault(
            f"{check.file} on {check.provider}",
            {"difference": 0.0, "allowed": check.tolerance, "pixels": 0},
        )
        row["difference"] = max(row["difference"], check.max_difference or 0.0)
        row["pixels"] = max(row["pixels"], check.differing_pixels or 0)
    return found


def _lines(network: str, row: dict[str, Any]) -> str:
    if "failed" in row:
        return f"{network}: FAILED after {row['seconds']} s: {row['failed']}"
    lines = [f"{network}: exported and checked in {row['seconds']} s"]
    lines += [
        f"    {name:40} {each['difference']:.2g} of {each['allowed']:.2g} allowed, "
        f"{each['pixels']} pixels differ"
        for name, each in row["largest"].items()
    ]
    return "\n".join(lines)


def main() -> int:
    """Train, export and print; with --json, also write a file. Returns 1 if an export failed."""
    config = tyro.cli(ExportsConfig, prog="python -m benchmarks.exports", description=__doc__)
    return int(any("failed" in row for row in measure(config)["exports"].values()))


if __name__ == "__main__":
    raise SystemExit(main())
