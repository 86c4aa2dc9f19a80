"""`Sampler`: images from an exported generator, with numpy and onnxruntime alone."""

from collections.abc import Iterator
from os import PathLike
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .artifact import SEAL_MARKER, ArtifactError, Metadata
from .file_kinds import read_file
from .foreign import ForeignGenerator, ForeignOptions
from .generators import GENERATOR_FILE, LoadedGenerator, OwnGenerator
from .golden import CheckResult, check
from .noise import check_range, latents


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
        self,
        artifact: str | PathLike[str] | bytes,
        *,
        provider: str = "auto",
        threads: int = 1,
        allow_foreign: bool = False,
        latent_dim: int | None = None,
        image_shape: tuple[int, int, int] | None = None,
        value_range: tuple[float, float] | None = None,
    ) -> None:
        """Load an artifact.

        artifact: its folder, its generator.onnx, or that file's bytes.
        provider: "auto" (CUDA if it works, else the CPU; the log says which and why), "cpu",
            "cuda" or "cuda:N".
        threads: processor threads of one run; 0 means all cores.
        allow_foreign: take another program's ONNX generator as well, z in and one image tensor
            out. Trust it first: nothing about it can be verified.
        latent_dim, image_shape (C, H, W), value_range (black, white): of a foreign generator,
            where its graph does not say.

        Raises:
            ArtifactError: for a file that is missing, damaged, or no artifact of this format.
            ProviderError: where CUDA was asked for and cannot be had.
            ValueError: for a provider or a number of threads that does not exist.
        """
        options = ForeignOptions(latent_dim, image_shape, value_range)
        if not allow_foreign and options != ForeignOptions():
            raise ValueError("latent_dim, image_shape and value_range go with allow_foreign=True")
        path = None if isinstance(artifact, bytes) else _file_of(Path(artifact))
        try:
            model = artifact if isinstance(artifact, bytes) else read_file(Path(path or ""))
            if allow_foreign and SEAL_MARKER not in model:
                self._generator: LoadedGenerator = ForeignGenerator(
                    model, path, provider, threads, options
                )
            else:
                self._generator = OwnGenerator(model, provider, threads)
        except ArtifactError as error:
            raise ArtifactError(f"{path or 'artifact'}: {error}") from None
        self.provider, self.metadata = self._generator.provider, self._generator.metadata

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
            ArtifactError: for a file that turns out not to run.
        """
        z = self._checked(z)
        channels, height, width = self.metadata.image_shape
        images = np.empty((len(z), height, width, channels), np.uint8)
        size = self._generator.tile
        for first in range(0, len(z), size):
            tile = slice(first, first + size)
            images[tile] = self._generator.draw(z[tile])
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


def _file_of(path: Path) -> Path:
    return path / GENERATOR_FILE if path.is_dir() else path
