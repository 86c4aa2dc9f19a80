"""Turn a run's best checkpoint into an artifact: files that draw images and match PyTorch.

python -m export.run

python -m export.run runs/mnist-20261123-154500
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro


@dataclass(frozen=True)
class ExportConfig:
    """What to export, and where to."""

    run_dir: Annotated[Path | None, tyro.conf.Positional, tyro.conf.arg(metavar="RUN_DIR")] = None
    """Folder of a run; by default the newest under runs/."""
    checkpoint: Path | None = None
    """Export this checkpoint, not the best of the run."""
    output: Path | None = None
    """Folder to write; by default RUN_DIR/artifact."""
    precision: Literal["fp32", "fp16"] = "fp32"
    """Of the weights in the ONNX files; fp16 halves them, if its images score as well."""
    dataset: str | None = None
    """Real images that fp16 is scored by; by default those it was trained on."""
    data_dir: Path = Path("data")
    """Where data sets are downloaded to."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    config = tyro.cli(
        ExportConfig, prog="python -m export.run", description=__doc__, args=arguments
    )
    # torch only once the usage is right
    from export.artifact_folder import ExportError, best_checkpoint, export
    from export.parity import ParityError, tightest
    from inference.artifact import ArtifactError
    from training.checkpoint import CheckpointError
    from training.config import ConfigError
    from training.data import DataError
    from training.run_folder import RunFolderError, newest_run

    try:
        checkpoint = config.checkpoint or best_checkpoint(config.run_dir or newest_run())
        run_dir = config.run_dir or checkpoint.parent.parent  # RUN_DIR/checkpoints/FILE
        output = config.output or run_dir / "artifact"
        checks = export(checkpoint, output, config.precision, config.dataset, config.data_dir)
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except (
        ArtifactError, CheckpointError, DataError, ExportError, ParityError, RunFolderError,
        OSError,
    ) as error:  # fmt: skip
        print(f"error: {error}", file=sys.stderr)
        return 1
    worst = tightest(checks)
    files = dict.fromkeys(check.file for check in checks)
    print(
        f"{output}: {checkpoint.name} as {', '.join(files)}; "
        f"{len(checks)} checks against PyTorch passed, largest difference "
        f"{worst.max_difference:.2g} of {worst.tolerance:.2g} allowed\n"
        f"draw from it: python -m inference.run {output}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
