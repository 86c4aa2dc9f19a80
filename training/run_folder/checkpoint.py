"""Generator snapshots: the files in checkpoints/, each the generator of one step."""

import hashlib
from dataclasses import dataclass
from typing import Any, Literal

import torch

from training.gan.networks import Generator
from training.run_folder.folder import RunFolder
from training.run_folder.json_file import typed
from training.run_folder.sealed_file import FORMAT_VERSION, CheckpointError, save


def save_checkpoint(
    folder: RunFolder,
    step: int,
    generator: Generator,
    averaged: Generator,
    scores: dict[str, Any],
    provenance: dict[str, Any],
) -> None:
    """Write the snapshot of a step: the generator's raw weights, and their average."""
    network = {
        "latent_dim": averaged.latent_dim,
        "hidden_dims": list(averaged.hidden_dims),
        "image_shape": list(averaged.image_shape),
        "classes": list(averaged.classes),
        "network": averaged.network,
    }
    content = {
        "format_version": FORMAT_VERSION,
        "step": step,
        "network": network,
        "generator": generator.state_dict(),
        "ema": averaged.state_dict(),
        "scores": scores,
        **provenance,
    }
    save(content, folder.checkpoint(step))


@dataclass(frozen=True)
class _Network:
    """The arguments of a generator, as its snapshot holds them."""

    latent_dim: int
    hidden_dims: tuple[int, ...]
    image_shape: tuple[int, int, int]
    classes: tuple[str, ...] = ()  # the first files of this format had no classes
    network: Literal["mlp", "conv"] = "mlp"  # and no kind of network


@dataclass(frozen=True)
class CheckpointFacts:
    """What a generator snapshot says of itself."""

    step: int
    dataset: str
    recipe: str
    scores: dict[str, Any]


def checkpoint_facts(content: dict[str, Any], name: str = "the snapshot") -> CheckpointFacts:
    """The facts in a loaded snapshot.  name: what messages call it.

    Raises:
        CheckpointError: if the content is no snapshot's.
    """
    try:
        facts: CheckpointFacts = typed(CheckpointFacts, content)
    except ValueError as error:
        raise CheckpointError(f"{name} is none that ganpack writes: {error}") from None
    return facts


def load_generator(content: dict[str, Any], name: str = "the snapshot") -> Generator:
    """The averaged generator of a loaded snapshot, on the CPU, in eval mode.

    name: what messages call it.

    Raises:
        CheckpointError: if the content is a training state instead, or no snapshot's.
    """
    if "network" not in content:
        raise CheckpointError(
            f"{name} is a training state, as last.pt and previous.pt are: "
            f"use a generator snapshot from checkpoints/"
        )
    try:
        network: _Network = typed(_Network, content["network"])
        arguments = vars(network).values()
        # Without memory for weights first: the sizes may be absurd.
        with torch.device("meta"):
            expected = Generator(*arguments).state_dict()
        shapes = [{name: tensor.shape for name, tensor in each.items()}
                  for each in (expected, content["ema"])]  # fmt: skip
        if shapes[0] != shapes[1]:
            raise ValueError("its weights have other shapes than its network")
        generator = Generator(*arguments)
        generator.load_state_dict(content["ema"])
    except Exception as error:  # of any type: a wrong content has a correct checksum only if forged
        reason = f"{type(error).__name__}: {error}".splitlines()[0][:200]
        raise CheckpointError(f"{name} is none that ganpack writes: {reason}") from None
    return generator.eval()


def weights_sha256(generator: Generator) -> str:
    """The sha256 of the names, shapes and values of all tensors, in order."""
    digest = hashlib.sha256()
    for name, tensor in generator.state_dict().items():
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
        digest.update(tensor.cpu().numpy().tobytes())
    return digest.hexdigest()
