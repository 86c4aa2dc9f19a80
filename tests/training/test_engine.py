"""Many steps at once, with each engine."""

import gc
import importlib.metadata
import logging
import os
import re
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from tests.support.engines import R3GAN, tiny
from tests.support.files import ROOT
from tests.support.runs import CONDITIONAL, CONV, TINY
from training.config import RECIPES, NetworkConfig, TrainConfig
from training.engine import choice, cuda_graph, engine
from training.engine.choice import create_engine
from training.engine.compiled import Compilation
from training.engine.engine import Engine
from training.engine.precision import float32_products
from training.engine.ways import Way
from training.gan import step
from training.gan.state import Snapshot, TrainState
from training.gan.step import adversarial_gradients

HINGE = replace(RECIPES["hinge"], batch_size=64)  # no penalties
# oneDNN stores the gradients of such wide convolutions in another order than the weights.
WIDE = replace(CONV, data=replace(CONV.data, image_size=28), network=NetworkConfig(network="conv"))


def losses_of(config: TrainConfig, count: int) -> NDArray[np.float32]:
    return Engine(*tiny(config)).run(count)


@pytest.mark.parametrize("precision", ["highest", "high", "medium"])
def test_the_matmul_precision_is_that_of_the_steps_alone(
    precision: Literal["highest", "high", "medium"], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def observed(*arguments: Any, **options: Any) -> Any:
        seen.append((torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32))
        if len(seen) == 2:
            raise KeyboardInterrupt
        return adversarial_gradients(*arguments, **options)

    monkeypatch.setattr(step, "adversarial_gradients", observed)
    with float32_products():
        with pytest.raises(KeyboardInterrupt):
            losses_of(replace(TINY, matmul_precision=precision), 3)
        seen.append((torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32))
    assert seen == [(precision, precision != "highest")] * 2 + [("highest", False)]


@pytest.mark.parametrize("asked", [False, True])
def test_steps_alone_are_held_to_deterministic_algorithms(
    asked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def observed(*arguments: Any, **options: Any) -> Any:
        seen.append(torch.are_deterministic_algorithms_enabled())
        return adversarial_gradients(*arguments, **options)

    monkeypatch.setattr(step, "adversarial_gradients", observed)
    losses = losses_of(replace(TINY, deterministic=asked), 2)
    assert seen == [asked, asked]
    assert not torch.are_deterministic_algorithms_enabled()
    assert np.isfinite(losses).all()


@pytest.mark.parametrize("recipe", [HINGE, R3GAN])
def test_less_precision_trains_alike(recipe: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "multiplies_bfloat16", lambda device: device.type == "cpu")
    exact = replace(TINY, recipe=recipe, matmul_precision="highest")
    rounded = replace(exact, matmul_precision="medium")
    assert Engine(*tiny(rounded)).bfloat16
    assert not np.array_equal(losses_of(rounded, 3), losses_of(exact, 3))
    np.testing.assert_allclose(losses_of(rounded, 20), losses_of(exact, 20), rtol=0.05, atol=0.01)


def test_bfloat16_leaves_weights_and_gradients_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "multiplies_bfloat16", lambda device: True)
    state, batches, config = tiny()
    Engine(state, batches, config).run(1)
    assert {tensor.dtype for tensor in state.tensors().values()} == {torch.float32, torch.int64}


@pytest.mark.parametrize(
    ("seconds", "total", "tried"), [(0.001, 1_000, []), (0.01, 10_000, ["compiled"])]
)
def test_auto_tries_what_can_pay(
    seconds: float, total: int, tried: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Steps that take `seconds` are compiled only if that may save more time than it costs."""
    seen = []
    monkeypatch.setattr(choice, "rate", lambda engine: 1 / seconds)
    monkeypatch.setattr(choice, "is_sound", lambda engine, *_: seen.append(engine.kind))
    created = create_engine(*tiny(replace(TINY, engine="auto")), total=total)
    assert created.kind == "plain"
    assert seen == tried


@pytest.mark.usefixtures("uncompiled")
@pytest.mark.parametrize("faster", ["plain", "compiled"])
def test_auto_takes_the_fastest_and_says_so(
    faster: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    rates = {"plain": 100.0, "compiled": 50.0} | {faster: 200.0}
    monkeypatch.setattr(choice, "rate", lambda engine: rates[engine.kind])
    state, batches, config = tiny(replace(TINY, engine="auto"))
    before = state.snapshot()
    with caplog.at_level(logging.INFO):
        created = create_engine(state, batches, config, total=10**6)
    assert created.kind == faster
    figures = f"iterations/s: plain {rates['plain']:.0f}, compiled {rates['compiled']:.0f}"
    assert f"engine: {faster}, of these the fastest ({figures})" in caplog.text
    assert_unchanged(state, before)


def assert_unchanged(state: TrainState, before: Snapshot) -> None:
    now = state.snapshot()
    assert now.step == before.step
    assert torch.equal(now.noise, before.noise)
    for name, tensor in now.tensors.items():
        assert torch.equal(tensor, before.tensors[name])


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # compilers have their own warnings
@pytest.mark.parametrize(
    ("usual", "recipe", "precision"),
    [
        (TINY, HINGE, "highest"),
        (CONDITIONAL, R3GAN, "medium"),
        pytest.param(WIDE, R3GAN, "medium", marks=pytest.mark.full),
    ],
)
def test_the_compiled_engine_trains_as_the_plain_one(
    usual: Any, recipe: Any, precision: Any, caplog: pytest.LogCaptureFixture
) -> None:
    config = replace(usual, recipe=recipe, engine="compiled", matmul_precision=precision)
    state, batches, _ = tiny(config)
    before = state.snapshot()
    with caplog.at_level(logging.INFO):
        fast = create_engine(state, batches, config, total=20)
    assert fast.kind == "compiled"
    assert "compared with the plain one" in caplog.text
    assert_unchanged(state, before)  # the comparison has changed nothing
    fast_losses, plain_losses = fast.run(20), losses_of(replace(config, engine="plain"), 20)
    rtol, atol = (0.05, 0.02) if fast.bfloat16 else (1e-3, 1e-4)
    np.testing.assert_allclose(fast_losses, plain_losses, rtol=rtol, atol=atol)


@pytest.mark.usefixtures("uncompiled")
@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (lambda losses: -losses, "cannot be used.*loss_g is .* off where steps differ by"),
        (lambda losses: 1 / 0, "cannot be used.*ZeroDivisionError: division by zero"),
    ],
)
def test_a_fast_engine_that_goes_wrong_is_not_used(
    broken: Any, message: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    usual = Engine.prepare

    def prepare(self: Engine) -> None:
        usual(self)
        run = self.run
        self.run = lambda count: broken(run(count))  # type: ignore[method-assign]

    monkeypatch.setattr(Engine, "prepare", prepare)
    state, batches, config = tiny(replace(TINY, engine="compiled"))
    before = state.snapshot()
    created = create_engine(state, batches, config, total=20)
    assert created.kind == "plain"
    assert re.search(message, caplog.text)
    assert_unchanged(state, before)


@pytest.mark.usefixtures("uncompiled")
@pytest.mark.parametrize("kind", ["auto", "compiled"])
def test_engines_are_compared_from_a_new_state_also_late_in_a_run(
    kind: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Late in a run, rounding alone makes engines differ."""
    state, batches, config = tiny(replace(CONDITIONAL, engine=kind))
    new = state.snapshot()
    Engine(state, batches, config).run(20)
    late = state.snapshot()

    def compared(plain: Engine, tried: Engine, of: TrainState, *_: Any) -> None:
        assert of is state
        assert_unchanged(of, new)
        of.step += 1
        found.append(tried.kind)

    found: list[str] = []
    monkeypatch.setattr(choice, "difference", compared)
    create_engine(state, batches, config, total=10**6)
    assert found == ["compiled"]
    assert_unchanged(state, late)


@pytest.mark.parametrize("side_by_side", [False, True])
def test_what_was_compiled_is_known(
    side_by_side: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(Compilation, "compile_part", lambda self, traced, tensors: traced)
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    way = Way("compiled", side_by_side=side_by_side)
    for known in (False, True):
        compiled = Engine(*tiny(), way=way)
        assert compiled.is_known() == known
        compiled.prepare()


def test_graphs_are_captured_again_after_a_capture_that_failed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """They belong to a random generator that was replaced."""
    prepared = []

    class Played(Engine):
        def prepare(self) -> None:
            prepared.append(self.kind)
            if self.kind == "compiled":
                raise RuntimeError("the capture failed")

    monkeypatch.setattr(choice, "Engine", Played)
    monkeypatch.setattr(choice, "ways", lambda device: [Way("graph", (1,)), Way("compiled", (1,))])
    monkeypatch.setattr(choice, "rate", lambda engine: {"plain": 1.0, "graph": 9.0}[engine.kind])
    state, batches, config = tiny(replace(TINY, engine="auto"))
    before = state.snapshot()
    assert create_engine(state, batches, config, total=10**6).kind == "graph"
    assert prepared == ["graph", "compiled", "graph"]
    assert_unchanged(state, before)


def test_graphs_without_a_gpu_are_said_not_to_be(caplog: pytest.LogCaptureFixture) -> None:
    created = create_engine(*tiny(replace(TINY, engine="graph")), total=20)
    assert created.kind == "plain"
    assert "the graph engine cannot be used, the plain one runs: RuntimeError" in caplog.text


@pytest.mark.gpu
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("kind", ["graph", "compiled"])
@pytest.mark.parametrize("recipe", [HINGE, R3GAN])
@pytest.mark.parametrize("usual", [TINY, CONDITIONAL, CONV])
def test_a_cuda_graph_trains_as_the_plain_engine(
    usual: Any, recipe: Any, kind: Any, caplog: pytest.LogCaptureFixture
) -> None:
    cuda = torch.device("cuda")
    config = replace(usual, recipe=recipe, engine=kind, device="cuda", matmul_precision="highest")
    state, batches, _ = tiny(config, cuda)
    fast = create_engine(state, batches, config, total=33)
    if fast.kind != kind and "PassManager::run failed" in caplog.text and _triton() < (3, 7):
        pytest.xfail("Triton 3.6 cannot compile what Triton 3.7 can")
    assert fast.kind == kind, caplog.text
    losses = [fast.run(23), fast.run(10)]
    expected = Engine(*tiny(config, cuda)).run(33)
    np.testing.assert_allclose(np.concatenate(losses), expected, rtol=1e-2, atol=1e-3)
    assert state.step == 33


def _triton() -> tuple[int, ...]:
    return tuple(map(int, importlib.metadata.version("triton").split(".")[:2]))


@pytest.mark.parametrize("collects", [True, False])
def test_nothing_is_collected_during_a_capture(
    collects: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Loop:
        def __init__(self) -> None:
            self.itself = self

        def __del__(self) -> None:
            collected.append(gc.isenabled())

    collected: list[bool] = []
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: None)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "default_generators", (torch.Generator(),))
    often = gc.get_threshold()
    gc.set_threshold(1)
    if not collects:
        gc.disable()
    try:
        Loop()
        with cuda_graph._undisturbed(torch.Generator()):
            assert len(collected) == 1  # what was there before goes before the capture
            Loop()
            _ = [[] for _ in range(1000)]  # this would collect
            assert len(collected) == 1
        assert gc.isenabled() == collects
    finally:
        gc.enable()
        gc.set_threshold(*often)


@pytest.mark.gpu
def test_a_capture_that_fails_leaves_a_working_device(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def failing(*arguments: Any, **options: Any) -> Any:
        if torch.cuda.is_current_stream_capturing():
            torch.cuda.synchronize()  # this is forbidden, and ends the capture
        return adversarial_gradients(*arguments, **options)

    config = replace(TINY, device="cuda", engine="graph", matmul_precision="highest")
    expected = Engine(*tiny(config, torch.device("cuda"))).run(9)
    torch.cuda.manual_seed(5)
    numbers = torch.randn(4, device="cuda")
    torch.cuda.manual_seed(5)
    with monkeypatch.context() as patch:
        patch.setattr(step, "adversarial_gradients", failing)
        plain = create_engine(*tiny(config, torch.device("cuda")), total=9)
    assert plain.kind == "plain"
    assert "the graph engine cannot be used" in caplog.text
    np.testing.assert_allclose(plain.run(9), expected, rtol=1e-5)
    assert torch.equal(torch.randn(4, device="cuda"), numbers)  # the program's own random numbers
    assert torch.cuda.current_stream() == torch.cuda.default_stream()
    graph = create_engine(*tiny(config, torch.device("cuda")), total=9)
    assert graph.kind == "graph"
    np.testing.assert_allclose(graph.run(9), expected, rtol=1e-2, atol=1e-3)


@pytest.mark.gpu
def test_a_capture_is_not_ended_by_what_others_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither by Python, which collects objects, nor by other threads."""

    class Freed:
        def __init__(self) -> None:
            self.itself = self

        def __del__(self) -> None:
            torch.cuda.synchronize()

    def littering(*arguments: Any, **options: Any) -> Any:
        Freed()
        if torch.cuda.is_current_stream_capturing() and not captured:
            thread = threading.Thread(target=lambda: captured.append(torch.empty(2**30, **there)))
            thread.start()
            thread.join()
        return adversarial_gradients(*arguments, **options)

    captured: list[torch.Tensor] = []
    there: dict[str, Any] = {"device": "cuda", "dtype": torch.uint8}
    config = replace(TINY, device="cuda", engine="graph")
    state, batches, _ = tiny(config, torch.device("cuda"))
    monkeypatch.setattr(step, "adversarial_gradients", littering)
    often = gc.get_threshold()
    gc.set_threshold(1)
    try:
        assert create_engine(state, batches, config, total=9).kind == "graph"
    finally:
        gc.set_threshold(*often)
    assert captured
    assert gc.isenabled()


@pytest.mark.slow
def test_what_is_compiled_is_found_by_the_next_process(tmp_path: Path) -> None:
    code = """
import torch
from training.engine.compiled import Compilation
compilation = Compilation(lambda x: (x.sin() + 1).exp(), (torch.ones(70),), {})
known = compilation.is_known()
assert torch.equal(compilation.compile()(torch.zeros(70)), torch.ones(70).exp())
from torch._dynamo.utils import counters  # its import decides on a cache, if nobody has
print(known, counters["inductor"]["fxgraph_cache_hit"])
"""
    environment = os.environ | {"XDG_CACHE_HOME": str(tmp_path)}
    environment.pop("TORCHINDUCTOR_CACHE_DIR", None)
    said = [
        subprocess.run(
            [sys.executable, "-c", code],
            cwd=ROOT, env=environment, capture_output=True, text=True, check=True,
        ).stdout.strip()
        for _ in range(2)
    ]  # fmt: skip
    assert said == ["False 0", "True 1"]
    assert list((tmp_path / "ganpack" / "compiled" / "ganpack").iterdir())
