"""Write `tests/golden/`: a small generator, and the images that each language must generate.

python scripts/make_golden.py            # new images.json, same generator
python scripts/make_golden.py --train    # new generator, too

PyTorch computes the pixels in float64, and z comes from `inference.noise`. So what is right does
not depend on ONNX or onnxruntime. Seeds and starts are strings, because JavaScript's numbers are
exact only up to 2^53. z_sha256 is the sha256 of the float32 values, little-endian, image by image.
"""

import hashlib
import json
import sys
from base64 import b64encode
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from export.artifact_folder import best_checkpoint
from inference.noise import NOISE, latents
from training.config import RECIPES, DataConfig, NetworkConfig, TrainConfig
from training.gan.networks import to_pixels
from training.run_folder.checkpoint import load_generator, weights_sha256
from training.run_folder.sealed_file import load, save
from training.train import train

FOLDER = Path(__file__).parents[1] / "tests" / "golden"
CHECKPOINT = FOLDER / "checkpoint.pt"
IMAGES = FOLDER / "images.json"

RANGES = [
    (0, 0, 8),
    (7, 0, 64),
    (5, 2**32 - 4, 8),  # the low word of the index overflows within these images
    (2**40 + 9, 2**33 + 1, 8),
    (2**53 + 1, 2**53 + 1, 4),  # no float64 has this value
    (2**63 - 1, 2**63 - 4, 4),  # the last seed and index
]
"""Seed, index of the first image, and count."""


def main() -> None:
    if sys.argv[1:] == ["--train"]:
        _train()
    elif sys.argv[1:]:
        sys.exit(f"--train or nothing, got {' '.join(sys.argv[1:])}")
    generator = load_generator(load(CHECKPOINT))
    content = {
        "noise": NOISE,
        "weights_sha256": weights_sha256(generator),
        "latent_dim": generator.latent_dim,
        "image_shape": list(generator.image_shape),
        "images": [_golden(generator.double(), *place) for place in RANGES],
    }
    IMAGES.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def _train() -> None:
    """Train a generator that is small enough for the repository. It generates rough digits."""
    network = NetworkConfig(latent_dim=12, generator_dims=(32, 32), discriminator_dims=(128, 64))
    with TemporaryDirectory() as folder:
        config = TrainConfig(
            data=DataConfig(dataset="digits", data_dir=Path(folder), image_size=16),
            network=network,
            recipe=RECIPES["r3gan"],
            iterations=4000,
            score_every=4000,
            device="cpu",
            engine="plain",
            select="g-loss",
        )
        train(config, Path(folder) / "run")
        content = load(best_checkpoint(Path(folder) / "run"))
    del content["generator"]  # the raw weights; the averaged weights are exported
    FOLDER.mkdir(exist_ok=True)
    save(content, CHECKPOINT)


def _golden(generator: Any, seed: int, start: int, count: int) -> dict[str, Any]:
    z = latents(count, generator.latent_dim, seed=seed, start=start)
    with torch.inference_mode():
        pixels = to_pixels(generator(torch.from_numpy(z).double()))  # (count, H, W, C)
    return {
        "seed": str(seed),
        "start": str(start),
        "count": count,
        "z_sha256": hashlib.sha256(z.astype("<f4").tobytes()).hexdigest(),
        "pixels": b64encode(pixels.numpy().tobytes()).decode(),
    }


if __name__ == "__main__":
    main()
