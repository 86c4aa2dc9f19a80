"""Compare each exported file with PyTorch. An export that differs fails."""

from copy import deepcopy
from dataclasses import asdict, dataclass
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from export.file_runners import INPUTS, SEED, Output, runners
from inference.artifact import PIXEL_SHARE, PIXEL_TOLERANCE
from inference.errors import GanpackError
from inference.golden import GOLDEN_IMAGES, describe
from inference.model_files.artifact_files import GENERATOR_FILE, SAMPLER_FILE, TORCHSCRIPT_FILE
from inference.noise import latents, normal_quantiles
from training.engine.precision import known_settings
from training.gan.networks import Generator, to_pixels

BATCHES = (0, 1, 2, 7, 64, 1000)
"""Batch sizes. Each batch has the first of the same inputs, so batches can be compared, too."""

# Tolerance for images in [-1, 1]: 1e-5, or four times the error of PyTorch's own float32 against
# float64, if that is larger (long training makes steep networks). On CUDA, twice that.
_TOLERANCE = 1e-5
_TIMES_OWN_ERROR = 4
_TIMES_ON_CUDA = 2
_FINITE_IMAGES = 64


class ParityError(GanpackError):
    """A file does not match PyTorch, or PyTorch gives no numbers; the message says where."""


@dataclass(frozen=True)
class Check:
    """The comparison of one file on one provider and one batch.

    Figures of outputs that the file does not have are None.
    """

    file: str
    provider: str
    batch: int
    tolerance: float
    """Largest allowed difference."""
    allowed_pixels: int
    """How many grey levels may differ."""
    batch_independent: bool
    """Whether the largest batch starts with the same results, bit for bit."""
    max_difference: float | None = None
    """Largest |file - PyTorch in float64| over all values in [-1, 1]; NaN where either is NaN."""
    max_pixel_difference: int | None = None
    """Largest difference of grey levels."""
    differing_pixels: int | None = None
    """How many grey levels differ."""
    noise_exact: bool | None = None
    """Whether z and random labels are bit for bit those of the noise stream."""

    @property
    def passed(self) -> bool:
        """Whether all differences are within tolerance. NaN is not."""
        return (
            (self.max_difference is None or self.max_difference <= self.tolerance)
            and (self.max_pixel_difference or 0) <= PIXEL_TOLERANCE
            and (self.differing_pixels or 0) <= self.allowed_pixels
            and self.noise_exact is not False
        )

    def to_dict(self) -> dict[str, Any]:
        """As strict JSON values."""
        finite = self.max_difference is None or np.isfinite(self.max_difference)
        return asdict(self) | {
            "max_difference": self.max_difference if finite else str(self.max_difference),
            "passed": self.passed,
        }

    def __str__(self) -> str:
        """The figures with their tolerances, for a message."""
        parts = []
        if self.max_difference is not None:
            parts.append(
                f"values are up to {self.max_difference:.3g} apart (allowed {self.tolerance:.3g})"
            )
        if self.differing_pixels:
            parts.append(
                f"{self.differing_pixels} pixels differ (allowed {self.allowed_pixels}), "
                f"by up to {self.max_pixel_difference} grey levels (allowed {PIXEL_TOLERANCE})"
            )
        if self.noise_exact is False:
            parts.append("its z or labels are not those of the noise stream")
        return f"in a batch of {self.batch}, {', '.join(parts)}"


@known_settings()
def check_files(generator: Generator, folder: Path, stored: Generator | None = None) -> list[Check]:
    """Compare the three files in `folder` with PyTorch, on every provider of this machine.

    generator: the reference; copies of it run in eval mode on the CPU.
    stored: the reference for the ONNX files, if they hold rounded weights.
    """
    stored = stored or generator
    classes = len(generator.classes)
    given: Output = {"z": parity_inputs(generator.latent_dim)}
    if classes:
        given["labels"] = np.arange(BATCHES[-1]) % classes
    drawn = _drawn(generator, BATCHES[-1], SEED)  # sampler.onnx draws its own noise
    checks = []
    references = {
        TORCHSCRIPT_FILE: _Reference(generator, given),
        GENERATOR_FILE: _Reference(stored, given),
        SAMPLER_FILE: _Reference(stored, drawn),
    }
    for file, provider, run in runners(folder):
        reference = references[file]
        tolerance = reference.tolerance * (_TIMES_ON_CUDA if "cuda" in provider else 1)
        whole = run(reference.exact)
        for batch in BATCHES:
            wanted = _head(reference.exact, batch)
            output = run(wanted)
            figures = _compare(wanted, output)
            independent = _same_bits(_head(whole, batch), output)
            allowed = ceil(PIXEL_SHARE * wanted["pixels"].size)
            checks.append(Check(file, provider, batch, tolerance, allowed, independent, **figures))
    return checks


