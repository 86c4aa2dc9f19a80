"""The kernels of noise.cu, which draw z and labels in the device's memory: the bits of `noise`."""

import ctypes
from ctypes import c_int64, c_uint32, c_uint64, c_void_p
from pathlib import Path
from typing import Any

import numpy as np

from ..noise import normal_quantiles
from ..runtime.device import Context, DeviceMemory
from ..runtime.streams import Module, Stream

PTX = Path(__file__).with_name("noise.ptx")

_BLOCK = 256  # threads


class NoiseKernel:
    """Draws noise on one device."""

    def __init__(self, context: Context) -> None:
        """Load the kernels and the table.

        Raises:
            ProviderError: where the driver does not take them.
            OSError: where noise.ptx cannot be read.
        """
        module = Module(context, PTX.read_bytes())
        self._launch = context.driver.cuLaunchKernel
        self._latents, self._labels = map(module.kernel, ("noise_latents", "noise_labels"))
        upper = np.ascontiguousarray(normal_quantiles()[2**15 :])
        self._upper = DeviceMemory(context, upper.nbytes)
        self._upper.write(upper)
        self._module = module  # its kernels go with it

    def latents(
        self, stream: Stream, z: int, count: int, latent_dim: int, *, seed: int, start: int
    ) -> None:
        """Write float32 (count, latent_dim) to the address z. The context is the current one."""
        items = count * -(-latent_dim // 8)
        arguments = (
            c_uint64(z), c_uint64(self._upper.handle), c_uint64(seed), c_uint64(start),
            c_uint32(count), c_uint32(latent_dim),
        )  # fmt: skip
        self._run(self._latents, stream, items, arguments)

    def labels(
        self, stream: Stream, labels: int, count: int, classes: int, label: int | None,
        *, seed: int, start: int,
    ) -> None:  # fmt: skip
        """Write int64 (count,) to the address `labels`: drawn ones, or all the same."""
        arguments = (
            c_uint64(labels), c_uint64(seed), c_uint64(start), c_uint32(count), c_uint32(classes),
            c_int64(-1 if label is None else label),
        )  # fmt: skip
        self._run(self._labels, stream, count, arguments)

    def _run(
        self, kernel: c_void_p, stream: Stream, items: int, arguments: tuple[Any, ...]
    ) -> None:
        blocks = -(-items // _BLOCK)
        addresses = (c_void_p * len(arguments))(*map(ctypes.addressof, arguments))
        self._launch(kernel, blocks, 1, 1, _BLOCK, 1, 1, 0, stream.handle, addresses, None)
