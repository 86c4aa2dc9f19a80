"""Write report.html, a page about a run in one file. It works while the run trains, too.

python -m training.report

python -m training.report runs/mnist-20261123-154500
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
from training.command_line import by_default, command_line
from training.pages.report import write_report
from training.run_folder.folder import newest_run


@dataclass(frozen=True)
class ReportConfig:
    """Which run to report on, and where to write the page."""

    run_dir: Annotated[
        Path | None, tyro.conf.Positional, by_default("the newest under runs/", "RUN_DIR")
    ] = None
    """Folder of a run, finished or not."""
    output: Annotated[Path | None, by_default("RUN_DIR/report.html", "FILE.html")] = None
    """File to write."""


@safe_output()
def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    options = command_line(ReportConfig, "training.report", __doc__, arguments)
    return reporting(lambda: _report(options))


def _report(options: ReportConfig) -> int:
    print(write_report(options.run_dir or newest_run(), options.output))
    return 0


if __name__ == "__main__":
    sys.exit(main())
