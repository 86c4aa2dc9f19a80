"""`train`: step, record, save, stop."""

import re
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from inference.files import sweep
from training.config import TrainConfig
from training.data import Batches, load_images
from training.engine import Engine
from training.extractor import extractor_for
from training.interruption import Interruption
from training.machine import describe_machine
from training.provenance import describe, write_config
from training.quality import reference_for
from training.records import save_real_images
from training.run_folder import locked, new_run_dir, refuse_used
from training.running import Run, TrainingError
from training.saves import Saves, whole
from training.state import TrainState
from training.verdict import Verdict, judge


@dataclass(frozen=True)
class Result:
    """What a run left behind."""

    run_dir: Path
    step: int
    verdict: Verdict


def train(
    config: TrainConfig,
    run_dir: Path | None = None,
    *,
    resume: bool = False,
    override: frozenset[str] = frozenset(),
) -> Result:
    """Train in a new folder, or continue the run in `run_dir` to the length `config` asks for.

    run_dir: by default runs/DATASET-DATE-TIME.
    override: settings in which `config` may differ from the run's own.

    Raises:
        DataError, CheckpointError, RunFolderError, TrainingError: with a message that says what to
            do.
        Interrupted: after a SIGINT or SIGTERM, once the run is saved.
    """
    device = _device(config.device)
    run_dir = run_dir or new_run_dir(config)
    if not resume:
        refuse_used(run_dir)
    try:
        return _train(config, run_dir, device, resume, override)
    except torch.OutOfMemoryError as error:
        raise TrainingError(_out_of_memory(config, error)) from None
    except OSError as error:
        reason = f"{error.strerror or error}" + (f" ({error.filename})" if error.filename else "")
        raise TrainingError(f"{run_dir}: {reason}; {whole(run_dir)}") from error


def _train(
    config: TrainConfig, run_dir: Path, device: torch.device, resume: bool, override: frozenset[str]
) -> Result:
    images = load_images(config.data).to(device)
    batches = Batches(
        images, config.recipe.batch_size, config.seed, conditional=config.network.conditional
    )
    saves = Saves(run_dir, images.sha256())
    total = config.iterations or batches.epoch_end(config.epochs)
    with locked(run_dir):
        if not resume:
            refuse_used(run_dir)
        state = TrainState.create(
            config.network, config.recipe, images.image_shape, device, config.seed, images.classes
        )
        history = saves.resume(state, config.seed, other_device="device" in override)
        if override:
            history.divergences.clear()
        if "device" in override and "engine" not in override:
            config = replace(config, engine="auto")
        engine = Engine.create(state, batches, config, total)
        config = replace(config, engine=engine.kind)  # a resume goes on with it
        provenance = describe(config, saves.data_sha256)
        (run_dir / "checkpoints").mkdir(exist_ok=True)
        machine = describe_machine(device)
        write_config(run_dir, config, provenance, machine=machine, class_names=images.classes)
        save_real_images(run_dir, images)
        cache = config.data.data_dir / "extractors"
        sweep(cache, seconds=3600)  # other runs share it: leave them time
        extractor = extractor_for(images, cache, device)
        reference = reference_for(extractor, images, test=None)
        with Interruption() as interruption:
            run = Run(
                config, provenance, saves, state, batches, engine, history, reference, interruption
            )
            run.go(total)
        verdict = judge(config, run_dir, run.history.epochs, images, extractor)
    return Result(run_dir, state.step, verdict)


def _out_of_memory(config: TrainConfig, error: Exception) -> str:
    asked = re.search(r"[Tt]ried to allocate ([\d.]+ \w+)", str(error))
    return (
        f"out of GPU memory: {asked[1] if asked else 'more'} asked for and not there; a smaller "
        f"--batch-size (now {config.recipe.batch_size}) lowers what a step takes, a smaller "
        f"--image-size (now {config.data.image_size}) what the images take"
    )


def _device(name: str) -> torch.device:
    if name == "cuda" and not torch.cuda.is_available():
        raise TrainingError(
            "--device cuda, but PyTorch finds no usable GPU: use --device cpu, or check the driver "
            "with nvidia-smi"
        )
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)
