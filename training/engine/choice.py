"""Choose the engine of a run: the requested one, or the fastest."""

import logging
import statistics
import time
from collections.abc import Callable

from tqdm import tqdm

from training.config import TrainConfig
from training.data.batches import Batches
from training.engine.distributed import ALONE, RankLostError, Ranks
from training.engine.engine import Engine
from training.engine.trial import BFLOAT16, FLOAT32, difference
from training.engine.ways import Kind, Way, ways
from training.gan.state import Snapshot, TrainState

# Estimated seconds until an engine is ready: if this machine has compiled the same step before, and
# if it has not.
_SECONDS_FOUND = 5.0
_SECONDS_NEW: dict[Kind, float] = {"compiled": 30.0, "graph": 3.0}
_MOST_GAIN = {"cpu": 3.0, "cuda": 20.0}
"""The largest speedup over the plain engine that is expected."""
_WARM_UP_STEPS = 3
_ROUNDS = 3
_ROUND_SECONDS = 0.3
_CLEAR = 1.3
"""If one engine is faster than another by this factor, it is not measured again."""
_log = logging.getLogger(__name__)


def create_engine(
    state: TrainState, batches: Batches, config: TrainConfig, total: int, ranks: Ranks = ALONE
) -> Engine:
    """The engine that `config` asks for, or for "auto" the fastest for a run of `total` steps.

    Any other engine is first compared with the plain one. If it cannot be used or differs, that is
    logged and the plain engine runs on all ranks. The state is not changed.
    """
    kind: Kind = "plain" if config.engine == "auto" else config.engine
    device = state.noise.device
    plain = Engine(state, batches, config, ranks)
    if config.engine == "auto" and ranks.count == 1:
        others = [Engine(state, batches, config, ranks, way) for way in ways(device)]
        return _fastest(plain, others, total - state.step, _as_new(state, batches, config))
    if kind == "plain":  # "auto" on several ranks too: collectives in a graph are untested here
        return plain
    start, new = time.monotonic(), _as_new(state, batches, config)
    for way in [way for way in ways(device) if way.kind == kind] or [Way(kind, (1,))]:
        engine = Engine(state, batches, config, ranks, way)
        _announce(engine)
        if is_sound(engine, plain, ranks, new):
            seconds = time.monotonic() - start
            _log.info("engine: %s, ready and compared with the plain one in %.0f s", kind, seconds)
            return engine
    return plain


def _as_new(state: TrainState, batches: Batches, config: TrainConfig) -> Snapshot:
    """The beginning of a run with these settings, from which engines are compared.

    Later in a run, some gradients and losses are so small that rounding alone makes two engines
    differ.
    """
    if state.step == 0:
        return state.snapshot()
    channels, height, width = batches.pixels.shape[1:]
    new = TrainState.create(
        config.network, config.recipe, (channels, height, width),
        state.noise.device, config.seed, state.generator.classes,
    )  # fmt: skip
    return Snapshot(new.step, new.noise.get_state(), new.tensors())


def _fastest(plain: Engine, others: list[Engine], steps: int, new: Snapshot) -> Engine:
    """The engine that takes this number of steps in the least time.

    An engine is tried only if it can save more time than it needs to get ready.
    """
    state, device = plain.state, plain.state.noise.device.type
    before = state.snapshot()
    rates = {plain.kind: rate(plain)}
    state.restore(before)
    best, tried = plain, {}
    for engine in others:
        if engine.kind in tried:
            continue
        most_saved = steps / rates[best.kind] * (1 - 1 / _MOST_GAIN[device])
        if most_saved < _SECONDS_FOUND or most_saved < _expected_seconds(engine, before):
            continue
        _announce(engine)
        start = time.monotonic()
        if not is_sound(engine, plain, ALONE, new):
            # A capture that failed has given the state another random generator. Graphs that were
            # captured before do not continue its stream.
            if best.way.graph_steps and _failure(best.prepare):
                best = plain
            state.restore(before)
            continue
        tried[engine.kind] = time.monotonic() - start
        rates |= _rates(best, rates[best.kind], engine)
        state.restore(before)
        if rates[engine.kind] > rates[best.kind]:
            best = engine
    if tried:
        others_said = ", ".join(f"{kind} {rate:,.0f}" for kind, rate in rates.items())
        _log.info(
            "engine: %s, of these the fastest (iterations/s: %s); ready and compared in %.0f s",
            best.kind, others_said, sum(tried.values()),
        )  # fmt: skip
    if steps > 0:
        _log.info(
            "%s iterations take about %s at %.3g it/s (%s engine), without scores",
            f"{steps:,}", tqdm.format_interval(steps / rates[best.kind]), rates[best.kind],
            best.kind,
        )  # fmt: skip
    return best


def _announce(engine: Engine) -> None:
    """Announce work that takes long."""
    if engine.kind == "compiled":
        _log.info("compiling the step: up to %.0f s the first time", _SECONDS_NEW["compiled"])


def _expected_seconds(engine: Engine, before: Snapshot) -> float:
    known = engine.is_known()
    engine.state.restore(before)
    return _SECONDS_FOUND if known else _SECONDS_NEW[engine.kind]


def _rates(best: Engine, known: float, other: Engine) -> dict[Kind, float]:
    """Steps per second of two engines; the speed of the first is roughly known.

    If their speeds are close, they are measured in turns, so that other load slows both alike.
    """
    found = rate(other)
    if not 1 / _CLEAR < found / known < _CLEAR:
        return {other.kind: found}
    rates: dict[Kind, list[float]] = {best.kind: [], other.kind: []}
    for _ in range(_ROUNDS):
        for engine in (best, other):
            rates[engine.kind].append(rate(engine))
    return {kind: statistics.median(values) for kind, values in rates.items()}


def rate(engine: Engine) -> float:
    """Steps per second, measured for a fraction of a second."""
    engine.run(_WARM_UP_STEPS)
    count, seconds = 1, 0.0
    while seconds < _ROUND_SECONDS / 2:
        count *= 2
        start = time.monotonic()
        engine.run(count)
        seconds = time.monotonic() - start
    return count / seconds


def is_sound(engine: Engine, plain: Engine, ranks: Ranks, new: Snapshot) -> bool:
    """Prepare an engine; say whether it takes the steps of the plain one from a new state."""
    state, before = plain.state, plain.state.snapshot()
    reason = ranks.first_reason(_failure(engine.prepare))
    if not reason:
        state.restore(new)
        reason = ranks.first_reason(_failure(lambda: _difference(plain, engine)))
    state.restore(before)
    if reason:
        _log.warning("the %s engine cannot be used, the plain one runs: %s", engine.kind, reason)
    return not reason


def _difference(plain: Engine, engine: Engine) -> str | None:
    coarse = engine.bfloat16 or plain.bfloat16
    tolerance = BFLOAT16 if coarse else FLOAT32
    return difference(plain, engine, plain.state, plain.recipe, engine.trial_counts, tolerance)


def _failure(trial: Callable[[], str | None]) -> str | None:
    """The problem that a trial finds, or the error that it raises."""
    try:
        return trial()
    except RankLostError:
        raise
    except Exception as error:  # any type: compilers and drivers have many
        lines = str(error).split("\n\n")[0].split()
        return f"{type(error).__name__}: {' '.join(lines)}"
