"""Draw images from an exported generator: `python -m inference.run ARTIFACT -n 64`."""

import argparse
import json
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from . import __version__
from .artifact import ArtifactError
from .cuda import ProviderError
from .generators import GENERATOR_FILE
from .pictures import grid, save_png
from .sampler import Sampler


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.count < 1:
        parser.error(f"--count must be at least 1, got {options.count}")
    logging.basicConfig(format="%(message)s", level=logging.INFO, stream=sys.stderr)
    try:
        sampler = Sampler(
            options.artifact or _newest_artifact(),
            provider=options.provider,
            threads=options.threads,
        )
        if options.info:
            print(json.dumps(json.loads(sampler.metadata.to_json()), indent=2))
            return 0
        if options.check:
            result = sampler.check()
            print(result)
            return 0 if result.passed else 1
        images = sampler.sample(options.count, seed=options.seed, start=options.start)
        save_png(grid(images), options.output)
    except ValueError as error:
        parser.error(str(error))
    except (ArtifactError, ProviderError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    last = options.start + options.count - 1
    print(f"{options.output}: images {options.start} to {last} of seed {options.seed}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=f"python -m {__package__}.run",
        description=__doc__,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add(
        "artifact",
        nargs="?",
        metavar="ARTIFACT",
        help=f"artifact folder or its {GENERATOR_FILE} (default: the newest under runs/)",
    )
    add("-n", "--count", type=int, default=64, help="number of images")
    add("--seed", type=int, default=0, help="which stream of images, 0 to 2^63 - 1")
    add("--start", type=int, default=0, help="index of the first image")
    add(
        "--output",
        type=_png,
        default=Path("samples.png"),
        metavar="FILE.png",
        help="a grid of all images",
    )
    add("--provider", default="auto", help="auto, cpu, cuda or cuda:N")
    add("--threads", type=int, default=1, help="processor threads; 0 for all cores")
    add("--check", action="store_true", help="draw the golden images again and compare")
    add("--info", action="store_true", help="print the contract of the artifact")
    add("--version", action="version", version=__version__)
    return parser


def _png(name: str) -> Path:
    path = Path(name)
    if path.suffix.lower() != ".png":
        raise argparse.ArgumentTypeError(f"must end in .png, got {name!r}")
    return path


def _newest_artifact() -> Path:
    found = list(Path("runs").glob(f"*/artifact/{GENERATOR_FILE}"))
    if not found:
        raise ArtifactError(
            "no ARTIFACT given, and none found as runs/*/artifact: `python -m export.run` makes one"
        )
    return max(found, key=lambda path: path.stat().st_mtime).parent


if __name__ == "__main__":
    sys.exit(main())
