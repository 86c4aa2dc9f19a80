"""The programs that `benchmarks.sampling` compares, and the limits that none of them can beat."""

import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from onnx import TensorProto, helper, numpy_helper

from benchmarks.footprint import BASE
from export.generator_files import export_graph, load_torchscript, onnx_file, write_torchscript
from inference import Sampler
from inference.artifact import Metadata
from inference.noise import NOISE
from inference.runtime.session import SessionSettings, open_session
from training.gan.networks import Generator, to_pixels

Generate = Callable[[int], Any]
"""Generates a batch, given the index of its first image; returns when the pixels are in memory."""
LIMIT = "products alone, "
"""Prefix of the names of programs that only multiply matrices. Nothing can be faster."""

EAGER = "torch eager"
STAYS = ", stays on the device"
"""Suffix of the names of programs whose images stay on the device."""

TF32 = ", TF32"
"""Part of the names of programs that round the factors of products to 10 bits."""

_COPIED = 8192  # images


@dataclass(frozen=True)
class Subject:
    """The network that all programs run, and the device."""

    generator: Generator
    onnx: Path
    script: Path
    device: torch.device
    threads: int

    @classmethod
    def write(
        cls, generator: Generator, folder: Path, device: torch.device, threads: int
    ) -> "Subject":
        """Write both files of an untrained generator; speed does not depend on the weights."""
        metadata = Metadata(
            role="generator", image_shape=generator.image_shape, latent_dim=generator.latent_dim,
            noise=NOISE, dataset="none", recipe="none", step=0, weights_sha256="none",
        )  # fmt: skip
        subject = cls(
            generator, folder / "generator.onnx", folder / "generator.ts", device, threads
        )
        subject.onnx.write_bytes(onnx_file(export_graph(generator), metadata))
        write_torchscript(generator, metadata, subject.script)
        generator.to(device)
        return subject

    def z(self, batch: int) -> np.ndarray[Any, Any]:
        """Noise for the programs that draw none."""
        random = np.random.default_rng(0)
        return random.standard_normal((batch, self.generator.latent_dim), np.float32)


def contestants(
    subject: Subject, *, compiled: bool
) -> Iterator[tuple[str, Callable[[int], Generate]]]:
    """The name of each program, and a function that makes it for a batch size.

    On CUDA, PyTorch draws its noise on the GPU; on the CPU, the noise is given.
    """
    cuda = subject.device.type == "cuda"
    yield BASE, _bare(subject)
    yield "sampler", _sampler(subject)
    yield f"{LIMIT}PyTorch", _products(subject)
    if cuda:
        yield f"sampler{STAYS}", _sampler(subject, stays=True)
    else:
        yield f"{LIMIT}onnxruntime", _products_by_onnxruntime(subject)
    generator = subject.generator
    script = load_torchscript(subject.script, subject.device.type)

    def pixels(z: torch.Tensor) -> torch.Tensor:
        return to_pixels(generator(z))

    yield EAGER, _torch(subject, pixels)
    if cuda:
        yield f"{EAGER}{STAYS}", _torch(subject, pixels, stays=True)
    yield "TorchScript", _torch(subject, lambda z: to_pixels(script(z)))
    if compiled:
        yield "torch.compile", _torch(subject, torch.compile(pixels, dynamic=True))
    if cuda:
        for threads in (1, 8):
            name = f"sampler, noise of the host, {threads} threads"
            yield name, _sampler(subject, host_threads=threads)
        yield f"sampler{TF32}", _sampler(subject, tf32=True)
        yield f"sampler{TF32}{STAYS}", _sampler(subject, tf32=True, stays=True)
        yield f"{LIMIT}PyTorch{TF32}", _products(subject, tf32=True)


def _bare(subject: Subject) -> Callable[[int], Generate]:
    session, _ = open_session(subject.onnx, SessionSettings(subject.device.type, subject.threads))

    def of(batch: int) -> Generate:
        feeds = {"z": subject.z(batch)}
        return lambda first: session.run(["pixels"], feeds)

    return of


def _sampler(
    subject: Subject, *, tf32: bool = False, stays: bool = False, host_threads: int = 0
) -> Callable[[int], Generate]:
    """stays: leave the images on the device.  host_threads: draw the noise with them, if not 0."""
    refused = mock.patch("inference.gpu.kernels.load", return_value=None)
    with refused if host_threads else nullcontext():
        sampler = Sampler(
            subject.onnx, provider=subject.device.type, threads=host_threads or subject.threads,
            tf32=tf32,
        )  # fmt: skip

    def of(batch: int) -> Generate:
        if stays:
            return lambda first: sampler.sample(batch, start=first, device=True)
        out = np.empty((batch, *subject.generator.image_shape[1:]), np.uint8)
        return lambda first: sampler.sample(batch, start=first, out=out)

    return of


