"""Export the best generator of a run: files that generate images and match PyTorch.

python -m export.run

python -m export.run runs/mnist-20261123-154500
"""

if __name__ == "__main__":  # before the imports below, which take a second
    from inference.errors import end_at_interrupt

    end_at_interrupt()

import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from inference.errors import interruptible, reporting
from inference.runtime import telemetry
from inference.writing.console import safe_output
from training.command_line import by_default, command_line


@dataclass(frozen=True)
class ExportConfig:
    """What to export, and where to write it."""

    run_dir: Annotated[
        Path | None, tyro.conf.Positional, by_default("the newest under runs/", "RUN_DIR")
    ] = None
    """Folder of a run."""
    checkpoint: Annotated[Path | None, by_default("the best of the run", "FILE.pt")] = None
    """Generator snapshot to export."""
    output: Annotated[Path | None, by_default("RUN_DIR/artifact", "FOLDER")] = None
    """Folder to write."""
    precision: Literal["fp32", "fp16"] = "fp32"
    """Precision of the weights in the ONNX files. fp16 halves the size; the export fails if its
    images score worse."""
    dataset: Annotated[str | None, by_default("what it was trained on", "NAME|FOLDER")] = None
    """Real images to score fp16 against."""
    data_dir: Path = Path("data")
    """Folder that data sets are downloaded to."""


@safe_output()
def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    telemetry.switch_off()
    config = command_line(ExportConfig, "export.run", __doc__, arguments)
    return reporting(lambda: _export(config))


def _export(config: ExportConfig) -> int:
    # PyTorch is imported only if the usage is right
    from export.artifact_folder import best_checkpoint, export
    from export.parity import tightest
    from training.run_folder.folder import RunFolder, newest_run

    checkpoint = config.checkpoint or best_checkpoint(config.run_dir or newest_run())
    folder = RunFolder(config.run_dir) if config.run_dir else RunFolder.of_checkpoint(checkpoint)
    output = config.output or folder.artifact
    with interruptible():
        checks = export(checkpoint, output, config.precision, config.dataset, config.data_dir)
    worst = tightest(checks)
    files = dict.fromkeys(check.file for check in checks)
    print(
        f"{output}: {checkpoint.name} as {', '.join(files)}; "
        f"{len(checks)} checks against PyTorch passed, largest difference "
        f"{worst.max_difference:.2g} of {worst.tolerance:.2g} allowed\n"
        f"generate images: python -m inference.run {shlex.quote(str(output))}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
