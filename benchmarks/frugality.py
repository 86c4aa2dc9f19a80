"""What a run spends besides its steps, in time and files, with few and with many images.

Exits with 1 if averages, grids and snapshots take more than a tenth of the time, or if a run writes
more than 200 MB.

python -m benchmarks.frugality

python -m benchmarks.frugality --images 20 60000 --iterations 20000
"""

import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import tyro

from benchmarks.figures import write_figures
from inference.writing.pictures import save_png
from training.config import DataConfig, RecipeConfig
from training.data.datasets import load_images
from training.run_folder.config_file import read_seconds
from training.run_folder.folder import RunFolder

MOST_SHARE = 0.1
MOST_MEGABYTES = 200
_FILES = ("average", "samples", "checkpoints")  # phases that make pictures and snapshots


@dataclass(frozen=True)
class FrugalityConfig:
    """Which runs to measure."""

    images: tuple[int, ...] = (20, 200, 2_000, 60_000)
    """Sizes of the folders: PNG files without labels."""
    iterations: int = 2_000
    """The most iterations of a run; the default settings would take 200 epochs."""
    device: Literal["auto", "cuda", "cpu"] = "auto"
    dataset: Literal["mnist", "digits"] = "mnist"
    """Where the images of the folders come from."""
    data_dir: Path = Path("data")
    json: Path | None = None
    """File to write the figures to."""


def measure(config: FrugalityConfig, count: int, folder: Path) -> dict[str, Any]:
    """The seconds and megabytes of one run, as JSON values."""
    images, run_dir = folder / "images", folder / "run"
    images.mkdir(parents=True)
    pixels = load_images(DataConfig(config.dataset, config.data_dir)).pixels[:count, 0].numpy()
    for i, each in enumerate(pixels):
        save_png(each, images / f"{i:05d}.png", sync=False)
    batch_size = min(RecipeConfig().batch_size, count)
    iterations = min(config.iterations, 200 * count // batch_size)
    options = {
        "--dataset": images,
        "--data-dir": config.data_dir,
        "--batch-size": batch_size,
        "--iterations": iterations,
        "--device": config.device,
        "--run-dir": run_dir,
    }
    arguments = [str(part) for option in options.items() for part in option]
    subprocess.run([sys.executable, "-m", "training.run", *arguments], check=True)
    found = RunFolder(run_dir)
    seconds = read_seconds(found)
    kept = [*found.checkpoints.iterdir(), *found.samples.iterdir()]
    return {
        "images": count,
        "iterations": iterations,
        "seconds": seconds,
        "share": sum(seconds.get(name, 0.0) for name in _FILES) / sum(seconds.values()),
        "megabytes_of_snapshots_and_grids": sum(path.stat().st_size for path in kept) / 1e6,
        "megabytes": sum(p.stat().st_size for p in run_dir.rglob("*") if p.is_file()) / 1e6,
    }


def line(figures: dict[str, Any]) -> str:
    """The figures of a run for a person."""
    return (
        f"{figures['images']:6} images, {figures['iterations']:6} iterations: "
        f"{figures['share']:5.1%} of {sum(figures['seconds'].values()):.0f} s for averages, grids "
        f"and snapshots; {figures['megabytes']:.0f} MB of files, "
        f"{figures['megabytes_of_snapshots_and_grids']:.0f} MB of them grids and snapshots"
    )


def is_frugal(figures: dict[str, Any]) -> bool:
    """Whether a run stayed within both limits."""
    return bool(figures["share"] <= MOST_SHARE and figures["megabytes"] <= MOST_MEGABYTES)


def main() -> None:
    """Measure and print; with --json, also write a file."""
    config = tyro.cli(FrugalityConfig, prog="python -m benchmarks.frugality", description=__doc__)
    runs = []
    for count in config.images:
        with tempfile.TemporaryDirectory() as folder:
            runs.append(measure(config, count, Path(folder)))
        print(line(runs[-1]), flush=True)
        write_figures(config.json, {"runs": runs})
    if not all(map(is_frugal, runs)):
        sys.exit(f"the limits are {MOST_SHARE:.0%} of the time, and {MOST_MEGABYTES} MB of files")


if __name__ == "__main__":
    main()
