"""The processes that train one run together, started by torchrun.

Rank 0 leads: only rank 0 uses the run folder, decides and scores. The other ranks receive orders
(take steps, take over a state) and wait in between. In each step every rank takes its rows of the
batch, and the gradients of all ranks are averaged.
"""

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from inference.errors import GanpackError
from training.gan.step import Gradients
from training.interruption import Interruption

# How long a rank waits for other running ranks, for example while rank 0 scores. A rank that has
# died is noticed at once, because its connections close.
_PATIENCE = timedelta(hours=1)


class RankLostError(GanpackError):
    """Another process of the run has ended, or cannot be reached."""


class Ranks:
    """This process and the others of its run. With one process, every method is a no-op.

    All ranks draw the indices and the noise of the whole batch from the same seed, and take their
    rows. So the training data do not depend on the number of ranks, and no rank repeats another.
    """

    def __init__(self, rank: int = 0, count: int = 1) -> None:
        self.rank = rank
        self.count = count
        self._awaited = count > 1 and rank == 0  # whether the other ranks wait for an order

    @property
    def device_index(self) -> int:
        """The number of this rank's GPU on its machine."""
        return int(os.environ.get("LOCAL_RANK", "0")) if self.count > 1 else 0

    def rows(self, *batch: Any) -> tuple[Any, ...]:
        """This rank's equal share of the rows of each tensor; other values unchanged."""
        if self.count == 1:
            return batch
        return tuple(
            each.chunk(self.count)[self.rank] if isinstance(each, Tensor) and each.ndim else each
            for each in batch
        )

    def average(self, found: Gradients) -> Gradients:
        """Average gradients and losses over all ranks: one all-reduce per network, concurrently."""
        if self.count == 1:
            return found
        of_g, of_d = found.generator, (*found.discriminator, found.losses)
        flat_g, flat_d = _flat(of_g), _flat(of_d)
        with _noticing():
            for work in [dist.all_reduce(flat, async_op=True) for flat in (flat_g, flat_d)]:
                assert work is not None  # every rank takes part
                work.wait()
        generator = _unflat(flat_g.div_(self.count), of_g)
        *discriminator, losses = _unflat(flat_d.div_(self.count), of_d)
        return Gradients(tuple(generator), tuple(discriminator), losses)

    def first_reason(self, reason: str | None) -> str | None:
        """Exchange a reason among the ranks: the first that is not None, or None."""
        if self.count == 1:
            return reason
        reasons: list[str | None] = [None] * self.count
        with _noticing():
            dist.all_gather_object(reasons, reason)
        return next((each for each in reasons if each), None)

    @contextmanager
    def order(self, order: object, interruption: Interruption | None = None) -> Iterator[None]:
        """Rank 0 tells the other ranks to do what it does inside this context.

        Afterwards, a signal that any rank has received counts for all ranks.
        """
        if self.count == 1:
            yield
            return
        self._awaited = False
        self._tell(order)
        yield
        self._share_signals(interruption)
        self._awaited = True

    def orders(self, interruption: Interruption) -> Iterator[object]:
        """Yield the orders of rank 0, until rank 0 has finished."""
        while True:
            found: list[object] = [None]
            with _noticing():
                dist.broadcast_object_list(found, src=0)
            if found[0] is None:
                return
            yield found[0]
            self._share_signals(interruption)

    def leave(self) -> None:
        """Tell the other ranks to finish. If rank 0 failed in a step, they notice it."""
        if self._awaited:
            self._awaited = False
            with suppress(RankLostError):
                self._tell(None)

    def _tell(self, order: object) -> None:
        with _noticing():
            dist.broadcast_object_list([order], src=0)

    def _share_signals(self, interruption: Interruption | None) -> None:
        number = torch.tensor(interruption.number or 0 if interruption else 0)
        with _noticing():
            dist.all_reduce(number, dist.ReduceOp.MAX)
        if interruption and number:
            interruption.number = int(number)


ALONE = Ranks()


@contextmanager
def joined() -> Iterator[Ranks]:
    """The ranks of this run, from the environment that torchrun sets.

    Raises:
        RankLostError: if they cannot be reached.
    """
    gpus = torch.cuda.is_available() and dist.is_nccl_available()
    with _noticing():
        dist.init_process_group("cpu:gloo,cuda:nccl" if gpus else "gloo", timeout=_PATIENCE)
    ranks = Ranks(dist.get_rank(), dist.get_world_size())
    try:
        yield ranks
    finally:
        ranks.leave()
        dist.destroy_process_group()


@contextmanager
def _noticing() -> Iterator[None]:
    """Raise RankLostError if a collective fails."""
    try:
        yield
    except (RuntimeError, ValueError) as error:  # ValueError: the environment is incomplete
        # Keep gloo's reason, without its source line and its advice.
        reason = re.sub(r"^\[\S*\] ", "", str(error).splitlines()[0]).partition(". ")[0]
        raise RankLostError(
            f"another process of this run has ended, or cannot be reached ({reason})"
        ) from None


def _flat(tensors: Sequence[Tensor]) -> Tensor:
    return torch.cat([tensor.flatten() for tensor in tensors])


def _unflat(flat: Tensor, like: Sequence[Tensor]) -> list[Tensor]:
    parts = flat.split([tensor.numel() for tensor in like])
    return [part.view_as(tensor) for part, tensor in zip(parts, like, strict=True)]
