"""Draw images from an exported generator: `python -m inference.run ARTIFACT -n 64`."""

import argparse
import json
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from .artifact import ArtifactError
from .cuda import ProviderError
from .doctor import describe, examine, examine_sampler
from .generators import GENERATOR_FILE
from .long_job import Progress, Stopped, stoppable
from .options import check, parser
from .outputs import PIPE, Job, require_free, writer_for
from .pictures import enlarge, save_animation
from .sampler import Sampler
from .walks import closed_walk

_BATCH = 1024


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    command = parser()
    options = command.parse_args(arguments)
    check(command, options)
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
        command.error(str(error))
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


def _newest_artifact() -> Path:
    found = list(Path("runs").glob(f"*/artifact/{GENERATOR_FILE}"))
    if not found:
        raise ArtifactError(
            "no ARTIFACT given, and none found as runs/*/artifact: `python -m export.run` makes one"
        )
    return max(found, key=lambda path: path.stat().st_mtime).parent


if __name__ == "__main__":
    sys.exit(main())
