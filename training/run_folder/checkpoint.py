"""Generator snapshots: the files in checkpoints/, each the generator of one step."""

import hashlib
from typing import Any

from training.gan.networks import Generator
from training.run_folder.folder import RunFolder
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


def load_generator(content: dict[str, Any]) -> Generator:
    """The averaged generator of a loaded snapshot, on the CPU, in eval mode.

    Raises:
        CheckpointError: if the content is a training state instead.
    """
    if "network" not in content:
        raise CheckpointError(
            "last.pt and previous.pt are training states: "
            "use a generator snapshot from checkpoints/"
        )
    network = content["network"]
    generator = Generator(
        network["latent_dim"],
        tuple(network["hidden_dims"]),
        tuple(network["image_shape"]),
        tuple(network.get("classes", ())),  # the first files of this format had no classes
        network.get("network", "mlp"),  # and no kind of network
    )
    generator.load_state_dict(content["ema"])
    return generator.eval()


def weights_sha256(generator: Generator) -> str:
    """The sha256 of the names, shapes and values of all tensors, in order."""
    digest = hashlib.sha256()
    for name, tensor in generator.state_dict().items():
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
        digest.update(tensor.cpu().numpy().tobytes())
    return digest.hexdigest()
