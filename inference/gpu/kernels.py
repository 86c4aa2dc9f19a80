"""The kernels of kernels.cu. The device's context must be current."""

import ctypes
from ctypes import c_int64, c_uint32, c_uint64, c_void_p
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from ..noise import normal_quantiles
from ..runtime.device import Context, DeviceMemory
from ..runtime.driver import ProviderError
from ..runtime.session import say
from ..runtime.streams import Module, Stream

PTX = Path(__file__).with_name("kernels.ptx")

_BLOCK = 256  # threads


class Kernels:
    """The kernels of ganpack, loaded on one device."""

    def __init__(self, context: Context) -> None:
        """Load the kernels, and the table of the noise.

        Raises:
            ProviderError: if the driver refuses them.
            OSError: if kernels.ptx cannot be read.
        """
        module = Module(context, PTX.read_bytes())
        self._launch = context.driver.cuLaunchKernel
        self._latents, self._labels, self._pixels = map(
            module.kernel, ("noise_latents", "noise_labels", "images_to_pixels")
        )
        upper = np.ascontiguousarray(normal_quantiles()[2**15 :])
        self._upper = DeviceMemory(context, upper.nbytes)
        self._upper.write(upper)
        self._module = module  # the kernels belong to the module

    def latents(
        self, stream: Stream, z: int, count: int, latent_dim: int, *, seed: int, start: int
    ) -> None:
        """Write `noise.latents`, float32 (count, latent_dim), to the address z."""
        arguments = (
            c_uint64(z), c_uint64(self._upper.handle), c_uint64(seed), c_uint64(start),
            c_uint32(count), c_uint32(latent_dim),
        )  # fmt: skip
        self._run(self._latents, stream, count * -(-latent_dim // 8), arguments)

    def labels(
        self, stream: Stream, labels: int, count: int, classes: int, label: int | None,
        *, seed: int, start: int,
    ) -> None:  # fmt: skip
        """Write `noise.labels`, or one label for all, int64 (count,), to the address `labels`."""
        arguments = (
            c_uint64(labels), c_uint64(seed), c_uint64(start), c_uint32(count), c_uint32(classes),
            c_int64(-1 if label is None else label),
        )  # fmt: skip
        self._run(self._labels, stream, count, arguments)

    def pixels(
        self, stream: Stream, pixels: int, images: int, count: int, shape: tuple[int, int, int]
    ) -> None:
        """Convert images, float32 (count, C, H, W), to pixels, uint8 (count, H, W, C)."""
        values = count * prod(shape)
        arguments = (
            c_uint64(pixels), c_uint64(images), c_uint32(values), c_uint32(shape[0]),
            c_uint32(prod(shape[1:])),
        )  # fmt: skip
        self._run(self._pixels, stream, -(-values // 4), arguments)

    def _run(
        self, kernel: c_void_p, stream: Stream, items: int, arguments: tuple[Any, ...]
    ) -> None:
        blocks = -(-items // _BLOCK)
        addresses = (c_void_p * len(arguments))(*map(ctypes.addressof, arguments))
        self._launch(kernel, blocks, 1, 1, _BLOCK, 1, 1, 0, stream.handle, addresses, None)


def load(context: Context) -> Kernels | None:
    """The kernels on a device; None if the device refuses them, which is logged."""
    try:
        return Kernels(context)
    except (ProviderError, OSError) as error:
        say("drawing the noise on the host, because the device refuses the kernels: %s", error)
        return None
