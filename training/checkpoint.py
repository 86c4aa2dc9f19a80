"""What a run keeps: generators with their scores, and all that an exact resume needs.

Loading never executes code: every file is read with `weights_only=True`.
"""

import hashlib
import pickle
from pathlib import Path
from typing import Any

import torch

from inference.files import atomic_write
from training.history import History
from training.networks import Generator
from training.step import TrainState

FORMAT_VERSION = 1


class CheckpointError(Exception):
    """A file of a run is missing, damaged, or of another format; the message says which."""


def checkpoint_path(run_dir: Path, step: int) -> Path:
    """Where the generator of a step is kept."""
    return run_dir / "checkpoints" / f"step-{step:07d}.pt"


def save_checkpoint(
    run_dir: Path,
    state: TrainState,
    averaged: Generator,
    scores: dict[str, float],
    provenance: dict[str, Any],
) -> None:
    """Keep the generator of this step: its raw weights, and the average that is used."""
    network = {
        "latent_dim": averaged.latent_dim,
        "hidden_dims": list(averaged.hidden_dims),
        "image_shape": list(averaged.image_shape),
    }
    content = {
        "format_version": FORMAT_VERSION,
        "step": state.step,
        "network": network,
        "generator": state.generator.state_dict(),
        "ema": averaged.state_dict(),
        "scores": scores,
        **provenance,
    }
    _save(content, checkpoint_path(run_dir, state.step))


def load_generator(content: dict[str, Any]) -> Generator:
    """The averaged generator of a loaded checkpoint, on the CPU, in eval mode."""
    network = content["network"]
    generator = Generator(
        network["latent_dim"], tuple(network["hidden_dims"]), tuple(network["image_shape"])
    )
    generator.load_state_dict(content["ema"])
    return generator.eval()


def weights_sha256(generator: Generator) -> str:
    """Of the names, shapes and values of all tensors, in their order."""
    digest = hashlib.sha256()
    for name, tensor in generator.state_dict().items():
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
        digest.update(tensor.cpu().numpy().tobytes())
    return digest.hexdigest()


def save_last(run_dir: Path, state: TrainState, history: History, data_sha256: str) -> None:
    """Write last.pt, all that an exact resume needs; the one before becomes previous.pt."""
    content = {
        "format_version": FORMAT_VERSION,
        "step": state.step,
        "generator": state.generator.state_dict(),
        "discriminator": state.discriminator.state_dict(),
        "ema": state.ema.state_dict(),
        "optimizer_g": state.optimizer_g.state_dict(),
        "optimizer_d": state.optimizer_d.state_dict(),
        "noise": state.noise.get_state(),
        "history": history.to_dict(),
        "data_sha256": data_sha256,
    }
    last = run_dir / "last.pt"
    if last.exists():
        last.replace(run_dir / "previous.pt")
    _save(content, last)


def restore(run_dir: Path, state: TrainState, data_sha256: str) -> History:
    """Put `state` back to where last.pt (or else previous.pt) left it.

    Raises:
        CheckpointError: if neither can be read, or the images are others than the run's.
    """
    path = run_dir / "last.pt"
    if not path.exists():
        path = run_dir / "previous.pt"
    content = load(path)
    if content["data_sha256"] != data_sha256:
        raise CheckpointError(
            f"{path} was trained on other images (sha256 {content['data_sha256'][:12]}…, "
            f"now {data_sha256[:12]}…): give the run its data back, or start a new one"
        )
    for name in ("generator", "discriminator", "ema", "optimizer_g", "optimizer_d"):
        getattr(state, name).load_state_dict(content[name])
    for optimizer in (state.optimizer_g, state.optimizer_d):
        for group in optimizer.param_groups:  # a tensor comes back on the CPU
            if isinstance(group["lr"], torch.Tensor):
                group["lr"] = group["lr"].to(state.noise.device)
    state.noise.set_state(content["noise"])
    state.step = content["step"]
    return History.from_dict(content["history"])


def load(path: Path) -> dict[str, Any]:
    """The content of one of our .pt files, on the CPU.

    Raises:
        CheckpointError: if it is missing, damaged, not ours, or of another format version.
    """
    try:
        content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such file") from None
    except (OSError, RuntimeError, EOFError, ValueError, pickle.UnpicklingError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
        raise CheckpointError(
            f"{path} cannot be read, it is damaged or not ours: {reason}"
        ) from None
    version = content.get("format_version") if isinstance(content, dict) else None
    if version != FORMAT_VERSION:
        raise CheckpointError(
            f"{path}: checkpoint format {version}, this version reads {FORMAT_VERSION}"
        )
    return content


def remove_newer(run_dir: Path, step: int) -> None:
    """Remove checkpoints and sample grids from after `step`: a resumed run makes them again."""
    for path in [*run_dir.glob("checkpoints/step-*.pt"), *run_dir.glob("samples/step-*.png")]:
        if int(path.stem.removeprefix("step-")) > step:
            path.unlink()


def _save(content: dict[str, Any], path: Path) -> None:
    with atomic_write(path) as file:
        torch.save(content, file)
