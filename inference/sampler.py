"""`Sampler`: images from an exported generator, with numpy and onnxruntime alone."""

from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .artifact import SEAL_MARKER, ArtifactError, Metadata
from .label import Label, number_of, numbers_of
from .model_files.own import GENERATOR_FILE, LoadedGenerator, OwnGenerator
from .model_files.reading import read_file
from .noise import check_range, labels, latents
from .runtime.session import SessionSettings
from .tiles import TileNoise, ahead
from .walks import interpolate

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

    from .golden import CheckResult

_WINDOW = 8
"""Batches or tiles that are begun on CUDA before they are asked for."""


class Sampler:
    """Draws images from one exported generator.

    >>> Sampler("artifact").sample(16, seed=0).shape
    (16, 28, 28)

    Image i of a seed depends on the seed and on i alone: not on the count, the batch, the order of
    the calls or the thread. On one processor and onnxruntime it is the same bit for bit; on
    another, or on CUDA, within one grey level.

    Many threads may draw from one sampler. A forked process may go on with it, on the CPU, and
    pickle may send it to another process: it opens the generator again there.
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
        spinning: bool = False,
        tf32: bool = False,
        allow_foreign: bool = False,
        latent_dim: int | None = None,
        image_shape: tuple[int, int, int] | None = None,
        value_range: tuple[float, float] | None = None,
    ) -> None:
        """Load an artifact.

        artifact: its folder, its generator.onnx, or that file's bytes.
        provider: "auto" (CUDA if it works, else the CPU; the log says which and why), "cpu",
            "cuda" or "cuda:N".
        threads: processor threads of one run; 0 means all cores. On CUDA they draw the noise and
            keep the device busy, two at least.
        spinning: let idle threads spin: quicker, and as busy as at work.
        tf32: let CUDA round the factors of products to 10 bits: faster, and up to a level apart.
        allow_foreign: take another program's ONNX generator as well, z in and one image tensor
            out. Trust it first: nothing about it can be verified.
        latent_dim, image_shape (C, H, W), value_range (black, white): of a foreign generator,
            where its graph does not say.

        Raises:
            ArtifactError: for a file that is missing, damaged, or no artifact of this format.
            ProviderError: where CUDA was asked for and cannot be had.
            ValueError: for a provider or a number of threads that does not exist.
        """
        settings = SessionSettings(provider, threads, spinning, tf32)
        foreign = latent_dim, image_shape, value_range
        if not allow_foreign and foreign != (None, None, None):
            raise ValueError("latent_dim, image_shape and value_range go with allow_foreign=True")
        path = None if isinstance(artifact, bytes) else _file_of(Path(artifact))
        try:
            model = artifact if isinstance(artifact, bytes) else read_file(Path(path or ""))
            if allow_foreign and SEAL_MARKER not in model:
                from .model_files.foreign import ForeignGenerator, ForeignOptions

                options = ForeignOptions(*foreign)
                generator: LoadedGenerator = ForeignGenerator(model, path, settings, options)
            else:
                generator = OwnGenerator(model, settings)
        except ArtifactError as error:
            raise ArtifactError(f"{path or 'artifact'}: {error}") from None
        self.provider, self.metadata = generator.session.provider, generator.metadata
        # What makes the same sampler again: from bytes, unless weights lie beside the file.
        self._arguments: dict[str, Any] = {
            "artifact": model if isinstance(generator, OwnGenerator) else path or model,
            "provider": provider, "threads": threads, "spinning": spinning, "tf32": tf32,
            "allow_foreign": allow_foreign, "latent_dim": latent_dim, "image_shape": image_shape,
            "value_range": value_range,
        }  # fmt: skip
        self._pool = None if self.provider == "cpu" else _pool(max(2, settings.cores))
        classes = len(self.metadata.classes)
        self._noise = TileNoise(generator.tile, self.metadata.latent_dim, classes)
        self._generator: LoadedGenerator | None = generator

    def sample(
        self,
        count: int,
        *,
        seed: int = 0,
        start: int = 0,
        label: Label | None = None,
        out: NDArray[np.uint8] | None = None,
    ) -> NDArray[np.uint8]:
        """Images `start` to `start + count` of `seed`: uint8 (count, H, W), colour (…, H, W, 3).

        label: the class of all of them, its number or name; None draws one for each, see `labels`.
        out: an array of that shape and type to write into and return.

        Raises:
            ValueError: unless 0 <= seed < 2^63, 0 <= start, 0 <= count, start + count <= 2^63; for
                a label that is no class of the artifact; for an `out` of another shape or type;
                for a closed sampler.
        """
        count, seed, start = check_range(count, seed=seed, start=start)
        number = number_of(label, self.metadata.classes)
        images, pixels = self._images(count, out)
        tile = self._open().tile
        if self._pool is None or count <= tile:
            self._draw(pixels, seed, start, number)
        else:
            jobs = (
                partial(self._draw, pixels[first : first + tile], seed, start + first, number)
                for first in range(0, count, tile)
            )
            deque(ahead(self._pool, jobs, _WINDOW), maxlen=0)
        return images

    def stream(
        self,
        count: int,
        *,
        seed: int = 0,
        start: int = 0,
        batch_size: int = 1024,
        label: Label | None = None,
    ) -> Iterator[NDArray[np.uint8]]:
        """The images of `sample`, `batch_size` at a time and the rest last, in constant memory.

        Raises:
            ValueError: at the call, as `sample`, or for a batch_size under 1.
        """
        count, seed, start = check_range(count, seed=seed, start=start)
        number = number_of(label, self.metadata.classes)
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        self._open()
        jobs = (
            partial(self._batch, min(batch_size, count - done), seed, start + done, number)
            for done in range(0, count, batch_size)
        )
        return (job() for job in jobs) if self._pool is None else ahead(self._pool, jobs, _WINDOW)

    def latents(self, count: int, *, seed: int = 0, start: int = 0) -> NDArray[np.float32]:
        """z of the images of `sample`: float32 (count, latent_dim), see `noise.latents`."""
        return latents(count, self.metadata.latent_dim, seed=seed, start=start)

    def labels(self, count: int, *, seed: int = 0, start: int = 0) -> NDArray[np.int64]:
        """The labels that `sample` draws, int64 (count,): places in the classes of the metadata.

        Raises:
            ValueError: as `sample`, and for an artifact without classes.
        """
        if not self.metadata.classes:
            raise ValueError("this artifact has no classes, so its images have no labels")
        return labels(count, len(self.metadata.classes), seed=seed, start=start)

    def decode(
        self,
        z: NDArray[np.floating],
        labels: Label | ArrayLike | None = None,
        *,
        out: NDArray[np.uint8] | None = None,
    ) -> NDArray[np.uint8]:
        """The images of z, float (n, latent_dim): uint8 (n, H, W), colour (n, H, W, 3).

        labels: of an artifact with classes: whole numbers (n,), or one class, its number or name.
        out: an array of that shape and type to write into and return.

        Raises:
            ValueError: for another shape or type, NaN or infinity; for labels that are missing or
                that the artifact does not have; for a closed sampler.
            ArtifactError: for a file that turns out not to run.
        """
        generator = self._open()
        z = np.asarray(z)
        tiles = [slice(i, i + generator.tile) for i in range(0, z.size and len(z), generator.tile)]
        self._check_z(z, tiles)
        numbers = numbers_of(labels, len(z), self.metadata.classes)
        images, pixels = self._images(len(z), out)
        for tile in tiles:
            part = None if numbers is None else numbers[tile]
            generator.draw(self._noise.copy(z[tile]), part, pixels[tile])
        return images

    def interpolate(self, z_a: ArrayLike, z_b: ArrayLike, steps: int) -> NDArray[np.float32]:
        """`steps` z from z_a to z_b on an arc, for `decode`: see `walks.interpolate`.

        Raises:
            ValueError: unless both are finite (latent_dim,), and steps at least 2.
        """
        wanted = (self.metadata.latent_dim,)
        if np.shape(z_a) != wanted or np.shape(z_b) != wanted:
            raise ValueError(
                f"z_a and z_b must be {wanted}, got shapes {np.shape(z_a)} and {np.shape(z_b)}"
            )
        return interpolate(z_a, z_b, steps)

    def check(self) -> "CheckResult":
        """Draw the golden images that the artifact carries again, and compare; see `golden`.

        Raises:
            ArtifactError: for an artifact without golden images.
        """
        from .golden import check  # most hosts never ask

        self._open()
        return check(self)

    def close(self) -> None:
        """Let go of the generator; to draw from it later, in another thread too, is an error."""
        self._generator = None
        self._arguments = {}
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)

    def __enter__(self) -> Self:
        """For `with`: closed at its end."""
        return self

    def __exit__(self, *error: object) -> None:
        """Close."""
        self.close()

    def __reduce__(self) -> tuple[Callable[..., "Sampler"], tuple[dict[str, Any]]]:
        """For pickle: what it was made of."""
        self._open()
        return _make, (self._arguments,)

    def _open(self) -> LoadedGenerator:
        generator = self._generator
        if generator is None:
            raise ValueError("this sampler is closed: make a new one to draw more")
        return generator

    def _batch(self, count: int, seed: int, start: int, label: int | None) -> NDArray[np.uint8]:
        images, pixels = self._images(count, None)
        self._draw(pixels, seed, start, label)
        return images

    def _draw(self, pixels: NDArray[np.uint8], seed: int, start: int, label: int | None) -> None:
        """Fill pixels, uint8 (n, H, W, C), tile by tile."""
        generator = self._open()
        for first in range(0, len(pixels), generator.tile):
            part = pixels[first : first + generator.tile]
            z, drawn = self._noise.draw(len(part), seed, start + first)
            if label is not None:
                drawn = np.full(len(part), label, np.int64)
            generator.draw(z, drawn, part)

    def _images(
        self, count: int, out: NDArray[np.uint8] | None
    ) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """An array for images as the caller sees it, and the same memory as (n, H, W, C)."""
        channels, height, width = self.metadata.image_shape
        if out is None:
            pixels = np.empty((count, height, width, channels), np.uint8)
            return (pixels[..., 0] if channels == 1 else pixels), pixels
        shape = (count, height, width) if channels == 1 else (count, height, width, channels)
        if not isinstance(out, np.ndarray) or out.dtype != np.uint8 or out.shape != shape:
            found = (getattr(out, "dtype", type(out)), getattr(out, "shape", "no shape"))
            raise ValueError(f"out must be a uint8 array of {shape}, got {found[0]} of {found[1]}")
        if not out.flags.writeable:
            raise ValueError("out must be writeable, got a read-only array")
        return out, (out[..., None] if channels == 1 else out)

    def _check_z(self, z: NDArray[np.floating], tiles: list[slice]) -> None:
        wanted = f"z must be floating point (n, {self.metadata.latent_dim})"
        if z.ndim != 2 or z.shape[1] != self.metadata.latent_dim:
            raise ValueError(f"{wanted}, got shape {z.shape}")
        if not np.issubdtype(z.dtype, np.floating):
            raise ValueError(f"{wanted}, got {z.dtype}")
        largest = np.finfo(np.float32).max
        # Not all at once: it may be large.
        if not all((np.abs(z[tile]) <= largest).all() for tile in tiles):
            raise ValueError(f"{wanted} and finite in float32, got NaN or infinity")


def _file_of(path: Path) -> Path:
    return path / GENERATOR_FILE if path.is_dir() else path


def _make(arguments: dict[str, Any]) -> Sampler:
    return Sampler(**arguments)


def _pool(workers: int) -> "ThreadPoolExecutor":
    from concurrent.futures import ThreadPoolExecutor

    return ThreadPoolExecutor(workers, thread_name_prefix=__package__)
