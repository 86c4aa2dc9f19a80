"""`train`: prepare a run, train it, and score it at its end."""

import logging
import os
import re
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import torch

from inference.writing.files import sweep
from training.config import TrainConfig
from training.data.batches import Batches
from training.data.datasets import load_images
from training.data.images import Images
from training.engine.choice import create_engine
from training.engine.distributed import ALONE, RankLostError, Ranks
from training.engine.precision import known_settings
from training.gan.state import Snapshot, TrainState
from training.interruption import Interruption
from training.records.phases import PhaseTimer
from training.records.samples import save_real_images
from training.run_folder.config_file import add_facts, read_seconds, write_config
from training.run_folder.folder import RunFolder, locked, new_run_dir, refuse_used
from training.run_folder.origin import core_count, describe, describe_machine
from training.run_folder.resume import Saves, what_is_saved
from training.scoring.extractor import Extractor, extractor_for
from training.scoring.reference import reference_for
from training.scoring.verdict import Verdict, judge
from training.training_loop import DEFAULT_PACE, Pace, Run, Steps, TrainingError

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
    device = _device(config.device, ranks)
    _refuse_uneven(config.recipe.batch_size, ranks.count)
    folder = RunFolder(run_dir or new_run_dir(config))
    if not resume:
        refuse_used(folder)
    try:
        # The engine has its own precision for steps.
        with known_settings(deterministic=torch.are_deterministic_algorithms_enabled()):
            return _train(
                config, folder, device, resume, override, ranks, timer or PhaseTimer(), pace
            )
    except torch.OutOfMemoryError as error:
        raise TrainingError(_out_of_memory(config, error)) from None
    except RankLostError as error:
        raise TrainingError(f"{error}; {what_is_saved(folder)}") from error
    except OSError as error:
        where = error.filename or folder.path  # the folder is not to blame for other files
        raise TrainingError(
            f"{where}: {error.strerror or error}; {what_is_saved(folder)}"
        ) from error


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
    images = load_images(config.data).to(device)
    state, batches = _beginning(config, images)
    saves = Saves(folder, images.sha256())
    total = config.iterations or batches.epoch_end(config.epochs)
    with locked(folder):
        if not resume:
            refuse_used(folder)
        history = saves.resume(state, config.seed, other_device="device" in override)
        if override:
            history.divergences.clear()
        if "device" in override and "engine" not in override:
            config = replace(config, engine="auto")
        with timer.phase("reference"):  # before anything is written: it may refuse the images
            extractor = _extractor(config, images, folder)
            reference = reference_for(extractor, images, test=None)
        if device.type == "cpu":
            _continue_with(saves.threads)
        threads = torch.get_num_threads()
        start = Start(config, device.type, total, images.to(CPU), state.snapshot(CPU), threads)
        with timer.phase("engine"), ranks.order(start):
            engine = create_engine(state, batches, config, total, ranks)
        if ranks.count == 1:
            config = replace(config, engine=engine.kind)  # a resumed run uses the same engine
        machine = _machine(device, ranks, config.recipe.batch_size)
        provenance = describe(config, saves.data_sha256)
        if resume:
            timer.add(read_seconds(folder))
        folder.checkpoints.mkdir(exist_ok=True)
        facts = {"machine": machine, "class_names": images.classes, "seconds": timer.seconds()}
        write_config(folder, config, provenance, **facts)
        save_real_images(images, folder.real)
        with Interruption() as interruption:
            run = Run(
                config, provenance, saves, state, batches, engine, history, reference, interruption,
                ranks, timer, pace,
            )  # fmt: skip
            with timer.phase("other"):
                run.train_to(total)
        ranks.leave()
        with timer.phase("verdict"):
            verdict = judge(config, folder, run.history.epochs, images, extractor)
        add_facts(folder, seconds=timer.seconds())
    return Result(folder.path, state.step, verdict)


def _extractor(config: TrainConfig, images: Images, folder: RunFolder) -> Extractor:
    """The extractor of the data set, from the cache that all runs share, or the run's own."""
    cache = config.data.data_dir / "extractors"
    with suppress(OSError):  # it may be for reading only
        sweep(cache, seconds=3600)  # Another run may be writing a file now.
    return extractor_for(images, cache, images.pixels.device, spare=folder.extractor)


def _machine(device: torch.device, ranks: Ranks, batch_size: int) -> dict[str, str]:
    """What the run computes on, with the number of processes if there are several."""
    machine = describe_machine(device)
    if ranks.count > 1:
        machine["processes"] = str(ranks.count)
        share = batch_size // ranks.count
        _log.info("%d processes, %d images of each batch to each", ranks.count, share)
    return machine


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
                images = order.images.to(_device(order.device, ranks))
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


def _continue_with(threads: int | None) -> None:
    """Use as many threads as before, because the last bits of sums on a CPU depend on them."""
    now, cores = torch.get_num_threads(), core_count()
    if threads is None or threads == now:
        return
    if threads <= cores:
        torch.set_num_threads(threads)
        _log.info(
            "continuing with %d threads, as before; %d would change the last bits", threads, now
        )
    else:
        _log.warning(
            "the run had %d threads and continues with %d, because there are %d cores: the result "
            "is the same except for rounding",
            threads, now, cores,
        )  # fmt: skip


def _refuse_uneven(batch_size: int, count: int) -> None:
    if batch_size % count or batch_size < 2 * count:
        raise TrainingError(
            f"--batch-size {batch_size} cannot be split among {count} processes into equal parts "
            f"of two images or more: use a multiple of {count}, at least {2 * count}"
        )


def _out_of_memory(config: TrainConfig, error: Exception) -> str:
    asked = re.search(r"[Tt]ried to allocate ([\d.]+ \w+)", str(error))
    return (
        f"out of GPU memory: {asked[1] if asked else 'more'} asked for and not free. Reduce "
        f"--batch-size (now {config.recipe.batch_size}), which needs memory in each step, or "
        f"--image-size (now {config.data.image_size}), which needs memory for the data set"
    )


def _device(name: str, ranks: Ranks) -> torch.device:
    if name == "cuda" and not torch.cuda.is_available():
        raise TrainingError(
            "--device cuda, but PyTorch finds no usable GPU: use --device cpu, or check the driver "
            "with nvidia-smi"
        )
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and ranks.count > 1:
        own, there = ranks.device_index, torch.cuda.device_count()
        if own >= there:
            raise TrainingError(
                f"each process needs a GPU of its own, but process {own + 1} finds {there} GPUs: "
                f"start {there} processes, or use --device cpu"
            )
        torch.cuda.set_device(own)
        return torch.device(name, own)
    return torch.device(name)
