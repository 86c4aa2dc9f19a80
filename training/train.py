"""`train`: prepare a run, train it, and score it at its end."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import torch

from inference.writing.files import sweep
from training.config import TrainConfig
from training.data.batches import Batches
from training.data.datasets import load_held_out
from training.data.images import Images
from training.engine.choice import create_engine
from training.engine.distributed import ALONE, RankLostError, Ranks
from training.engine.engine import Engine
from training.engine.machine import (
    device_for,
    keep_threads,
    machine_of,
    out_of_memory,
    refuse_too_large,
    refuse_uneven,
    warn_of_memory,
)
from training.engine.precision import known_settings
from training.gan.state import Snapshot, TrainState
from training.interruption import Interruption, TrainingError
from training.records.phases import PhaseTimer
from training.records.samples import save_real_images
from training.run_folder.config_file import add_facts, read_seconds, refuse_used, write_config
from training.run_folder.folder import RunFolder, locked, new_run_dir
from training.run_folder.origin import describe
from training.run_folder.resume import Saves, what_is_saved
from training.scoring.by_heart import ByHeart
from training.scoring.extractor import Extractor, extractor_for
from training.scoring.reference import reference_for
from training.scoring.verdict import Verdict, judge
from training.training_loop import DEFAULT_PACE, Pace, Run, Steps

CPU = torch.device("cpu")
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Result:
    """The result of a run."""

    run_dir: Path
    step: int
    verdict: Verdict


class Start(NamedTuple):
    """The first message of rank 0: everything that the other ranks need to take steps."""

    config: TrainConfig
    device: str
    total: int
    images: Images
    state: Snapshot
    threads: int


def train(
    config: TrainConfig,
    run_dir: Path | None = None,
    *,
    resume: bool = False,
    override: frozenset[str] = frozenset(),
    ranks: Ranks = ALONE,
    timer: PhaseTimer | None = None,
    pace: Pace = DEFAULT_PACE,
) -> Result:
    """Train in a new folder, or continue the run in `run_dir` up to the length in `config`.

    run_dir: by default runs/DATASET-DATE-TIME.
    override: names of settings that may differ between `config` and the resumed run.
    ranks: the processes that train together; this one is rank 0, the others call `follow`.
    timer: counts the seconds of each phase; by default a new one.
    pace: how often the run is saved, and how often it checks whether to stop.

    Raises:
        DataError, CheckpointError, RunFolderError, TrainingError: the message says what to do.
        Interrupted: after SIGINT or SIGTERM, once the run is saved.
    """
    device = device_for(config.device, ranks)
    refuse_uneven(config.recipe.batch_size, ranks.count)
    refuse_too_large(config, device, resume=resume)
    folder, timer = RunFolder(run_dir or new_run_dir(config)), timer or PhaseTimer()
    if not resume:
        refuse_used(folder)
    # The engine has its own precision for steps.
    settings = known_settings(deterministic=torch.are_deterministic_algorithms_enabled())
    with _errors_explained(config, folder), settings:
        return _train(config, folder, device, resume, override, ranks, timer, pace)


@contextmanager
def _errors_explained(config: TrainConfig, folder: RunFolder) -> Iterator[None]:
    """Raise TrainingError for errors from outside, with what is saved and what to do."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise TrainingError(out_of_memory(config, error)) from None
    except RankLostError as error:
        raise TrainingError(f"{error}; {what_is_saved(folder)}") from error
    except OSError as error:
        # The error may be about another file. After a rename, the second name is the place.
        where = error.filename2 or error.filename or folder.path
        reason = error.strerror or error
        raise TrainingError(f"{where}: {reason}; {what_is_saved(folder)}") from error


