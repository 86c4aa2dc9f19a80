"""`Sampler`: images from an exported generator, with numpy and onnxruntime alone."""

from collections.abc import Iterator
from os import PathLike
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .artifact import CONTRACT_KEY, ArtifactError, Metadata, verify_seal
from .golden import CheckResult, check
from .noise import NOISE, check_range, latents
from .session import open_session

GENERATOR_FILE = "generator.onnx"

# Images in one run of the network: larger ones fall out of the processor's cache.
_TILE = 512


class Sampler:
    """Draws images from one exported generator.

    >>> Sampler("artifact").sample(16, seed=0).shape
    (16, 28, 28)

    Image i of a seed depends on the seed and on i alone: not on the count, the batch, the order of
    the calls or the thread. On one processor and onnxruntime it is the same bit for bit; on
    another, or on CUDA, within one grey level.
    """

    provider: str
    """Where it really runs: "cpu" or "cuda:N"."""
    metadata: Metadata
    """What the artifact says about itself."""

    def __init__(
        self, artifact: str | PathLike[str] | bytes, *, provider: str = "auto", threads: int = 1
    ) -> None:
        """Load an artifact.

        artifact: its folder, its generator.onnx, or that file's bytes.
        provider: "auto" (CUDA if it works, else the CPU; the log says which and why), "cpu",
            "cuda" or "cuda:N".
        threads: processor threads of one run; 0 means all cores.

        Raises:
            ArtifactError: for a file that is missing, damaged, or no artifact of this format.
            ProviderError: where CUDA was asked for and cannot be had.
            ValueError: for a provider or a number of threads that does not exist.
        """
        model, name = _read(artifact)
        try:
            verify_seal(model)
            self._session, self.provider = open_session(model, provider, threads)
            contract = self._session.get_modelmeta().custom_metadata_map.get(CONTRACT_KEY)
            if contract is None:
                raise ArtifactError("it carries no contract")
            self.metadata = Metadata.from_json(contract)
            self._check_role()
        except ArtifactError as error:
            raise ArtifactError(f"{name}: {error}") from None

    def sample(self, count: int, *, seed: int = 0, start: int = 0) -> NDArray[np.uint8]:
        """Images `start` to `start + count` of `seed`: uint8 (count, H, W), colour (…, H, W, 3).

        Raises:
            ValueError: unless 0 <= seed < 2^63, 0 <= start, 0 <= count, start + count <= 2^63.
        """
        return self.decode(self.latents(count, seed=seed, start=start))

    def stream(
        self, count: int, *, seed: int = 0, start: int = 0, batch_size: int = 1024
    ) -> Iterator[NDArray[np.uint8]]:
        """The images of `sample`, `batch_size` at a time and the rest last, in constant memory.

        Raises:
            ValueError: at the call, as `sample`, or for a batch_size under 1.
        """
        check_range(count, seed=seed, start=start)
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        return (
            self.sample(min(batch_size, count - done), seed=seed, start=start + done)
            for done in range(0, count, batch_size)
        )

    def latents(self, count: int, *, seed: int = 0, start: int = 0) -> NDArray[np.float32]:
        """z of the images of `sample`: float32 (count, latent_dim), see `noise.latents`."""
        return latents(count, self.metadata.latent_dim, seed=seed, start=start)

    def decode(self, z: NDArray[np.floating]) -> NDArray[np.uint8]:
        """The images of z, float (n, latent_dim): uint8 (n, H, W), colour (n, H, W, 3).

        Raises:
            ValueError: for another shape or type, NaN or infinity.
        """
        z = self._checked(z)
        channels, height, width = self.metadata.image_shape
        images = np.empty((len(z), height, width, channels), np.uint8)
        for first in range(0, len(z), _TILE):
            tile = slice(first, first + _TILE)
            (images[tile],) = self._session.run(["pixels"], {"z": z[tile]})
        return images[..., 0] if channels == 1 else images

    def check(self) -> CheckResult:
        """Draw the golden images that the artifact carries again, and compare; see `golden`.

        Raises:
            ArtifactError: for an artifact without golden images.
        """
        return check(self)

    def _checked(self, z: NDArray[np.floating]) -> NDArray[np.float32]:
        z = np.asarray(z)
        wanted = f"z must be floating point (n, {self.metadata.latent_dim})"
        if z.ndim != 2 or z.shape[1] != self.metadata.latent_dim:
            raise ValueError(f"{wanted}, got shape {z.shape}")
        if not np.issubdtype(z.dtype, np.floating):
            raise ValueError(f"{wanted}, got {z.dtype}")
        with np.errstate(over="ignore"):  # told below
            z = np.ascontiguousarray(z, np.float32)
        if not np.isfinite(z).all():
            raise ValueError(f"{wanted} and finite in float32, got NaN or infinity")
        return z

    def _check_role(self) -> None:
        role, noise = self.metadata.role, self.metadata.noise
        if role != "generator":
            raise ArtifactError(f"this is its {role} file, Python draws from {GENERATOR_FILE}")
        if noise != NOISE:
            raise ArtifactError(f"its noise is {noise}, this version draws {NOISE}")
        if self.metadata.classes:
            raise ArtifactError("its generator takes labels, which this version cannot give it")


def _read(artifact: str | PathLike[str] | bytes) -> tuple[bytes, str]:
    """The bytes of generator.onnx and a name for messages."""
    if isinstance(artifact, bytes):
        return artifact, "artifact"
    path = Path(artifact)
    if path.is_dir():
        path /= GENERATOR_FILE
    try:
        return path.read_bytes(), str(path)
    except OSError as error:
        raise ArtifactError(
            f"{path}: {error.strerror}. Expected an artifact folder, or its {GENERATOR_FILE}; "
            f"`python -m export.run` makes one"
        ) from None
