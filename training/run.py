"""Train a GAN.

python -m training.run --dataset fashion-mnist

python -m training.run --resume runs/mnist-20261123-154500 --epochs 300

torchrun --nproc-per-node 2 -m training.run --dataset fashion-mnist
"""

if __name__ == "__main__":  # before the imports below, which take a second
    from inference.errors import end_at_interrupt

    end_at_interrupt()

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import tyro

from inference.errors import report, reporting
from inference.writing.console import safe_output
from training.command_line import by_default, command_line
from training.config import RECIPES, ConfigError, NetworkConfig, TrainConfig, usual_recipe
from training.records.phases import PhaseTimer, in_words
from training.run_folder.config_file import add_facts, read_config
from training.run_folder.folder import RunFolder, RunFolderError, new_run_dir, newest_run
from training.run_folder.resume_settings import resumed_config
from training.run_folder.scores import ClassScore, shown

if TYPE_CHECKING:
    from training.engine.distributed import Ranks
    from training.train import Result
    from training.training_loop import Pace


@dataclass(frozen=True)
class Command:
    """The options of the command."""

    run_dir: Annotated[Path | None, by_default("runs/DATASET-DATE-TIME", "RUN_DIR")] = None
    """Folder of the new run."""
    resume: Annotated[Path | None, by_default("a new run", "RUN_DIR|latest")] = None
    """Continue the run in this folder, with more --epochs or --iterations if given. latest: the run
    under runs/ that was saved last."""
    override: Annotated[tuple[str, ...], by_default("none", "[NAME …]")] = ()
    """Settings that --resume may change, such as lr. The result then differs from that of
    an uninterrupted run."""
    config: Annotated[TrainConfig, tyro.conf.arg(name="")] = field(default_factory=TrainConfig)


@safe_output()
def main(arguments: Sequence[str] | None = None, pace: "Pace | None" = None) -> int:
    """Run the command; returns the exit code.  pace: how often the run is saved; see `Pace`."""
    timer = PhaseTimer()
    arguments = sys.argv[1:] if arguments is None else arguments
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        return reporting(lambda: _main_of_many(arguments, timer, pace))
    return _main_of_one(arguments, timer, pace)


def _main_of_one(
    arguments: Sequence[str], timer: PhaseTimer, pace: "Pace | None", ranks: "Ranks | None" = None
) -> int:
    command = parse(arguments)
    logging.basicConfig(format="%(message)s", stream=sys.stderr)
    logging.getLogger("training").setLevel(logging.INFO)
    return reporting(lambda: _run(command, timer, pace, ranks))


def _main_of_many(arguments: Sequence[str], timer: PhaseTimer, pace: "Pace | None") -> int:
    """Run one of the processes that torchrun has started: rank 0 runs the command, others help.

    Rank 0 alone reports an error of the command and ends with its exit code; the others end with 0.
    """
    from training.engine.distributed import joined
    from training.train import follow

    with joined() as ranks:
        if ranks.rank == 0:
            return _main_of_one(arguments, timer, pace, ranks)
        logging.getLogger("training").setLevel(logging.ERROR)
        follow(ranks)
    return 0


def _run(command: Command, timer: PhaseTimer, pace: "Pace | None", ranks: "Ranks | None") -> int:
    run_dir = command.resume or command.run_dir or new_run_dir(command.config)
    print(f"run folder: {run_dir}", file=sys.stderr, flush=True)
    from training.engine.distributed import ALONE  # PyTorch is imported only if the usage is right
    from training.train import train
    from training.training_loop import DEFAULT_PACE

    result = train(
        command.config,
        run_dir,
        resume=command.resume is not None,
        override=frozenset(command.override),
        ranks=ranks or ALONE,
        timer=timer,
        pace=pace or DEFAULT_PACE,
    )
    _print(result, timer)
    with timer.phase("report"):
        _write_report(result.run_dir)
    add_facts(RunFolder(result.run_dir), seconds=timer.seconds())
    return 0


def _write_report(run_dir: Path) -> None:
    """Write report.html; print a warning if that fails, because the training has succeeded."""
    try:
        from training.pages.report import write_report

        print(f"report: {write_report(run_dir)}")
    except Exception as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        print(
            f"warning: no report.html ({reason}); "
            f"python -m training.report {RunFolder(run_dir).quoted} tries again",
            file=sys.stderr,
        )


