"""Tiny runs: their settings, and how they are trained and exported."""

from dataclasses import replace
from pathlib import Path

from tests.support.files import ROOT
from training.config import DataConfig, NetworkConfig, RecipeConfig, TrainConfig
from training.train import train

TINY = TrainConfig(
    # The folder keeps the extractor of the scores, so that it is trained only once.
    data=DataConfig(dataset="digits", data_dir=ROOT / ".pytest_cache" / "data", image_size=8),
    network=NetworkConfig(latent_dim=10, generator_dims=(16, 32), discriminator_dims=(16, 8)),
    recipe=RecipeConfig(batch_size=512),  # 3.5 batches per epoch, so epochs end within batches
    epochs=12,
    score_every=10,
    device="cpu",
    engine="plain",
)
CONV = replace(
    TINY, network=replace(TINY.network, network="conv", conv_width=4, conditional=True), epochs=6
)
CONDITIONAL = replace(TINY, network=replace(TINY.network, conditional=True), epochs=6)
AUGMENTED = replace(TINY, recipe=replace(TINY.recipe, augment=True), epochs=6)
COLOUR = replace(
    TINY,
    data=replace(TINY.data, image_size=32, channels=3),
    recipe=RecipeConfig(batch_size=16, lr=5e-3),
    iterations=60,
    score_every=30,
)
"""Settings of the runs in colour, without the folder of images."""


def trained(config: TrainConfig, run_dir: Path) -> Path:
    """Train a run to its end; its folder."""

    train(config, run_dir)
    return run_dir


def exported(run_dir: Path, folder: Path) -> Path:
    """Export the best snapshot of a run; the artifact's folder."""
    from export.artifact_folder import best_checkpoint, export

    export(best_checkpoint(run_dir), folder)
    return folder


ARGUMENTS = (
    f"--dataset digits --data-dir {TINY.data.data_dir} --image-size 8 --latent-dim 10 "
    "--generator-dims 16 32 --discriminator-dims 16 8 --batch-size 512 --device cpu --engine plain"
).split()
