"""The global settings of PyTorch change neither the exported files nor the scores."""

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from export.artifact_folder import best_checkpoint, export
from export.generator_files import load_torchscript, write_torchscript
from inference import Sampler
from tests.support.runs import TINY
from training.data.datasets import load_images
from training.engine.precision import known_settings
from training.run_folder.checkpoint import load_generator
from training.run_folder.sealed_file import load
from training.scoring.extractor import Extractor, extractor_for

CUDNN = torch.backends.cudnn


@contextmanager
def attribute(name: str, value: bool) -> Iterator[None]:
    before = getattr(CUDNN, name)
    setattr(CUDNN, name, value)
    try:
        yield
    finally:
        setattr(CUDNN, name, before)


@contextmanager
def setter(function: Callable[[Any], None], value: Any, before: Any) -> Iterator[None]:
    function(value)
    try:
        yield
    finally:
        function(before)


HOSTS: dict[str, Callable[[], Any]] = {
    "PyTorch's TF32 for convolutions": partial(attribute, "allow_tf32", True),
    "no TF32 for convolutions": partial(attribute, "allow_tf32", False),
    "cuDNN's search": partial(attribute, "benchmark", True),
    "deterministic cuDNN": partial(attribute, "deterministic", True),
    "no cuDNN": partial(attribute, "enabled", False),
    "deterministic algorithms": partial(setter, torch.use_deterministic_algorithms, True, False),
    "products in bfloat16": partial(
        setter, torch.set_float32_matmul_precision, "medium", "highest"
    ),
    "float64 by default": partial(setter, torch.set_default_dtype, torch.float64, torch.float32),
    "another device by default": partial(setter, torch.set_default_device, "meta", "cpu"),
    "autocast": partial(torch.autocast, "cpu", torch.bfloat16),
    "inference mode": torch.inference_mode,
    "no gradients": torch.no_grad,
}


def state() -> list[Any]:
    """All that `known_settings` sets."""
    return [
        torch.get_default_dtype(), torch.get_default_device(), torch.is_autocast_enabled("cpu"),
        torch.are_deterministic_algorithms_enabled(), torch.get_float32_matmul_precision(),
        CUDNN.enabled, CUDNN.benchmark, CUDNN.deterministic, CUDNN.allow_tf32,
    ]  # fmt: skip


def traced(path: Path) -> str:
    """The graph in a TorchScript file, which contains the settings of each convolution."""
    graph = str(load_torchscript(path, "cpu").inlined_graph)
    # Names of classes and values, and lines of code, depend on earlier traces in the process.
    graph = re.sub(r"___torch_mangle_\d+\.| # code/\S+", "", graph)
    numbers: dict[str, str] = {}
    return re.sub(r"%[\w.]+", lambda name: numbers.setdefault(name[0], f"%{len(numbers)}"), graph)


@pytest.mark.parametrize("host", HOSTS)
def test_settings_are_known_inside_and_restored_afterwards(host: str) -> None:
    with known_settings():
        usual = state()
    with HOSTS[host]():
        before = state()
        with known_settings():
            assert state() == usual
        assert state() == before
    assert usual[-1] is False


def test_a_host_may_ask_for_deterministic_algorithms() -> None:
    with known_settings(deterministic=True):
        assert torch.are_deterministic_algorithms_enabled()
    assert not torch.are_deterministic_algorithms_enabled()


def test_a_traced_convolution_does_not_round(conv_artifact: Path) -> None:
    module = load_torchscript(conv_artifact / "generator.ts", "cpu")
    convolutions = [n for n in module.inlined_graph.nodes() if n.kind() == "aten::_convolution"]
    assert convolutions
    for node in convolutions:
        settings: list[Any] = [value.toIValue() for value in node.inputs()][-4:]
        assert settings == [False, False, True, False]  # benchmark, deterministic, cuDNN, TF32


@pytest.mark.parametrize("host", HOSTS)
def test_a_trace_is_the_same_in_every_host(
    host: str, conv_run: Path, conv_artifact: Path, tmp_path: Path
) -> None:
    generator = load_generator(load(best_checkpoint(conv_run)))
    with HOSTS[host]():
        write_torchscript(generator, Sampler(conv_artifact).metadata, tmp_path / "host.ts")
    assert traced(tmp_path / "host.ts") == traced(conv_artifact / "generator.ts")


@pytest.mark.slow
def test_an_export_is_the_same_in_a_host_that_has_set_everything(
    conv_run: Path, conv_artifact: Path, tmp_path: Path
) -> None:
    with ExitStack() as stack:
        for host in HOSTS.values():
            stack.enter_context(host())
        export(best_checkpoint(conv_run), tmp_path)
    assert traced(tmp_path / "generator.ts") == traced(conv_artifact / "generator.ts")
    for name in ("generator.onnx", "sampler.onnx"):
        assert (tmp_path / name).read_bytes() == (conv_artifact / name).read_bytes()
    assert Sampler(tmp_path, provider="cpu").check().passed


@pytest.mark.gpu
def test_scores_on_a_gpu_do_not_round_whatever_the_host_has_set() -> None:
    images = load_images(TINY.data)
    cpu = extractor_for(images, TINY.data.data_dir / "extractors", torch.device("cpu"))
    gpu = Extractor(cpu.network.cuda(), cpu.kind, cpu.sha256)

    def features(host: Any) -> Tensor:
        with host:
            return gpu(images.pixels.cuda())[0]

    expected = features(known_settings())
    rounding = features(partial(attribute, "allow_tf32", True)())
    torch.testing.assert_close(rounding, expected, rtol=0, atol=0)
    assert features(nullcontext()).dtype == torch.float32
