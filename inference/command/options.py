"""The options of `python -m inference.run`."""

import argparse
import os
from pathlib import Path

from .. import __version__
from ..model_files.artifact_files import GENERATOR_FILE
from ..writing.outputs import KINDS
from ..writing.pictures import ANIMATIONS, PICTURES

# "inference" in a checkout, "ganpack" in the wheel.
_PACKAGE = __name__.removesuffix(".command.options")
_DEFAULT_WALK = 8
_DEFAULT_COUNT = 64
_DEFAULT_ROW = 10


def parser(program: str | None = None) -> argparse.ArgumentParser:
    """The parser of the command line. Pass its result to `check`.

    program: what the user types; by default the module.
    """
    command = program or f"python -m {_PACKAGE}.run"
    draws = program in {None, "ganpack draw"}  # the other names have an option built in
    description = (
        f"Generate images with an exported generator.\n\n"
        f"{command} runs/NAME/artifact -n 64 --output samples.png\n"
        f"{command} runs/NAME/artifact -n 1000000 --seed 7 --output images.npy"
    )
    made = argparse.ArgumentParser(
        prog=command,
        usage=f"{command} [ARTIFACT] [OPTIONS]",
        description=description if draws else description.partition("\n")[0],
        formatter_class=_Formatter,
    )
    made.add_argument(
        "artifact",
        nargs="?",
        metavar="ARTIFACT",
        help=f"artifact folder or its {GENERATOR_FILE} (default: the newest under runs/)",
    )
    _add_images(made)
    _add_output(made)
    add = made.add_argument_group("how it runs").add_argument
    add("--provider", default="auto", metavar="NAME", help="auto, cpu, cuda or cuda:N")
    add("--threads", type=int, default=1, metavar="N", help="processor threads; 0 for all cores")
    add("--tf32", action="store_true", help="let CUDA round to 10 bits: faster, less exact")
    _add_foreign(made)
    add = made.add_argument_group("about the artifact").add_argument
    add("--info", action="store_true", help="say what it is, and stop")
    add("--check", action="store_true", help="generate its golden images again, and compare")
    add("--doctor", action="store_true", help="report provider, libraries and devices")
    add("--json", action="store_true", help="with --info or --doctor: print JSON")
    return made


def check(command: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """Exit with a usage error if options contradict one another; fill in their defaults."""
    suffix = Path(options.output).suffix.lower()
    if not options.output:
        command.error(f"--output must be {KINDS}, or an animation; got an empty name")
    if options.walk is not None and options.count is not None:
        command.error("--walk N is the number of images, so -n cannot be another")
    if options.walk is None and suffix in ANIMATIONS.keys() - {".png"}:
        options.walk = _DEFAULT_WALK if options.count is None else options.count
        if options.walk < 2:
            command.error(f"an animation walks between at least 2 images, got -n {options.walk}")
    if options.walk is not None and suffix not in ANIMATIONS:
        command.error(f"--walk goes to a {', '.join(ANIMATIONS)} file, got {options.output!r}")
    is_grid = suffix in PICTURES and options.walk is None
    if options.captions and not is_grid:
        command.error("--captions go on a grid, a .png or .jpg file without --walk")
    if options.per_class and (not is_grid or options.label):
        command.error("--per-class makes a grid of all classes, a .png or .jpg file: no --label")
    if options.threads > (cores := os.cpu_count() or 1):
        command.error(f"--threads {options.threads}: this machine has {cores} cores; 0 takes all")
    if options.json and not (options.doctor or options.info):
        command.error("--json goes with --info or --doctor")
    least = {"count": 1, "walk": 2, "steps": 1, "scale": 1}
    for name, minimum in least.items():
        value = getattr(options, name)
        if value is not None and value < minimum:
            command.error(f"--{name} must be at least {minimum}, got {value}")
    if options.count is None:
        options.count = _DEFAULT_ROW if options.per_class else _DEFAULT_COUNT


class _Formatter(argparse.RawDescriptionHelpFormatter, argparse.ArgumentDefaultsHelpFormatter):
    """Adds the default to an option's help, unless it is None or False."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        if action.default is None or action.default is False:
            return action.help
        return super()._get_help_string(action)


def _add_images(made: argparse.ArgumentParser) -> None:
    add = made.add_argument_group("which images").add_argument
    add(
        "-n",
        "--count",
        type=int,
        metavar="N",
        help=f"number of images (default: {_DEFAULT_COUNT}; with --per-class {_DEFAULT_ROW} of "
        "each class)",
    )
    add("--seed", type=int, default=0, metavar="N", help="seed of the images, 0 to 2^63 - 1")
    add(
        "--start",
        type=int,
        default=0,
        metavar="N",
        help="index of the first image, 0 to 2^63 - COUNT; also continues a stopped job",
    )
    add(
        "--label",
        metavar="NAME|NUMBER",
        help="class of all images (default: a random class for each image; a walk keeps that of "
        "its first image)",
    )
    add("--per-class", action="store_true", help="a grid with a row of images for each class")
    add(
        "--walk",
        type=int,
        metavar="N",
        help="a loop through latent space by way of N images, at least 2 "
        f"(default: -n, or {_DEFAULT_WALK}, for .gif and .webp; else none)",
    )
    add("--steps", type=int, default=16, metavar="N", help="frames of a walk between two images")
    add("--fps", type=float, default=20, metavar="X", help="frames of a walk in a second")


def _add_foreign(made: argparse.ArgumentParser) -> None:
    add = made.add_argument_group("ONNX files of other programs").add_argument
    add(
        "--allow-foreign",
        action="store_true",
        help="accept ONNX generators of other programs, and artifacts that were changed after "
        "their export; only files that you trust",
    )
    add("--latent-dim", type=int, metavar="N", help="length of z, if the graph does not say it")
    add(
        "--image-shape",
        type=int,
        nargs=3,
        metavar=("C", "H", "W"),
        help="shape of an image, if the graph does not say it",
    )
    add(
        "--value-range",
        type=float,
        nargs=2,
        metavar=("BLACK", "WHITE"),
        help="values of black and white, if the graph does not say them",
    )


def _add_output(made: argparse.ArgumentParser) -> None:
    add = made.add_argument_group("where to").add_argument
    add(
        "--output",
        default="samples.png",
        metavar="PATH",
        help=f"{KINDS}; .gif, .webp or, with --walk, .png for an animation",
    )
    add("--force", action="store_true", help="overwrite existing files")
    add("--captions", action="store_true", help="write seed/index below each image of a grid")
    add(
        "--scale",
        type=int,
        default=1,
        metavar="N",
        help="enlarge each pixel to a square of N pixels",
    )
    made.add_argument("--version", action="version", version=__version__)
