"""The command `ganpack`, which is `python -m ganpack` too. It hands each word to a command.

`train` and what follows it belong to the checkout; the wheel does not contain them.
"""

import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from . import __version__
from .errors import end_at_interrupt, reporting
from .runtime.installation import MissingError, how_to_get
from .writing.console import safe_output

_DRAWING = {"draw": (), "check": ("--check",), "info": ("--info",), "doctor": ("--doctor",)}
"""Commands of `run`, and the options that they stand for."""
_CHECKOUT = {
    "train": "training.run",
    "export": "export.run",
    "score": "export.score",
    "report": "training.report",
    "compare": "training.compare",
}
"""Modules of the checkout."""
_HELP = """\
usage: ganpack COMMAND [ARGUMENTS]

  draw     generate images with an artifact
  check    generate its golden images again, and compare them with PyTorch's
  info     say what an artifact is
  doctor   report libraries and devices, and what CUDA still needs

In a checkout, with its environment activated:

  train    train a GAN
  export   make an artifact of a run
  score    score a run, a snapshot or an artifact
  report   write report.html of a run
  compare  compare runs

ganpack COMMAND --help lists the arguments of a command. ganpack --version prints the version."""


@safe_output()
def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    if arguments is None:  # this is a process of its own; the imports below take a second
        end_at_interrupt()
    words = list(sys.argv[1:] if arguments is None else arguments)
    name = words[0] if words else "--help"
    if name in _DRAWING:
        from .run import main as draw

        return draw([*_DRAWING[name], *words[1:]], program=f"ganpack {name}")
    if name in _CHECKOUT:
        return reporting(lambda: _run_of_checkout(name, words[1:]))
    if name in {"-h", "--help", "help"}:
        print(_HELP)
        return 0
    if name == "--version":
        print(__version__)
        return 0
    commands = ", ".join([*_DRAWING, *_CHECKOUT])
    print(f"error: ganpack has no command {name!r}: take one of {commands}", file=sys.stderr)
    return 2


def _run_of_checkout(name: str, arguments: Sequence[str]) -> int:
    folder, _, file = _CHECKOUT[name].partition(".")
    # In the wheel this package has another name, and a stranger's `training` may lie beside it.
    in_checkout = reporting.__module__ == "inference.errors"
    if not in_checkout or not (Path(__file__).parents[1] / folder / f"{file}.py").is_file():
        raise MissingError(f"ganpack {name} is not part of this installation. {how_to_get()}")
    try:
        module = import_module(_CHECKOUT[name])
    except ModuleNotFoundError as error:
        raise MissingError(str(error)) from None
    code: int = module.main(arguments)
    return code


if __name__ == "__main__":
    sys.exit(main())
