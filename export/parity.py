"""Every exported file against PyTorch: an export that does not match it fails."""

from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from export.generator_files import GENERATOR_FILE, TORCHSCRIPT_FILE, load_torchscript
from inference.noise import LIMIT, latents
from inference.session import ProviderError, open_session
from training.networks import Generator, to_pixels

BATCHES = (1, 2, 7, 64, 1000)
PIXEL_TOLERANCE = 1
"""Largest difference allowed between grey levels."""

# Between images in [-1, 1]: 1e-5, or where PyTorch's own float32 is itself further from float64
# (long training makes steep networks), a small multiple of that; twice as much on CUDA.
_TOLERANCE = 1e-5
_TIMES_OWN_ERROR = 4
_TIMES_ON_CUDA = 2

_SEED = LIMIT - 2  # noise that no training, picture or trace has used


class ParityError(Exception):
    """An exported file does not match PyTorch; the message says which, where and by how much."""


@dataclass(frozen=True)
class Check:
    """One file, run in one way on one batch."""

    file: str
    provider: str
    batch: int
    max_difference: float
    """Largest |file - PyTorch in float64| over all values in [-1, 1]; NaN where either is NaN."""
    tolerance: float
    """Largest difference allowed."""
    max_pixel_difference: int | None
    """Largest difference of grey levels; None for a file that gives none."""

    @property
    def passed(self) -> bool:
        """Whether the differences are within tolerance; NaN is not."""
        return self.max_difference <= self.tolerance and (
            self.max_pixel_difference is None or self.max_pixel_difference <= PIXEL_TOLERANCE
        )

    def to_dict(self) -> dict[str, Any]:
        """As strict JSON values."""
        finite = np.isfinite(self.max_difference)
        return asdict(self) | {
            "max_difference": self.max_difference if finite else str(self.max_difference),
            "passed": self.passed,
        }


def check_files(generator: Generator, folder: Path) -> list[Check]:
    """generator.onnx and generator.ts, as they lie in `folder`, on all that this machine has.

    generator: the reference, on the CPU in eval mode; run as a copy in float64.
    """
    noise = latents(sum(BATCHES), generator.latent_dim, seed=_SEED)
    batches = np.split(noise, np.cumsum(BATCHES)[:-1])
    reference = deepcopy(generator).double()
    with torch.inference_mode():
        expected: list[Tensor] = [reference(torch.from_numpy(z).double()) for z in batches]
        own: list[Tensor] = [generator(torch.from_numpy(z)) for z in batches]
    own_error = max(float((a - b).abs().max()) for a, b in zip(own, expected, strict=True))
    tolerance = max(_TOLERANCE, _TIMES_OWN_ERROR * own_error)
    checks = []
    for file, provider, run in _runners(folder):
        allowed = tolerance * (_TIMES_ON_CUDA if "cuda" in provider else 1)
        for z, images in zip(batches, expected, strict=True):
            difference, levels = _compare(images, *run(z))
            checks.append(Check(file, provider, len(z), difference, allowed, levels))
    return checks


def require_parity(checks: list[Check]) -> None:
    """Raise ParityError if a check failed, naming the first and the number of all."""
    failed = [check for check in checks if not check.passed]
    if failed:
        worst = failed[0]
        levels = worst.max_pixel_difference
        raise ParityError(
            f"{worst.file} on {worst.provider} is not the model: in a batch of {worst.batch}, "
            f"values are up to {worst.max_difference:.3g} apart (allowed {worst.tolerance:.3g})"
            + (f", grey levels up to {levels} (allowed {PIXEL_TOLERANCE})" if levels else "")
            + f"; {len(failed)} of {len(checks)} checks failed"
        )


def tightest(checks: list[Check]) -> Check:
    """The check that came nearest to its tolerance."""
    return max(checks, key=lambda check: check.max_difference / check.tolerance)


# z -> images, and pixels where the file gives them.
_Run = Callable[[NDArray[np.float32]], tuple[NDArray[np.float32], NDArray[np.uint8] | None]]


def _runners(folder: Path) -> Iterator[tuple[str, str, _Run]]:
    """Each file on each provider that this machine really has: (file, provider, run)."""
    for device in ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",):
        yield TORCHSCRIPT_FILE, f"torch {device}", _torchscript_runner(folder, device)
    model = (folder / GENERATOR_FILE).read_bytes()
    for wanted in ("cpu", "cuda"):
        try:
            session, provider = open_session(model, wanted)
        except ProviderError:
            if wanted == "cpu":
                raise
        else:
            yield GENERATOR_FILE, f"onnxruntime {provider}", _onnx_runner(session)


def _torchscript_runner(folder: Path, device: str) -> _Run:
    module = load_torchscript(folder / TORCHSCRIPT_FILE, device)

    def run(z: NDArray[np.float32]) -> tuple[NDArray[np.float32], None]:
        with torch.inference_mode():
            return module(torch.from_numpy(z).to(device)).cpu().numpy(), None

    return run


def _onnx_runner(session: Any) -> _Run:
    def run(z: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
        images, pixels = session.run(["images", "pixels"], {"z": z})
        return images, pixels

    return run


def _compare(
    expected: Tensor, images: NDArray[np.float32], pixels: NDArray[np.uint8] | None
) -> tuple[float, int | None]:
    """Largest differences of images and of grey levels; NaN, not a number, where either has one."""
    if images.shape != tuple(expected.shape):
        return float("inf"), None
    difference = float(np.abs(images - expected.numpy()).max())
    if pixels is None:
        return difference, None
    levels = to_pixels(expected).numpy().astype(int) - pixels
    return difference, int(np.abs(levels).max())
