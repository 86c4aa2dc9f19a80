"""Training in other processes, which tests can kill."""

import multiprocessing
import os
import signal
import socket
import sys
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from training.config import TrainConfig

_context = multiprocessing.get_context("forkserver")
# Imported once, so that processes start to train within a second.
_context.set_forkserver_preload(
    ["training.train", "training.run", "sklearn.datasets", "torchvision.transforms.v2.functional"]
)


def start(target: Callable[..., None], *arguments: object) -> BaseProcess:
    process = _context.Process(target=target, args=arguments, daemon=True)
    process.start()
    return process


def run(run_dir: Path, arguments: list[str], save_seconds: float) -> None:
    """`python -m training.run` with a given time between saves; its output goes to run_dir.log."""
    from training import run
    from training.training_loop import Pace

    # A process that a shell starts in the background ignores SIGINT, and so would this one.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with run_dir.with_suffix(".log").open("a", encoding="utf-8") as log:
        sys.stdout = sys.stderr = log
        sys.exit(run.main(arguments, Pace(save_seconds=save_seconds)))


def run_slowly(run_dir: Path, arguments: list[str], save_seconds: float) -> None:
    """Like `run`, but steps take minutes after something is saved."""
    import time

    from training.engine.engine import Engine

    quick = Engine.launch

    def slow(self: Engine, count: int) -> Any:
        if self.state.step > 20:
            run_dir.with_suffix(".slow").touch()
            time.sleep(300)
        return quick(self, count)

    Engine.launch = slow  # type: ignore[method-assign]
    run(run_dir, arguments, save_seconds)


def hold(run_dir: Path) -> None:
    """Hold the lock of a run folder until killed."""
    import time

    from training.run_folder.folder import RunFolder, locked

    with locked(RunFolder(run_dir)):
        run_dir.with_suffix(".held").touch()
        time.sleep(300)


def start_ranks(target: Callable[..., None], *arguments: object) -> list[BaseProcess]:
    """Two processes that train together, started as by torchrun."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return [start(as_rank, rank, port, target, *arguments) for rank in range(2)]


def as_rank(rank: int, port: int, target: Callable[..., None], *arguments: object) -> None:
    import torch

    torch.set_num_threads(1)
    values = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in values.items()})
    os.environ["MASTER_ADDR"] = "127.0.0.1"
    target(*arguments)


def take_steps(folder: Path, config: "TrainConfig", count: int, broken: int | None) -> None:
    """Take steps one by one, and write the state after each step to a file for each rank.

    broken: the rank on which compiling fails.
    """
    import torch

    from tests.support.engines import tiny
    from training.engine.choice import create_engine
    from training.engine.compiled import Compilation
    from training.engine.distributed import joined
    from training.interruption import Interruption

    with joined() as ranks:
        # Run the traced steps without compiling, which takes seconds.
        def as_traced(self: Compilation, traced: Any, tensors: Any) -> Any:
            assert ranks.rank != broken
            return traced

        Compilation.compile_part = as_traced  # type: ignore[method-assign]
        Compilation.note_compiled = lambda self: None  # type: ignore[method-assign]
        state, batches, _ = tiny(config)
        fast = create_engine(state, batches, config, count, ranks)
        seen = []
        for _ in range(count):
            losses = torch.from_numpy(fast.run(1))
            seen.append(state.snapshot().tensors | {"losses": losses})
        torch.save({"engine": fast.kind, "steps": seen}, folder / f"{ranks.rank}.pt")
        if ranks.rank:
            assert not list(ranks.orders(Interruption()))


def run_with_nan(run_dir: Path, arguments: list[str], save_seconds: float) -> None:
    """Like `run`, but the ninth gradients of rank 1 are not finite."""
    from training.gan import step
    from training.gan.step import adversarial_gradients

    calls = 0

    def spoiled(*given: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        found = adversarial_gradients(*given, **options)
        if calls == 9 and os.environ["RANK"] == "1":
            found = found._replace(losses=found.losses * float("nan"))
        return found

    step.adversarial_gradients = spoiled
    run(run_dir, arguments, save_seconds)
