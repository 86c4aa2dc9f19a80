"""`Sampler`: generate images with an exported generator. Needs only numpy and onnxruntime."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from os import PathLike
from typing import TYPE_CHECKING, Any, Literal, Self, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .arrays import apart, images_and_pixels, require_z
from .artifact import Metadata
from .cpu.painter import CpuPainter
from .cpu.walks import interpolate
from .errors import presentable
from .label import Label, number_of, numbers_of
from .model_files.opening import open_generator
from .noise import check_range, labels, latents
from .runtime.session import SessionSettings

if TYPE_CHECKING:
    from .golden import CheckResult
    from .gpu.device_images import DeviceImages
    from .gpu.painter import GpuPainter


class Sampler:
    """Generates images with one exported generator.

    >>> Sampler("artifact").sample(16, seed=0).shape
    (16, 28, 28)

    Image i of a seed depends only on the seed and on i, not on the count, the batch, the order of
    calls or the thread. With the same processor and onnxruntime, it has the same bits. On another
    processor, or on CUDA, pixels differ by at most one grey level.

    A sampler is thread-safe. A forked process can use it too, on the CPU, and it can be pickled:
    the other process opens the generator again.

    artifact: an artifact folder, its generator.onnx, or the bytes of that file.
    provider: "auto" (CUDA if it works, else the CPU; the log says which and why), "cpu",
        "cuda" or "cuda:N".
    threads: processor threads of one run; 0 means all cores. CUDA needs them only if the
        device cannot draw the noise.
    spinning: let idle threads spin: faster, but they use the processor all the time.
    tf32: let CUDA round factors to 10 bits: faster; images may differ by one grey level.
    allow_foreign: also accept ONNX generators of other programs, with z as input and one image
        tensor as output, and artifacts that were changed after their export. Such files cannot be
        verified: use only files that you trust.
    latent_dim, image_shape (C, H, W), value_range (black, white): facts about a foreign
        generator that its graph does not contain.
    """

    provider: str
    """Where the generator runs: "cpu" or "cuda:N"."""
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
        """Load an artifact. The class describes the arguments.

        Raises:
            ArtifactError: if the file is missing, damaged, or no artifact of this format.
            ProviderError: if CUDA was asked for and cannot be used.
            ValueError: for a provider or a number of threads that does not exist.
        """
        settings = SessionSettings(provider, threads, spinning, tf32)
        facts = latent_dim, image_shape, value_range
        if not allow_foreign and facts != (None, None, None):
            raise ValueError("latent_dim, image_shape and value_range need allow_foreign=True")
        generator, source = open_generator(artifact, settings, facts if allow_foreign else None)
        self.provider, self.metadata = generator.session.provider, generator.metadata
        self._painter: CpuPainter | GpuPainter | None = generator.painter or CpuPainter(
            generator.generate, self.metadata, generator.tile, settings.cores
        )
        self._arguments: dict[str, Any] = {  # for pickle
            "artifact": source, "provider": provider, "threads": threads, "spinning": spinning,
            "tf32": tf32, "allow_foreign": allow_foreign, "latent_dim": latent_dim,
            "image_shape": image_shape, "value_range": value_range,
        }  # fmt: skip

    @overload
    def sample(
        self,
        count: int,
        *,
        seed: int = 0,
        start: int = 0,
        label: Label | None = None,
        out: NDArray[np.uint8] | None = None,
        device: Literal[False] = False,
    ) -> NDArray[np.uint8]: ...

    @overload
    def sample(
        self,
        count: int,
        *,
        seed: int = 0,
        start: int = 0,
        label: Label | None = None,
        device: Literal[True],
    ) -> "DeviceImages": ...

    def sample(
        self,
        count: int,
        *,
        seed: int = 0,
        start: int = 0,
        label: Label | None = None,
        out: NDArray[np.uint8] | None = None,
        device: bool = False,
    ) -> "NDArray[np.uint8] | DeviceImages":
        """Images `start` to `start + count` of `seed`: uint8 (count, H, W), colour (…, H, W, 3).

        label: the class of all images, as number or name; None: a random class for each image, see
            `labels`.
        out: an array of this shape and type, which is filled and returned.
        device: leave the images on the GPU, in an object that PyTorch, CuPy and JAX accept without
            a copy.

        Raises:
            ValueError: unless 0 <= seed < 2^63, 0 <= start, 0 <= count, start + count <= 2^63; for
                a label that is no class of the artifact; for an `out` of another shape or type;
                for `device` on the CPU; for a closed sampler.
            MemoryError: if the GPU has not enough memory for the images.
        """
        count, seed, start = check_range(count, seed=seed, start=start)
        number = number_of(label, self.metadata.classes)
        if device:
            return self._sample_on_device(count, seed, start, number, out)
        images, pixels = images_and_pixels(count, self.metadata.image_shape, out)
        self._open().sample([pixels], seed, start, number)
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
        """The images of `sample` in batches of `batch_size`, in constant memory.

        The last batch may be smaller.

        Raises:
            ValueError: at the call: see `sample`, and for a batch_size below 1.
        """
        count, seed, start = check_range(count, seed=seed, start=start)
        number = number_of(label, self.metadata.classes)
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        fill = partial(self._fill, seed, start, number)
        return self._open().stream(fill, count, batch_size)

    def latents(self, count: int, *, seed: int = 0, start: int = 0) -> NDArray[np.float32]:
        """z of the images of `sample`: float32 (count, latent_dim), see `noise.latents`."""
        return latents(count, self.metadata.latent_dim, seed=seed, start=start)

    def labels(self, count: int, *, seed: int = 0, start: int = 0) -> NDArray[np.int64]:
        """The random labels that `sample` uses, int64 (count,): indices of the metadata's classes.

        Raises:
            ValueError: see `sample`; and for an artifact without classes.
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

        labels: for an artifact with classes: whole numbers (n,), or one class as number or name.
        out: an array of this shape and type, which is filled and returned.

        Raises:
            ValueError: for another shape or type, NaN or infinity; for an `out` that overlaps
                itself; for labels that are missing or unknown; for a closed sampler.
            ArtifactError: if onnxruntime cannot run the generator.
        """
        painter = self._open()
        z = np.asarray(z)
        require_z(z, self.metadata.latent_dim)
        numbers = numbers_of(labels, len(z), self.metadata.classes)
        images, pixels = images_and_pixels(len(z), self.metadata.image_shape, out)
        painter.decode(pixels, apart(z, images), numbers)
        return images

    def interpolate(self, z_a: ArrayLike, z_b: ArrayLike, steps: int) -> NDArray[np.float32]:
        """`steps` points z on an arc from z_a to z_b, for `decode`; see `walks.interpolate`.

        Raises:
            ValueError: unless both are finite and of shape (latent_dim,), and steps >= 2.
        """
        wanted = (self.metadata.latent_dim,)
        if np.shape(z_a) != wanted or np.shape(z_b) != wanted:
            raise ValueError(
                f"z_a and z_b must be {wanted}, got shapes {np.shape(z_a)} and {np.shape(z_b)}"
            )
        return interpolate(z_a, z_b, steps)

    def check(self) -> "CheckResult":
        """Generate the artifact's golden images again, and compare; see `golden`.

        Raises:
            ArtifactError: if the artifact has no golden images.
        """
        from .golden import check  # most hosts never need it

        self._open()
        return check(self)

    def close(self) -> None:
        """Release the generator. Any later use, in another thread too, is an error."""
        self._painter = None
        self._arguments = {}

    def __repr__(self) -> str:
        """A description: what the sampler generates, and where."""
        if self._painter is None:
            return "<Sampler, closed>"
        about = self.metadata
        channels, height, width = about.image_shape
        classes = f", {len(about.classes)} classes" if about.classes else ""
        return presentable(
            f"<Sampler: {about.dataset} by {about.recipe}, step {about.step:,}, {width}×{height} "
            f"{'grey' if channels == 1 else 'colour'}{classes}, on {self.provider}>"
        )

    def __enter__(self) -> Self:
        """Close the sampler at the end of a `with` block."""
        return self

    def __exit__(self, *error: object) -> None:
        """Close the sampler."""
        self.close()

    def __reduce__(self) -> tuple[Callable[..., "Sampler"], tuple[dict[str, Any]]]:
        """For pickle: the arguments of the constructor."""
        self._open()
        return _make, (self._arguments,)

    def _open(self) -> "CpuPainter | GpuPainter":
        painter = self._painter
        if painter is None:
            raise ValueError("this sampler is closed: make a new one to generate more")
        return painter

    def _fill(
        self, seed: int, start: int, label: int | None, first: int, places: Sequence[Any]
    ) -> None:
        """Fill arrays with images of a stream, from the stream's image `first` on."""
        self._open().sample(places, seed, start + first, label)

    def _sample_on_device(
        self, count: int, seed: int, start: int, label: int | None, out: object
    ) -> "DeviceImages":
        painter = self._open()
        if isinstance(painter, CpuPainter):
            raise ValueError(
                f"device=True needs a generator of ganpack on CUDA, this one is "
                f"{'foreign' if self.provider != 'cpu' else 'on the CPU'}: leave it out"
            )
        if out is not None:
            raise ValueError("device=True makes a new array: leave out `out`")
        return painter.sample_on_device(count, seed, start, label)


def _make(arguments: dict[str, Any]) -> Sampler:
    return Sampler(**arguments)