def _train(
    config: TrainConfig,
    folder: RunFolder,
    device: torch.device,
    resume: bool,
    override: frozenset[str],
    ranks: Ranks,
    timer: PhaseTimer,
    pace: Pace,
) -> Result:
    images, held_out = load_held_out(config.data)
    images = images.to(device)
    machine = machine_of(device, ranks, config.recipe.batch_size)
    _log.info("data: %s, %s", Path(config.data.dataset).name, images)
    if held_out is not None:
        _log.info("held out: %s, never trained on, to see what is learned by heart", held_out)
    _log.info("device: %s", machine.get("gpu", "{processor}, threads: {threads}".format(**machine)))
    warn_of_memory(config, images, device, ranks.count)
    with locked(folder):
        if not resume:
            refuse_used(folder)
        run = _prepare(config, folder, images, held_out, override, ranks, timer, pace)
        if resume:
            timer.add(read_seconds(folder))
        folder.checkpoints.mkdir(exist_ok=True)
        facts = {"machine": machine, "class_names": images.classes, "seconds": timer.seconds()}
        write_config(folder, run.config, run.provenance, **facts)
        if override and run.state.step:  # the save and config.json have the same settings
            run.saves.write(run.state, run.history, checked=run.saves.last_checked)
        save_real_images(images, folder.real)
        with run.interruption, timer.phase("other"):
            run.train_to(_length(config, run.batches))
        ranks.leave()
        with timer.phase("verdict"):
            _log.info("scoring the best snapshots on fresh images")
            verdict = judge(run.config, folder, run.history.epochs, images, run.reference)
        add_facts(folder, seconds=timer.seconds())
    return Result(folder.path, run.state.step, verdict)


def _prepare(
    config: TrainConfig,
    folder: RunFolder,
    images: Images,
    held_out: Images | None,
    override: frozenset[str],
    ranks: Ranks,
    timer: PhaseTimer,
    pace: Pace,
) -> Run:
    """A run at the state that the folder holds, or at its beginning.

    Nothing new is written yet, because the images or the settings may be refused.
    """
    saves = Saves(folder, images.sha256(), config)
    saves.find(override)  # before networks of another size are made
    state, batches = _beginning(config, images)
    history = saves.resume(state, config.seed, override)
    if override:
        history.divergences.clear()
    if "device" in override and "engine" not in override:
        config = replace(config, engine="auto")
    with timer.phase("reference"):
        reference = reference_for(_extractor(config, images, folder), images, test=None)
    if images.pixels.device.type == "cpu":
        keep_threads(saves.threads)
    with timer.phase("engine"):
        engine = _engine(config, images, state, batches, ranks)
    if ranks.count == 1:
        config = replace(config, engine=engine.kind)  # a resumed run uses the same engine
    saves.config = config
    return Run(
        config, describe(config, saves.data_sha256), saves, state, batches, engine, history,
        reference, None if held_out is None else ByHeart.of(images, held_out), Interruption(),
        ranks, timer, pace,
    )  # fmt: skip


def _engine(
    config: TrainConfig, images: Images, state: TrainState, batches: Batches, ranks: Ranks
) -> Engine:
    """The engine of rank 0. The other ranks are told what they need to make theirs."""
    device, total = images.pixels.device.type, _length(config, batches)
    threads = torch.get_num_threads()
    start = Start(config, device, total, images.to(CPU), state.snapshot(CPU), threads)
    with ranks.order(start):
        return create_engine(state, batches, config, total, ranks)


def _length(config: TrainConfig, batches: Batches) -> int:
    """Number of iterations of the whole run."""
    return config.iterations or batches.epoch_end(config.epochs)


def _extractor(config: TrainConfig, images: Images, folder: RunFolder) -> Extractor:
    """The extractor of the data set, from the cache that all runs share, or the run's own."""
    cache = config.data.data_dir / "extractors"
    with suppress(OSError):  # it may be for reading only
        sweep(cache, seconds=3600)  # Another run may be writing a file now.
    return extractor_for(images, cache, images.pixels.device, spare=folder.extractor)


def follow(ranks: Ranks) -> None:
    """Take the steps that rank 0 orders, until rank 0 has finished.

    Raises:
        RankLostError, TrainingError: the message says what to do.
    """
    deterministic = torch.are_deterministic_algorithms_enabled()
    with known_settings(deterministic=deterministic), Interruption(quiet=True) as interruption:
        for order in ranks.orders(interruption):
            if isinstance(order, Start):
                torch.set_num_threads(order.threads)
                images = order.images.to(device_for(order.device, ranks))
                state, batches = _beginning(order.config, images)
                state.restore(order.state)
                engine = create_engine(state, batches, order.config, order.total, ranks)
            elif isinstance(order, Snapshot):
                state.restore(order)
            elif isinstance(order, Steps):
                engine.run(order.steps)


def _beginning(config: TrainConfig, images: Images) -> tuple[TrainState, Batches]:
    """The state before the first step, and the batches, on the device of the images."""
    if config.deterministic:  # cuBLAS reads this when it starts
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    device = images.pixels.device
    state = TrainState.create(
        config.network, config.recipe, images.image_shape, device, config.seed, images.classes
    )
    conditional = config.network.conditional
    return state, Batches(images, config.recipe.batch_size, config.seed, conditional=conditional)
