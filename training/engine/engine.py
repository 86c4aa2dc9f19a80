"""Runs many steps fast and measures each: one by one, compiled, or captured in a CUDA graph."""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.utils import parameters_to_vector

from training.config import TrainConfig
from training.data.batches import Batches
from training.engine.compiled import CompiledStep, compiled
from training.engine.cuda_graph import CapturedSteps
from training.engine.distributed import ALONE, RankLostError, Ranks
from training.engine.precision import float32_products
from training.gan.average import ema_share, update_ema
from training.gan.losses import LOSSES
from training.gan.state import TrainState
from training.gan.step import Gradients, adversarial_gradients, apply_gradients, set_lr, weights_of

Kind = Literal["plain", "compiled", "graph"]

# Compiling takes about 15 s on two cores and saves 2 to 3 ms a step.
_WORTH_COMPILING = 10_000
_TRIAL_STEPS = 4
_MOST_THREADS = 8  # the products are small: more threads would wait for one another
_log = logging.getLogger(__name__)


class Engine:
    """Takes the steps of a run, each as `step.adversarial_step` has it.

    plain: one operation after the other, as written. compiled: a step as one traced and compiled
    function. graph: several whole steps in one CUDA graph, of which the compiled engine on CUDA has
    the gradients compiled.
    """

    def __init__(
        self, state: TrainState, batches: Batches, config: TrainConfig, ranks: Ranks = ALONE
    ) -> None:
        self.kind: Kind = "plain"
        self._state = state
        self._batches = batches
        self._ranks = ranks
        self._recipe = config.recipe
        self._precision = config.matmul_precision
        self._deterministic = config.deterministic
        self._weights = weights_of(state.generator), weights_of(state.discriminator)
        self.bfloat16 = self._precision == "medium" and _cpu_has_bfloat16(state.noise.device)
        self.gradients: Callable[..., Gradients] = partial(
            adversarial_gradients,
            (state.generator, state.discriminator),
            LOSSES[config.recipe.recipe],
            bfloat16=self.bfloat16,
        )
        self._graphs: CapturedSteps | None = None
        self._compiled: CompiledStep | None = None

    @classmethod
    def create(
        cls,
        state: TrainState,
        batches: Batches,
        config: TrainConfig,
        total: int,
        ranks: Ranks = ALONE,
    ) -> Self:
        """The engine that `config` asks for, or for "auto" the fastest for a run of `total` steps.

        A faster one than the plain is tried on a few steps first, which leave no trace; where it
        cannot be had, or differs from the plain one by more than rounding, that is logged, and the
        plain one runs, on all ranks.
        """
        plain = cls(state, batches, config, ranks)
        kind = resolve(config, state.noise.device, total, ranks.count)
        if kind == "plain":
            return plain
        fast, start, before = cls(state, batches, config, ranks), time.monotonic(), state.snapshot()
        reason = ranks.first_of(_failure(lambda: fast._speed_up(kind)))
        state.restore(before)
        reason = reason or ranks.first_of(_failure(lambda: difference(plain, fast, state)))
        state.restore(before)
        if reason:
            _log.warning("the %s engine cannot be used, the plain one runs: %s", kind, reason)
            return plain
        seconds = time.monotonic() - start
        _log.info("engine: %s, ready and compared with the plain one in %.0f s", kind, seconds)
        return fast

    def run(self, count: int) -> NDArray[np.float32]:
        """`count` steps from `state.step` on; their losses, (count, 4), in the order of `Losses`.

        The device is waited for once, at the end.
        """
        with self.setting():
            losses, left = [], count
            while left:
                done = self._graphs.replay(left) if self._graphs else self._one_step()
                losses.append(done)
                left -= len(done)
            if self._compiled:
                self._compiled.settle()
            table: NDArray[np.float32] = torch.cat(losses).cpu().numpy()
        return table

    def example(self) -> tuple[Any, ...]:
        """Arguments that `gradients` may be traced on."""
        state, recipe = self._state, self._recipe
        z = state.draw_z(recipe.batch_size)
        weight = torch.ones((), device=z.device) if recipe.penalised else 0.0
        batch = self._batches[0], z, weight, self._batches.labels_at(0)
        return self._weights, *self._ranks.rows(*batch)

    def _one_step(self) -> Tensor:
        """The losses, (1, 4)."""
        state, recipe = self._state, self._recipe
        z, images = state.draw_z(recipe.batch_size), state.step * recipe.batch_size
        real, labels = self._batches[state.step], self._batches.labels_at(state.step)
        if self._compiled:
            return self._compiled(real, z, labels).unsqueeze(0)
        set_lr(state, recipe.lr_at(images))
        gamma = recipe.gamma_at(images)
        weight = torch.tensor(gamma, device=z.device) if recipe.penalised else 0.0
        gradients = self._averaged(self._weights, real, z, weight, labels)
        apply_gradients(state, gradients)
        update_ema(state, ema_share(state.step, recipe.batch_size, recipe.ema_half_life))
        return gradients.losses.unsqueeze(0)

    def _averaged(self, weights: Any, *batch: Any) -> Gradients:
        """The gradients of a whole batch, of which each rank has taken its rows."""
        return self._ranks.average(self.gradients(weights, *self._ranks.rows(*batch)))

    def _speed_up(self, kind: Kind) -> None:
        cuda = self._state.noise.device.type == "cuda"
        if kind == "graph" and not cuda:
            raise RuntimeError("CUDA graphs need a GPU")
        whole = not cuda and self._ranks.count == 1  # nothing between the gradients and Adam
        parts = self._state, self._recipe, self._averaged, self._weights
        with self.setting():
            if kind == "compiled" and not whole:
                self.gradients = compiled(self.gradients, self.example())
                self.gradients(*self.example())  # this is when it is compiled
            if cuda:
                self._graphs = CapturedSteps(self._batches, *parts)
            elif whole:
                self._one_step()  # Adam makes its moments
                self._compiled = CompiledStep(self._batches, *parts)
        self.kind = kind

    @contextmanager
    def setting(self) -> Iterator[None]:
        """What holds for steps alone: precision (scores and files are made in float32), threads."""
        threads = torch.get_num_threads()
        deterministic = torch.are_deterministic_algorithms_enabled()
        torch.use_deterministic_algorithms(deterministic or self._deterministic)
        torch.set_num_threads(min(threads, _MOST_THREADS))
        # Compiled once, for inputs that never change but in their values: nothing to look up anew.
        compiled = torch.compiler.set_stance(skip_guard_eval_unsafe=self.kind == "compiled")
        try:
            with float32_products(self._precision), compiled:
                yield
        finally:
            torch.use_deterministic_algorithms(deterministic)
            torch.set_num_threads(threads)


