"""Read `tests/golden/images.json`, the images that each language must generate."""

import hashlib
import json
from base64 import b64decode
from dataclasses import dataclass
from math import ceil
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from inference.artifact import PIXEL_SHARE, PIXEL_TOLERANCE

FOLDER = Path(__file__).parents[1] / "golden"
CHECKPOINT = FOLDER / "checkpoint.pt"
IMAGES = FOLDER / "images.json"


@dataclass(frozen=True)
class Golden:
    """Some images of a seed, computed by PyTorch in float64."""

    seed: int
    start: int
    count: int
    z_sha256: str
    pixels: NDArray[np.uint8]
    """(count, H, W)."""


def golden_images() -> list[Golden]:
    content = json.loads(IMAGES.read_text(encoding="utf-8"))
    _, height, width = content["image_shape"]
    return [
        Golden(
            int(images["seed"]),
            int(images["start"]),
            images["count"],
            images["z_sha256"],
            np.frombuffer(b64decode(images["pixels"]), np.uint8).reshape(-1, height, width),
        )
        for images in content["images"]
    ]


def require_golden_z(z: NDArray[np.float32], golden: Golden) -> None:
    """Check that z has the same bits."""
    assert hashlib.sha256(z.astype("<f4").tobytes()).hexdigest() == golden.z_sha256


def require_same_pixels(drawn: NDArray[np.uint8], expected: NDArray[np.uint8]) -> None:
    """Check that at most 0.1 % of the pixels differ, by one level."""
    assert drawn.shape == expected.shape
    assert drawn.dtype == np.uint8
    difference = np.abs(drawn.astype(int) - expected)
    assert difference.max() <= PIXEL_TOLERANCE
    assert (difference > 0).sum() <= ceil(PIXEL_SHARE * difference.size)
