"""Compare runs: the settings that differ, the scores, the speed and, on a page, the images.

python -m training.compare runs/mnist-20261123-154500 runs/mnist-20261124-090000

python -m training.compare runs/*/ --output compare.html
"""

if __name__ == "__main__":  # before the imports below, which take a second
    from inference.errors import end_at_interrupt

    end_at_interrupt()

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from inference.errors import reporting
from inference.writing.console import safe_output
from training.command_line import command_line
from training.config import ConfigError
from training.pages.comparison import compare, table, write_comparison
from training.pages.run_view import read_run


@dataclass(frozen=True)
class CompareConfig:
    """Which runs to compare, and where to write the page."""

    run_dirs: Annotated[
        tuple[Path, ...],
        tyro.conf.Positional,
        tyro.conf.arg(metavar="RUN_DIR RUN_DIR …", help_behavior_hint="(required)"),
    ]
    """At least two folders of runs, finished or not."""
    output: Annotated[Path, tyro.conf.arg(metavar="FILE.html")] = Path("compare.html")
    """Page to write, with the table, a chart and images."""


@safe_output()
def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    command = command_line(CompareConfig, "training.compare", __doc__, arguments)
    return reporting(lambda: _compare(command))


def _compare(command: CompareConfig) -> int:
    if len(command.run_dirs) < 2:
        raise ConfigError("at least two RUN_DIRs are needed to compare")
    runs = [read_run(run_dir) for run_dir in command.run_dirs]
    groups = compare(runs)
    print(table(runs, groups))
    write_comparison(runs, groups, command.output)
    print(f"\nwith a chart and images: {command.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
