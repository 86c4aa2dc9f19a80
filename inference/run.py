"""Generate images with an exported generator: `python -m inference.run ARTIFACT -n 64`."""

if __name__ == "__main__":  # before the imports below, which take a part of a second
    from .errors import end_at_interrupt

    end_at_interrupt()

import argparse
import json
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from .artifact import ArtifactError
from .command.doctor import describe, examine, examine_sampler
from .command.info import summary
from .command.long_job import Progress, Stopped, stoppable
from .command.options import check, parser
from .cpu.walks import closed_walk
from .errors import GanpackError, interruptible, reporting
from .label import Label, number_of, typed
from .model_files.artifact_files import GENERATOR_FILE
from .runtime import telemetry
from .sampler import Sampler
from .writing.console import print_result, safe_output
from .writing.files import make_folder_of
from .writing.outputs import PIPE, Job, require_free, writer_for
from .writing.pictures import enlarge, grid, require_size, save_animation, save_picture

_BATCH = 1024


@safe_output()
def main(arguments: Sequence[str] | None = None, program: str | None = None) -> int:
    """Run the command; returns the exit code.  program: its name in messages and in its help."""
    telemetry.switch_off()
    command = parser(program)
    options = command.parse_args(arguments)
    check(command, options)
    logging.basicConfig(format="%(message)s", level=logging.INFO, stream=sys.stderr)
    return reporting(lambda: _run(command, options))


def _run(command: argparse.ArgumentParser, options: argparse.Namespace) -> int:
    try:
        if options.doctor:
            return _doctor(options)
        with _sampler(options) as sampler, interruptible():
            if options.info:
                contract = json.loads(sampler.metadata.to_json())
                as_json = json.dumps(contract, indent=2)
                print_result(as_json if options.json else summary(sampler.metadata))
                return 0
            if options.check:
                result = sampler.check()
                print(result)
                return 0 if result.passed else 1
            if options.per_class:
                return _write_classes(sampler, options)
            return _write_walk(sampler, options) if options.walk else _write(sampler, options)
    except ValueError as error:
        command.error(str(error))
    except BrokenPipeError:  # the reader of `--output -` has gone
        return 1


def _write(sampler: Sampler, options: argparse.Namespace) -> int:
    count, seed, start, output = options.count, options.seed, options.start, options.output
    label = _label(sampler, options)
    batches = sampler.stream(count, seed=seed, start=start, batch_size=_BATCH, label=label)
    if options.captions:  # before as many names are made
        require_size("picture", count, _shape(sampler), options.scale)
    names = _names(sampler, label, options) if options.captions else ()
    job = Job(count, _shape(sampler), seed, start, options.captions, options.scale, names)
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
        of_class = "" if label is None else f", class {label!r}"
        print(f"{output}: images {start} to {start + count - 1} of seed {seed}{of_class}")
    return 0


def _write_walk(sampler: Sampler, options: argparse.Namespace) -> int:
    require_free(options.output, force=options.force)
    require_size("animation", options.walk * options.steps, _shape(sampler), options.scale)
    z = sampler.latents(options.walk, seed=options.seed, start=options.start)
    label = _label(sampler, options)
    if label is None and sampler.metadata.classes:
        label = int(sampler.labels(1, seed=options.seed, start=options.start)[0])
    frames = enlarge(sampler.decode(closed_walk(z, options.steps), label), options.scale)
    make_folder_of(options.output)
    save_animation(frames, options.output, fps=options.fps)
    last = options.start + options.walk - 1
    print(
        f"{options.output}: {len(frames)} frames through images {options.start} to {last} of seed "
        f"{options.seed} and back"
    )
    return 0


def _write_classes(sampler: Sampler, options: argparse.Namespace) -> int:
    """Write a grid with a row for each class, all rows of the same noise."""
    classes, count = sampler.metadata.classes, options.count
    if not classes:
        raise ValueError("--per-class: this artifact has no classes")
    require_free(options.output, force=options.force)
    require_size("picture", count * len(classes), _shape(sampler), options.scale)
    place = {"seed": options.seed, "start": options.start}
    rows = [sampler.sample(count, **place, label=label) for label in range(len(classes))]
    indices = range(options.start, options.start + count)
    captions = [f"{options.seed}/{index} {name}" for name in classes for index in indices]
    images = enlarge(np.concatenate(rows), options.scale)
    picture = grid(images, count, captions if options.captions else ())
    make_folder_of(options.output)
    save_picture(picture, options.output)
    last = options.start + count - 1
    print(
        f"{options.output}: images {options.start} to {last} of seed {options.seed}, a row for "
        f"each of {len(classes)} classes: {', '.join(classes)}"
    )
    return 0


def _shape(sampler: Sampler) -> tuple[int, ...]:
    """(H, W) or (H, W, 3)."""
    channels, height, width = sampler.metadata.image_shape
    return (height, width) if channels == 1 else (height, width, channels)


def _label(sampler: Sampler, options: argparse.Namespace) -> Label | None:
    if options.label is None:
        return None
    return typed(options.label, sampler.metadata.classes)


def _names(sampler: Sampler, label: Label | None, options: argparse.Namespace) -> Sequence[str]:
    """The name of the class of each image."""
    classes = sampler.metadata.classes
    if not classes:
        return ()
    number = number_of(label, classes)
    if number is not None:
        return [classes[number]] * options.count
    drawn = sampler.labels(options.count, seed=options.seed, start=options.start)
    return [classes[number] for number in drawn]


def _doctor(options: argparse.Namespace) -> int:
    report, failed = examine(), False
    try:
        with _sampler(options) as sampler:
            report["artifact"], failed = examine_sampler(sampler)
    except (GanpackError, OSError) as error:
        report["artifact"] = {"problem": str(error)}
        failed = options.artifact is not None or options.provider.startswith("cuda")
    print_result(json.dumps(report, indent=2) if options.json else describe(report))
    return int(failed)


def _sampler(options: argparse.Namespace) -> Sampler:
    generates = not options.info  # then no device matters, and nothing is said of one
    return Sampler(
        options.artifact or _newest_artifact(),
        provider=options.provider if generates or options.provider != "auto" else "cpu",
        threads=options.threads,
        tf32=options.tf32,
        allow_foreign=options.allow_foreign,
        latent_dim=options.latent_dim,
        image_shape=options.image_shape and tuple(options.image_shape),
        value_range=options.value_range and tuple(options.value_range),
    )


def _newest_artifact() -> Path:
    found = list(Path("runs").glob(f"*/artifact/{GENERATOR_FILE}"))
    if not found:
        tried = ", ".join(map(str, sorted(Path("artifacts").glob("*/"))))
        raise ArtifactError(
            "no ARTIFACT given, and none found as runs/*/artifact: `python -m export.run` makes one"
            + (f"; try {tried}" if tried else "")
        )
    return max(found, key=lambda path: path.stat().st_mtime).parent


if __name__ == "__main__":
    sys.exit(main())
