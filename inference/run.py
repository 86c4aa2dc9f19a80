"""Draw images from an exported generator: `python -m inference.run ARTIFACT -n 64`."""

import argparse
import json
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from . import __version__
from .artifact import ArtifactError
from .cuda import ProviderError
from .doctor import describe, examine, examine_sampler
from .generators import GENERATOR_FILE
from .long_job import Progress, Stopped, stoppable
from .outputs import KINDS, PIPE, Job, require_free, writer_for
from .pictures import ANIMATIONS, enlarge, save_animation
from .sampler import Sampler
from .walks import closed_walk

_BATCH = 1024
_DEFAULT_WALK = 8


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    parser = _parser()
    options = parser.parse_args(arguments)
    _check_usage(parser, options)
    logging.basicConfig(format="%(message)s", level=logging.INFO, stream=sys.stderr)
    try:
        if options.doctor:
            return _doctor(options)
        with _sampler(options) as sampler:
            if options.info:
                print(json.dumps(json.loads(sampler.metadata.to_json()), indent=2))
                return 0
            if options.check:
                result = sampler.check()
                print(result)
                return 0 if result.passed else 1
            return _walk(sampler, options) if options.walk else _draw(sampler, options)
    except ValueError as error:
        parser.error(str(error))
    except BrokenPipeError:
        # Nobody reads any more. Python would find that out again at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (ArtifactError, ProviderError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def _draw(sampler: Sampler, options: argparse.Namespace) -> int:
    count, seed, start, output = options.count, options.seed, options.start, options.output
    channels, height, width = sampler.metadata.image_shape
    shape = (height, width) if channels == 1 else (height, width, channels)
    batches = sampler.stream(count, seed=seed, start=start, batch_size=_BATCH)
    job = Job(count, shape, seed, start, options.captions, options.scale)
    writer = writer_for(output, job, force=options.force)
    progress = Progress(count)
    try:
        with stoppable() as stop, writer:
            for batch in batches:
                writer.write(batch)
                progress.show(writer.done)
                stop.check()
    except Stopped as stopped:
        progress.end()
        done = writer.done
        print(
            f"stopped: {done} of {count} images are written. Go on with "
            f"--start {start + done} --count {count - done}"
            if done else "stopped: nothing is written", file=sys.stderr,
        )  # fmt: skip
        return stopped.exit_code
    progress.end()
    if output != PIPE:
        print(f"{output}: images {start} to {start + count - 1} of seed {seed}")
    return 0


def _walk(sampler: Sampler, options: argparse.Namespace) -> int:
    require_free(options.output, force=options.force)
    z = sampler.latents(options.walk, seed=options.seed, start=options.start)
    frames = enlarge(sampler.decode(closed_walk(z, options.steps)), options.scale)
    save_animation(frames, options.output, fps=options.fps)
    last = options.start + options.walk - 1
    print(
        f"{options.output}: {len(frames)} frames through images {options.start} to {last} of seed "
        f"{options.seed} and back"
    )
    return 0


def _doctor(options: argparse.Namespace) -> int:
    report, failed = examine(), False
    try:
        with _sampler(options) as sampler:
            report["artifact"] = examine_sampler(sampler)
            failed = "FAILED" in report["artifact"]["golden_images"]
    except (ArtifactError, ProviderError, OSError) as error:
        report["artifact"] = {"problem": str(error)}
        failed = options.artifact is not None or options.provider.startswith("cuda")
    print(json.dumps(report, indent=2) if options.json else describe(report))
    return int(failed)


def _sampler(options: argparse.Namespace) -> Sampler:
    return Sampler(
        options.artifact or _newest_artifact(),
        provider=options.provider,
        threads=options.threads,
        tf32=options.tf32,
    )


def _check_usage(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    suffix = Path(options.output).suffix.lower()
    if options.walk is None and suffix in ANIMATIONS.keys() - {".png"}:
        options.walk = _DEFAULT_WALK
    if options.walk is not None and suffix not in ANIMATIONS:
        parser.error(f"--walk goes to a {', '.join(ANIMATIONS)} file, got {options.output!r}")
    if options.captions and (options.walk is not None or suffix != ".png"):
        parser.error("--captions go on a grid, a .png file without --walk")
    if options.json and not options.doctor:
        parser.error("--json goes with --doctor")
    least = {"count": 1, "walk": 2, "steps": 1, "scale": 1}
    for name, minimum in least.items():
        value = getattr(options, name)
        if value is not None and value < minimum:
            parser.error(f"--{name} must be at least {minimum}, got {value}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=f"python -m {__package__}.run",
        description=__doc__,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    newest = "(default: the newest under runs/)"
    add(
        "artifact",
        nargs="?",
        metavar="ARTIFACT",
        help=f"artifact folder or its {GENERATOR_FILE} {newest}",
    )
    add("-n", "--count", type=int, default=64, help="number of images")
    add("--seed", type=int, default=0, help="which stream of images, 0 to 2^63 - 1")
    add("--start", type=int, default=0, help="index of the first image")
    add(
        "--output",
        default="samples.png",
        help=f"{KINDS}; .gif, .webp or, with --walk, .png for an animation",
    )
    add("--force", action="store_true", help="write over what is there")
    add("--captions", action="store_true", help="write seed/index below the images of a grid")
    add("--scale", type=int, default=1, help="pixels of a picture's side for each of an image")
    add(
        "--walk",
        type=int,
        metavar="N",
        default=None,
        help=f"a loop through latent space by way of N images ({_DEFAULT_WALK} for .gif, .webp)",
    )
    add("--steps", type=int, default=16, help="frames of a walk from one image to the next")
    add("--fps", type=float, default=20, help="frames of a walk in a second")
    add("--provider", default="auto", help="auto, cpu, cuda or cuda:N")
    add("--threads", type=int, default=1, help="processor threads; 0 for all cores")
    add("--tf32", action="store_true", help="let CUDA round to 10 bits: faster, a level apart")
    add("--check", action="store_true", help="draw the golden images again and compare")
    add("--info", action="store_true", help="print the contract of the artifact")
    add("--doctor", action="store_true", help="say what this machine draws on, and why")
    add("--json", action="store_true", help="with --doctor: as JSON, for a bug report")
    add("--version", action="version", version=__version__)
    return parser


def _newest_artifact() -> Path:
    found = list(Path("runs").glob(f"*/artifact/{GENERATOR_FILE}"))
    if not found:
        raise ArtifactError(
            "no ARTIFACT given, and none found as runs/*/artifact: `python -m export.run` makes one"
        )
    return max(found, key=lambda path: path.stat().st_mtime).parent


if __name__ == "__main__":
    sys.exit(main())