def _torch(
    subject: Subject, module: Callable[..., torch.Tensor], *, stays: bool = False
) -> Callable[[int], Generate]:
    device, latent_dim = subject.device, subject.generator.latent_dim

    def of(batch: int) -> Generate:
        given = torch.from_numpy(subject.z(batch))

        def generate(first: int) -> torch.Tensor:
            if device.type == "cpu":
                return module(given)
            pixels = module(torch.randn(batch, latent_dim, device=device))
            if stays:
                torch.cuda.synchronize()
                return pixels
            return pixels.cpu()

        return generate

    return of


def eager_stream(subject: Subject, count: int, batch_size: int) -> float:
    """Images per second of PyTorch, in batches one after the other."""
    generator = subject.generator
    generate = _torch(subject, lambda z: to_pixels(generator(z)))(batch_size)
    generate(0)
    begin = time.perf_counter()
    for first in range(0, count, batch_size):
        generate(first)
    return count / (time.perf_counter() - begin)


def _products(subject: Subject, *, tf32: bool = False) -> Callable[[int], Generate]:
    """Only the matrix products of the network, by PyTorch, in reused memory."""
    sizes, device = _sizes(subject.generator), subject.device
    weights = [torch.randn(a, b, device=device) for a, b in pairwise(sizes)]

    def of(batch: int) -> Generate:
        inputs = [torch.randn(batch, n, device=device) for n in sizes[:-1]]
        outputs = [torch.empty(batch, n, device=device) for n in sizes[1:]]

        def generate(first: int) -> None:
            torch.backends.cuda.matmul.allow_tf32 = tf32
            for x, w, y in zip(inputs, weights, outputs, strict=True):
                torch.mm(x, w, out=y)
            torch.backends.cuda.matmul.allow_tf32 = False
            if device.type == "cuda":
                torch.cuda.synchronize()

        return generate

    return of


def _products_by_onnxruntime(subject: Subject) -> Callable[[int], Generate]:
    graph = _products_graph(_sizes(subject.generator))
    session, _ = open_session(graph, SessionSettings("cpu", subject.threads))

    def of(batch: int) -> Generate:
        feeds = {"x": subject.z(batch)}
        return lambda first: session.run(["y"], feeds)

    return of


def _sizes(generator: Generator) -> list[int]:
    layers = [layer for layer in generator.modules() if isinstance(layer, torch.nn.Linear)]
    return [layers[0].in_features, *(layer.out_features for layer in layers)]


def copies(subject: Subject) -> dict[str, float]:
    """Images per second if only their pixels are copied from the GPU: a limit."""
    if subject.device.type != "cuda":
        return {}
    size = _sizes(subject.generator)[-1]
    pixels = torch.empty(_COPIED, size, dtype=torch.uint8, device=subject.device)
    host = torch.empty_like(pixels, device="cpu")
    pinned = host.pin_memory()
    return {
        "copies to memory": _COPIED / _least(lambda: host.copy_(pixels)),
        "copies to pinned memory": _COPIED / _least(lambda: pinned.copy_(pixels)),
    }


def _products_graph(sizes: list[int]) -> bytes:
    """An ONNX graph of the matrix products alone."""
    random = np.random.default_rng(0)
    names = ["x", *(f"x{i}" for i in range(1, len(sizes) - 1)), "y"]
    weights = [
        numpy_helper.from_array(random.standard_normal(pair, np.float32) / pair[0] ** 0.5, f"w{i}")
        for i, pair in enumerate(pairwise(sizes))
    ]
    nodes = [
        helper.make_node("MatMul", [a, f"w{i}"], [b]) for i, (a, b) in enumerate(pairwise(names))
    ]
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", size])
        for name, size in (("x", sizes[0]), ("y", sizes[-1]))
    ]
    graph = helper.make_graph(nodes, "products", ends[:1], ends[1:], weights)
    opset = [helper.make_opsetid("", 18)]
    model = helper.make_model(graph, opset_imports=opset, ir_version=8)
    return bytes(model.SerializeToString())


def _least(action: Callable[[], Any]) -> float:
    """Seconds of the quickest of many calls, including the work of the GPU."""
    best = float("inf")
    for _ in range(20):
        begin = time.perf_counter()
        action()
        torch.cuda.synchronize()
        best = min(best, time.perf_counter() - begin)
    return best
