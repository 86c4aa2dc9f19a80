"""The .pt files of a run: written whole, with a checksum, and read without executing code."""

import hashlib
from io import BytesIO
from pathlib import Path
from typing import Any

import torch

from inference.writing.files import atomic_write
from training.gan.networks import Generator
from training.gan.state import TrainState

FORMAT_VERSION = 1
_MARK = b"ganpack sha256: "
_SEAL = len(_MARK) + 64


class CheckpointError(Exception):
    """A file of a run is missing, damaged, or of another format; the message says which."""


class DamagedError(CheckpointError):
    """It is not as it was written, or never was ours."""


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
        "classes": list(averaged.classes),
        "network": averaged.network,
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
    save(content, checkpoint_path(run_dir, state.step))


def load_generator(content: dict[str, Any]) -> Generator:
    """The averaged generator of a loaded checkpoint, on the CPU, in eval mode.

    Raises:
        CheckpointError: if it is not a checkpoint, but what a run goes on from.
    """
    if "network" not in content:
        raise CheckpointError(
            "last.pt and previous.pt are no checkpoints: take one of checkpoints/"
        )
    network = content["network"]
    generator = Generator(
        network["latent_dim"],
        tuple(network["hidden_dims"]),
        tuple(network["image_shape"]),
        tuple(network.get("classes", ())),  # the first checkpoints of this format had none
        network.get("network", "mlp"),  # nor this
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


def load(path: Path) -> dict[str, Any]:
    """The content of one of our .pt files, on the CPU.

    Raises:
        CheckpointError: if it is missing or of another format version; DamagedError if its
            checksum is missing or wrong, or it is not ours.
    """
    try:
        file = path.read_bytes()
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such file") from None
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}") from None
    damaged = f"{path} cannot be read, it is damaged or not ours"
    content, mark, digest = file[:-_SEAL], file[-_SEAL:-64], file[-64:]
    if mark != _MARK:
        raise DamagedError(f"{damaged}: it has no checksum at its end")
    if hashlib.sha256(content).hexdigest().encode() != digest:
        raise DamagedError(
            f"{damaged}: its sha256 is not {digest[:12].decode('ascii', 'replace')}…"
        )
    try:
        values: dict[str, Any] = torch.load(BytesIO(file), map_location="cpu", weights_only=True)
    except Exception as error:  # of whatever type: with its checksum in order it is not ours
        reason = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
        raise DamagedError(f"{damaged}: {reason}") from None
    version = values.get("format_version") if isinstance(values, dict) else None
    if version != FORMAT_VERSION:
        raise CheckpointError(
            f"{path}: checkpoint format {version}, this version reads {FORMAT_VERSION}"
        )
    return values


def save(content: dict[str, Any], path: Path, *, keep_as: Path | None = None) -> None:
    """Write a .pt file whole, with its checksum; keep_as: as `atomic_write` has it.

    It is the zip of `torch.save`, which checks nothing on loading, with the sha256 of all that is
    before it as its comment: `torch.load` reads it too.
    """
    buffer = BytesIO()
    torch.save(content, buffer)
    archive = buffer.getvalue()
    assert archive[-22:-18] == b"PK\5\6"  # the last record of a zip, which ends with the length
    assert archive[-2:] == b"\0\0"  # of its comment
    archive = archive[:-2] + _SEAL.to_bytes(2, "little")
    with atomic_write(path, keep_as=keep_as) as file:
        file.write(archive)
        file.write(_MARK + hashlib.sha256(archive).hexdigest().encode())


def remove_newer(run_dir: Path, step: int) -> None:
    """Remove checkpoints and sample grids from after `step`: a resumed run makes them again."""
    for path in [*run_dir.glob("checkpoints/step-*.pt"), *run_dir.glob("samples/step-*.png")]:
        if int(path.stem.removeprefix("step-")) > step:
            path.unlink()
