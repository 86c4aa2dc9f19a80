"""Golden images: what PyTorch drew where the artifact was made, drawn again where it is used."""

import binascii
import hashlib
import platform
from base64 import b64decode, b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from .artifact import PIXEL_SHARE, PIXEL_TOLERANCE, ArtifactError, Metadata
from .runtime import session

GOLDEN_IMAGES = ((0, 0), (0, 63), (2**40 + 9, 2**33 + 1), (2**53 - 1, 2**53 - 2))
"""Seed and index of each: every word of Philox's key and counter counts, and JSON holds them."""


@dataclass(frozen=True)
class CheckResult:
    """How the golden images came out here."""

    provider: str
    """Where they were drawn: "cpu" or "cuda:N"."""
    versions: Mapping[str, str]
    """Of the programs that drew them."""
    images: int
    """How many there are."""
    noise_exact: bool
    """Whether their z and labels are those of the exporting machine, bit for bit."""
    largest_difference: int
    """Grey levels between a pixel here and PyTorch's in float64."""
    differing_pixels: int
    """How many differ at all."""
    allowed_pixels: int
    """How many may, by one level."""

    @property
    def passed(self) -> bool:
        """Whether this machine draws the images of the model."""
        return (
            self.noise_exact
            and self.largest_difference <= PIXEL_TOLERANCE
            and self.differing_pixels <= self.allowed_pixels
        )

    def __str__(self) -> str:
        """The result in words."""
        versions = ", ".join(f"{name} {number}" for name, number in self.versions.items())
        return (
            f"provider: {self.provider}\n"
            f"versions: {versions}\n"
            f"noise: {'exact' if self.noise_exact else 'WRONG'}\n"
            f"largest difference: {self.largest_difference} grey levels of {PIXEL_TOLERANCE} "
            f"allowed, in {self.differing_pixels} pixels of {self.allowed_pixels} allowed\n"
            f"verdict: {self.images} golden images "
            f"{'passed' if self.passed else 'FAILED: do not use these images'}"
        )


def describe(
    seed: int,
    image: int,
    z: NDArray[np.float32],
    pixels: NDArray[np.uint8],
    label: int | None = None,
) -> dict[str, Any]:
    """A golden image as the contract holds it.  z: (latent_dim,).  pixels: uint8 (H, W, C).

    label: the drawn one, of a conditional generator.
    """
    return {
        "seed": seed,
        "image": image,
        "z_sha256": _sha256(z),
        "pixels": b64encode(pixels.tobytes()).decode(),
    } | ({} if label is None else {"label": label})


class Drawing(Protocol):
    """What the golden images are drawn with: a `Sampler`."""

    @property
    def metadata(self) -> Metadata:
        """What the artifact says about itself."""

    @property
    def provider(self) -> str:
        """Where it draws: "cpu" or "cuda:N"."""

    def latents(self, count: int, *, seed: int = 0, start: int = 0) -> NDArray[np.float32]:
        """The noise of some images of a seed, (count, latent_dim)."""

    def labels(self, count: int, *, seed: int = 0, start: int = 0) -> NDArray[np.int64]:
        """The labels of these images, (count,)."""

    def decode(
        self, z: NDArray[np.float32], labels: NDArray[np.int64] | None = None
    ) -> NDArray[np.uint8]:
        """The images that a generator makes of noise, and of labels if it takes them."""


def check(sampler: Drawing) -> CheckResult:
    """Draw the golden images of an artifact again and compare.

    Raises:
        ArtifactError: where it carries none, or not in a form that can be read.
    """
    metadata = sampler.metadata
    if not metadata.golden:
        raise ArtifactError("it carries no golden images to check against: export it again")
    differences, exact = [], True
    for golden in metadata.golden:
        try:
            seed, image, z_sha256 = golden["seed"], golden["image"], golden["z_sha256"]
            pixels = np.frombuffer(b64decode(golden["pixels"], validate=True), np.uint8)
            z = sampler.latents(1, seed=seed, start=image)
            labels = [sampler.labels(1, seed=seed, start=image)] if metadata.classes else []
            drawn = sampler.decode(z, *labels).astype(int)
            differences.append(np.abs(drawn - pixels.reshape(drawn.shape)))
        except (KeyError, TypeError, ValueError, binascii.Error) as error:
            raise ArtifactError(f"its golden images cannot be read: {error!r}") from None
        exact &= _sha256(z) == z_sha256
        exact &= all(drawn_label[0] == golden.get("label") for drawn_label in labels)
    difference = np.concatenate(differences)
    return CheckResult(
        provider=sampler.provider,
        versions={
            "onnxruntime": session.version(),
            "numpy": np.__version__,
            "python": platform.python_version(),
        },
        images=len(differences),
        noise_exact=exact,
        largest_difference=int(difference.max()),
        differing_pixels=int((difference > 0).sum()),
        allowed_pixels=ceil(PIXEL_SHARE * difference.size),
    )


def _sha256(z: NDArray[np.float32]) -> str:
    return hashlib.sha256(z.astype("<f4").tobytes()).hexdigest()
