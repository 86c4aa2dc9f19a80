"""The processes that train one run together, as torchrun starts them.

The first one, rank 0, leads: it alone has the run's folder, decides and scores. The others are told
what to do (take steps, take over a state) and wait in between. In a step each rank takes its rows
of the batch, and the gradients of all are averaged.
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

# How long a rank waits for others that live, while rank 0 scores, say. One that has died is noticed
# at once: its connections close.
_PATIENCE = timedelta(hours=1)


class RankLostError(GanpackError):
    """Another process of the run has ended, or cannot be reached."""


class Ranks:
    """This process among those of its run; by default it is alone, and nothing here does anything.

    All ranks draw the whole batch (its images' indices and its noise, from one seed) and take their
    rows. So what is trained on does not depend on their number, and no rank repeats another's.
    """

    def __init__(self, rank: int = 0, count: int = 1) -> None:
        self.rank = rank
        self.count = count
        self._awaited = count > 1 and rank == 0  # whether the others wait for an order of this one

    @property
    def device_index(self) -> int:
        """Which GPU of its machine is this rank's."""
        return int(os.environ.get("LOCAL_RANK", "0")) if self.count > 1 else 0

    def rows(self, *batch: Any) -> tuple[Any, ...]:
        """This rank's rows of each tensor that has some; they divide evenly. All else as it is."""
        if self.count == 1:
            return batch
        return tuple(
            each.chunk(self.count)[self.rank] if isinstance(each, Tensor) and each.ndim else each
            for each in batch
        )

    def average(self, found: Gradients) -> Gradients:
        """The mean over all ranks, of losses too: one all-reduce a network, both at a time."""
        if self.count == 1:
            return found
        of_g, of_d = found.generator, (*found.discriminator, found.losses)
        flat_g, flat_d = _flat(of_g), _flat(of_d)
        with _noticing():
            for work in [dist.all_reduce(flat, async_op=True) for flat in (flat_g, flat_d)]:
                assert work is not None  # as every rank takes part
                work.wait()
        generator = _unflat(flat_g.div_(self.count), of_g)
        *discriminator, losses = _unflat(flat_d.div_(self.count), of_d)
        return Gradients(tuple(generator), tuple(discriminator), losses)

    def first_of(self, reason: str | None) -> str | None:
        """The first reason that a rank gives, None where none does."""
        if self.count == 1:
            return reason
        reasons: list[str | None] = [None] * self.count
        with _noticing():
            dist.all_gather_object(reasons, reason)
        return next((each for each in reasons if each), None)

    @contextmanager
    def order(self, order: object, interruption: Interruption | None = None) -> Iterator[None]:
        """Rank 0 tells the others to do what it does while this is entered.

        A signal that any of them has had is one to all, afterwards.
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
        """What the other ranks are told, until rank 0 leaves."""
        while True:
            found: list[object] = [None]
            with _noticing():
                dist.broadcast_object_list(found, src=0)
            if found[0] is None:
                return
            yield found[0]
            self._share_signals(interruption)

    def leave(self) -> None:
        """Rank 0 has no more orders. Where it fails in a step, the others find that it is gone."""
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
    """The ranks of this run, as the environment that torchrun sets says.

    Raises:
        RankLostError: where they cannot be reached.
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
    """Raises RankLostError where a collective fails."""
    try:
        yield
    except (RuntimeError, ValueError) as error:  # the latter of an environment that says too little
        # Of gloo's, without the line of its source before it and the advice behind it.
        reason = re.sub(r"^\[\S*\] ", "", str(error).splitlines()[0]).partition(". ")[0]
        raise RankLostError(
            f"another process of this run has ended, or cannot be reached ({reason})"
        ) from None


def _flat(tensors: Sequence[Tensor]) -> Tensor:
    return torch.cat([tensor.flatten() for tensor in tensors])


def _unflat(flat: Tensor, like: Sequence[Tensor]) -> list[Tensor]:
    parts = flat.split([tensor.numel() for tensor in like])
    return [part.view_as(tensor) for part, tensor in zip(parts, like, strict=True)]