def parity_inputs(latent_dim: int) -> NDArray[np.float32]:
    """z for the comparison, float32 (1000, latent_dim): normal, zero, tiny, and extreme values."""
    z = latents(BATCHES[-1], latent_dim, seed=SEED)
    signs = np.where(z[7:40] > 0, 1, -1)
    most = normal_quantiles()[-1]  # 4.325, the largest value of the noise stream
    z[1] = 0
    z[2] = 1e-30
    z[3], z[4] = most, -most
    z[5] *= 1e-6
    z[6] = 1e-42  # denormal
    z[7:40] = signs * most
    return z


def golden_images(generator: Generator) -> tuple[dict[str, Any], ...]:
    """The golden images for the contract, generated by PyTorch in float64."""
    golden = []
    for seed, image in GOLDEN_IMAGES:
        exact = _Reference(generator, _drawn(generator, 1, seed, image)).exact
        label = int(exact["labels"][0]) if generator.classes else None
        golden.append(describe(seed, image, exact["z"][0], exact["pixels"][0], label))
    return tuple(golden)


def require_finite(generator: Generator, name: str) -> None:
    """Raise ParityError for NaN or infinity in the weights or in the first images of seed 0.

    As a pixel, both would be black or white, on each machine another.
    name: the file of the generator, for the message.
    """
    where = [
        f"its weights {key}"
        for key, tensor in generator.state_dict().items()
        if not tensor.isfinite().all()
    ]
    with torch.inference_mode():
        if not where and not generator(*generator.inputs(_FINITE_IMAGES)).isfinite().all():
            where = ["its images"]
    if where:
        raise ParityError(
            f"{name}: {where[0]} have NaN or infinity in them, so the training had diverged: "
            f"export an earlier snapshot with --checkpoint"
        )


def require_parity(checks: list[Check]) -> None:
    """Raise ParityError if a check failed; the message has the first one and their number."""
    failed = [check for check in checks if not check.passed]
    if failed:
        worst = failed[0]
        raise ParityError(
            f"{worst.file} on {worst.provider} is not the model: {worst}; "
            f"{len(failed)} of {len(checks)} checks failed"
        )


def tightest(checks: list[Check]) -> Check:
    """The check whose difference is nearest to its tolerance."""
    return max(checks, key=lambda check: (check.max_difference or 0) / check.tolerance)


def summary(checks: list[Check]) -> dict[str, Any]:
    """A summary of the checks, for the contract in each file."""
    worst = tightest(checks)
    return {
        "max_difference": worst.max_difference,
        "tolerance": worst.tolerance,
        "max_pixel_difference": max(check.max_pixel_difference or 0 for check in checks),
        "pixel_tolerance": PIXEL_TOLERANCE,
        "inputs": BATCHES[-1],
        "checks": len(checks),
        "providers": sorted({check.provider for check in checks}),
        "batch_independent": sorted(
            {check.file for check in checks}
            - {check.file for check in checks if not check.batch_independent}
        ),
    }


class _Reference:
    """The results of PyTorch in float64, and the tolerance for a file."""

    def __init__(self, generator: Generator, given: Output) -> None:
        copy = deepcopy(generator).cpu().float().eval()
        z, *others = (torch.from_numpy(given[name]) for name in INPUTS if name in given)
        with torch.inference_mode():
            own = copy(z, *others)
            images = copy.double()(z.double(), *others)
        self.exact: Output = {
            **given, "images": images.numpy(), "pixels": to_pixels(images).numpy(),
        }  # fmt: skip
        own_error = float((own - images).abs().max())
        self.tolerance = max(_TOLERANCE, _TIMES_OWN_ERROR * own_error)


def _compare(exact: Output, output: Output) -> dict[str, Any]:
    """The figures of a `Check`: differences from PyTorch and from the noise stream."""
    figures: dict[str, Any] = {}
    drawn = []
    for name, found in output.items():
        wanted = exact[name]
        fits = found.shape == wanted.shape
        if name in INPUTS:
            drawn.append(fits and found.tobytes() == wanted.tobytes())
            figures["noise_exact"] = all(drawn)
        elif name == "images":
            apart = np.abs(found - wanted).max(initial=0) if fits else np.inf
            figures["max_difference"] = float(apart)
        else:
            levels = np.abs(wanted.astype(int) - found) if fits else np.full(wanted.shape, 255)
            figures["max_pixel_difference"] = int(levels.max(initial=0))
            figures["differing_pixels"] = int((levels > 0).sum())
    return figures


def _drawn(generator: Generator, count: int, seed: int, start: int = 0) -> Output:
    """The inputs that the noise stream gives."""
    tensors = generator.inputs(count, seed=seed, start=start)
    return {name: tensor.cpu().numpy() for name, tensor in zip(INPUTS, tensors, strict=False)}


def _head(output: Output, batch: int) -> Output:
    return {name: values[:batch] for name, values in output.items()}


def _same_bits(a: Output, b: Output) -> bool:
    return all(a[name].tobytes() == b[name].tobytes() for name in b)
