"""The generator of an artifact: check it, load it, and run it. z in, pixels out."""

from base64 import b64decode
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..artifact import CONTRACT_KEY, SEAL_MARKER, ArtifactError, Metadata, verify_seal
from ..noise import NOISE
from ..onnx_format.parts import ModelFile, Node
from ..runtime.session import SessionSettings, say
from ..runtime.shared_session import Session
from .allowed_graph import read_bounded, require_allowed
from .artifact_files import GENERATOR_FILE
from .reading import looks_like

if TYPE_CHECKING:
    from ..gpu.kernels import Kernels
    from ..gpu.painter import GpuPainter
    from ..runtime.device import Context

# Images in one run of the network. More would not fit into a processor's cache; a GPU is fast with
# thousands.
TILES = {"cpu": 512, "cuda": 16384}
MOST_VALUES_IN_A_TILE = {"cpu": 2**22, "cuda": 2**24}
# For fewer images, onnxruntime's plain `run` is faster than binding the arrays.
_WORTH_BINDING = 64


class LoadedGenerator(Protocol):
    """A generator that a `Sampler` can use."""

    metadata: Metadata
    """What the file says about itself."""
    session: Session
    """The session that runs it."""
    tile: int
    """The most images in one call of `generate`."""
    painter: "GpuPainter | None"
    """Replaces `generate` if noise, network and pixels can all stay on a GPU."""

    def generate(
        self, z: NDArray[np.float32], labels: NDArray[np.int64] | None, out: NDArray[np.uint8]
    ) -> None:
        """Write the pixels, uint8 (n, H, W, C), of z, float32 (n, latent_dim), n at most `tile`.

        z: C-contiguous; no reference to it is kept.  labels: int64 (n,), if there are classes.
        """


class OwnGenerator:
    """A generator that ganpack exported."""

    def __init__(self, model: bytes, settings: SessionSettings) -> None:
        """Raise ArtifactError unless ganpack wrote the file, and it agrees with its contract.

        onnxruntime sees no byte of the file before its seal and its graph have been checked.
        """
        if SEAL_MARKER not in model:
            raise ArtifactError(looks_like(model))
        verify_seal(model)
        file = read_bounded(model)
        if CONTRACT_KEY not in file.metadata:
            raise ArtifactError("it carries no contract")
        self.metadata = Metadata.from_json(file.metadata[CONTRACT_KEY])
        _require_role(self.metadata)
        values = require_allowed(file, self.metadata, len(model))
        self._open(model, file, settings, values, _OnDevice(model, file.nodes))
        if self.painter is not None and not _generates_golden_images(self.painter, self.metadata):
            say("this device computes wrong images with the kernels: the host draws the noise")
            self._open(model, file, settings, values, _OnDevice(model, file.nodes, kernels=False))

    def _open(
        self,
        model: bytes,
        file: ModelFile,
        settings: SessionSettings,
        values: int,
        device: "_OnDevice",
    ) -> None:
        """Open the session.  values: the most values of one image in a layer."""
        self.session = Session(
            model, settings, convolutions=file.has_convolutions, on_stream=device.network
        )
        kind = self.session.provider.partition(":")[0]
        self.tile = max(1, min(TILES[kind], MOST_VALUES_IN_A_TILE[kind] // values))
        self.painter = device.painter(self, settings.cores) if kind == "cuda" else None

    def generate(
        self, z: NDArray[np.float32], labels: NDArray[np.int64] | None, out: NDArray[np.uint8]
    ) -> None:
        """Write the pixels, uint8 (n, H, W, C), of z, float32 (n, latent_dim), and labels (n,)."""
        feeds: dict[str, NDArray[Any]] = {"z": z} if labels is None else {"z": z, "labels": labels}
        if len(z) >= _WORTH_BINDING and out.flags.c_contiguous:
            self.session.run_into(feeds, "pixels", out)
            return
        (pixels,) = self.session.run(["pixels"], feeds)
        if pixels.shape != out.shape:
            raise ArtifactError(
                f"its pixels have the shape {pixels.shape}, not what its contract says"
            )
        out[...] = pixels


class _OnDevice:
    """The model and the painter of a generator on CUDA. A host on the CPU needs neither."""

    def __init__(self, model: bytes, nodes: list[Node], *, kernels: bool = True) -> None:
        """kernels: whether to use kernels, if the device accepts them."""
        self._model, self._nodes, self._wanted = model, nodes, kernels
        self.kernels: Kernels | None = None

    def network(self, context: "Context") -> bytes:
        """The model to run on CUDA: without its last nodes, if a kernel does their work."""
        from ..gpu.kernels import load
        from .network import without_pixels

        self.kernels = load(context) if self._wanted else None
        return without_pixels(self._model, self._nodes) if self.kernels else self._model

    def painter(self, generator: OwnGenerator, threads: int) -> "GpuPainter":
        """The painter, which generates images on CUDA."""
        from ..gpu.painter import GpuPainter

        return GpuPainter(
            generator.session, generator.metadata, generator.tile, threads, self.kernels
        )


def _generates_golden_images(painter: "GpuPainter", metadata: Metadata) -> bool:
    """Whether a device generates the golden images, within two grey levels (TF32 rounds)."""
    channels, height, width = metadata.image_shape
    pixels = np.empty((1, height, width, channels), np.uint8)
    for golden in metadata.golden:
        try:
            expected = np.frombuffer(b64decode(golden["pixels"], validate=True), np.uint8)
            seed, image = int(golden["seed"]), int(golden["image"])
            expected = expected.reshape(pixels.shape)
        except (KeyError, TypeError, ValueError, OverflowError):
            continue  # `Sampler.check` says what is wrong with it
        painter.sample([pixels], seed, image, None)
        if np.abs(pixels.astype(int) - expected).max(initial=0) > 2:
            return False
    return True


def _require_role(metadata: Metadata) -> None:
    if metadata.role != "generator":
        raise ArtifactError(f"this is its {metadata.role} file, Python uses {GENERATOR_FILE}")
    if metadata.noise != NOISE:
        raise ArtifactError(f"its noise is {metadata.noise}, this version has {NOISE}")