def resolve(config: TrainConfig, device: torch.device, total: int, ranks: int = 1) -> Kind:
    """Which engine `config` means on a device, for a run of `total` steps on so many ranks."""
    if config.engine != "auto":
        return config.engine
    if ranks > 1:  # no collective has been seen in a CUDA graph here yet
        return "plain"
    if device.type == "cuda":
        return "graph"
    # Convolutions take nearly all of their steps, and are oneDNN's in both: compiled saves nothing.
    worth = config.network.network == "mlp" and total >= _WORTH_COMPILING
    return "compiled" if worth else "plain"


def _failure(trial: Callable[[], str | None]) -> str | None:
    """What is wrong by the trial's own account, or the error that it ends in."""
    try:
        return trial()
    except RankLostError:
        raise
    except Exception as error:  # of whatever type: compilers and drivers have many
        lines = str(error).split("\n\n")[0].split()
        return f"{type(error).__name__}: {' '.join(lines)}"


def difference(plain: Engine, fast: Engine, state: TrainState) -> str | None:
    """How the first steps of one engine differ from those of another by more than rounding.

    Both start from the state as it is and the same random numbers. None where they agree.
    """
    before, start = state.snapshot(), _weights(state)
    expected, target = plain.run(_TRIAL_STEPS), _weights(state)
    state.restore(before)
    losses, reached = fast.run(_TRIAL_STEPS), _weights(state)
    tolerance = 0.02 if plain.bfloat16 else 1e-3
    if not np.allclose(losses, expected, rtol=tolerance, atol=tolerance):
        return f"losses {losses[-1].tolist()}, expected {expected[-1].tolist()}"
    for name, a, b, c in zip(("generator", "discriminator"), start, target, reached, strict=True):
        # Adam's first steps are as long where a gradient is but rounding: a quarter of the way is
        # seen in bfloat16. One step too few or too many of four, or other images, make far more.
        way, off = float((b - a).norm()), float((c - b).norm())
        if not off <= way / 2:
            return f"the {name} moved by {way:.2g}, and ended {off:.2g} elsewhere"
    return None


def _weights(state: TrainState) -> list[Tensor]:
    return [
        parameters_to_vector(n.parameters()).detach()
        for n in (state.generator, state.discriminator)
    ]


def _cpu_has_bfloat16(device: torch.device) -> bool:
    """Whether this processor multiplies bfloat16 in hardware."""
    if device.type != "cpu":
        return False
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16"))