def _print(result: "Result", timer: PhaseTimer) -> None:
    print(f"{result.run_dir}: {result.step} iterations done")
    folder = RunFolder(result.run_dir).quoted
    verdict = result.verdict
    for rule, choice in verdict.choices.items():
        of_rule = verdict.scores[rule]
        print(
            f"  best by {rule}: epoch {choice.epoch}, {choice.checkpoint} ({choice.why})\n"
            f"    {', '.join(f'{score.title} {score.text(of_rule)}' for score in shown([of_rule]))}"
        )
    if verdict.scores["g-loss"].fcd < verdict.scores["fcd"].fcd:
        print(
            "  on these images the choice by g-loss is better; on the images that the snapshots "
            "were compared on, the choice by fcd was better"
        )
    scores = verdict.scores[verdict.rule]
    print(
        f"  {scores.images} fresh images against as many {scores.split} images, floor "
        f"{scores.floor:.3f}, in features of the {scores.extractor} extractor "
        f"{scores.extractor_sha256[:8]}\n"
        f"  nearest training image {verdict.memory.generated:.1f} grey levels away, that of real "
        f"images {verdict.memory.real:.1f}: see nearest.png\n"
        f"{_classes(verdict.classes)}"
        f"  it took {in_words(timer.seconds())}\n"
        f"export the choice by {verdict.rule}: python -m export.run {folder}"
    )


def _classes(scores: list[ClassScore]) -> str:
    """A line about the classes of a conditional run."""
    if not scores:
        return ""
    least = min(scores, key=lambda score: score.recognised)
    mean = sum(score.recognised for score in scores) / len(scores)
    return (
        f"  {mean:.1%} of the images are recognised as the requested class; the lowest "
        f"share has {least.name!r} with {least.recognised:.1%}: see classes.png\n"
    )


def parse(arguments: Sequence[str]) -> Command:
    """Parse the command; print one line and exit with 2 if it is wrong."""
    # The defaults of the other options depend on these, so they are read first.
    ahead = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    ahead.add_argument("--resume", type=Path)
    ahead.add_argument("--recipe", choices=RECIPES, default=TrainConfig().recipe.recipe)
    ahead.add_argument("--network", default=TrainConfig().network.network)
    ahead.add_argument("--differences", action=argparse.BooleanOptionalAction, default=False)
    try:
        early, _ = ahead.parse_known_args([_hyphenated(each) for each in arguments])
        resume = newest_run() if early.resume == Path("latest") else early.resume
        saved = read_config(resume) if resume else None
        network = NetworkConfig(network=early.network, differences=early.differences)
        default = saved or TrainConfig(recipe=usual_recipe(early.recipe, network.discriminator))
        command = command_line(Command, "training.run", __doc__, arguments, Command(config=default))
        if saved:
            if command.run_dir is not None:
                raise ConfigError("--resume names the run folder: leave out --run-dir")
            override = frozenset(name.replace("-", "_") for name in command.override)
            config = resumed_config(saved, command.config, override)
            command = Command(config=config, resume=resume, override=tuple(sorted(override)))
        elif command.override:
            raise ConfigError("--override works only with --resume")
        command.config.data.require_there()
    except (ConfigError, RunFolderError, OSError, argparse.ArgumentError) as error:
        report(error)
        sys.exit(ConfigError.exit_code)
    return command


def _hyphenated(argument: str) -> str:
    """An argument in which the name of an option has hyphens; underscores may be typed as well."""
    name, sign, value = argument.partition("=")
    return name.replace("_", "-") + sign + value if name.startswith("--") else argument


def _end_one_of_many(exit_code: int) -> NoReturn:
    """End a process that torchrun has started, without Python's cleaning up.

    A thread of gloo may still hold a tensor, and aborts the process if Python is cleaning up
    when the thread drops it (https://github.com/pytorch/pytorch/pull/179291).
    """
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError, OSError, ValueError):  # closed, or broken
            stream.flush()
    os._exit(exit_code)


if __name__ == "__main__":
    code = main()
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        _end_one_of_many(code)
    sys.exit(code)
