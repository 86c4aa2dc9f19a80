"""Notice that a run has diverged: values that are not finite, or lost classes."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from training.gan.state import TrainState
from training.gan.step import StepMetrics
from training.run_folder.history import EpochRecord

# Total variation of the class shares, 0 … 1. A run has collapsed if it was once below the first
# value and is now above the second: five of ten classes are missing, or one of two. A value that
# was never low is no collapse, because an untrained generator has one.
_SOUND_CLASS_TV = 0.2
_COLLAPSED_CLASS_TV = 0.48


class Diverged(Exception):
    """A run has diverged; the message has the evidence."""


def check_losses(losses: NDArray[np.float32], first_step: int) -> None:
    """Raise Diverged if one of the losses, (steps, 4), is not finite.

    first_step: the step of the first row.
    """
    finite = np.isfinite(losses).all(axis=1)
    if finite.all():
        return
    bad = int(finite.argmin())
    values = zip(StepMetrics._fields, losses[bad].tolist(), strict=True)
    before = f", {_named(losses[bad - 1])} before" if bad else ""
    wrong = ", ".join(f"{name} {value}" for name, value in values if not np.isfinite(value))
    raise Diverged(f"iteration {first_step + bad}: {wrong}{before}")


def check_weights(state: TrainState) -> None:
    """Raise Diverged if a weight, a BatchNorm statistic or a moment is not finite."""
    tensors = {name: t for name, t in state.tensors().items() if t.is_floating_point()}
    sums = torch.stack(
        [t.sum() for t in tensors.values()]
    )  # 15 times as fast as `isfinite` for each tensor
    wrong = [n for n, finite in zip(tensors, sums.isfinite().tolist(), strict=True) if not finite]
    if wrong:
        more = f" and {len(wrong) - 3} others" if len(wrong) > 3 else ""
        raise Diverged(f"iteration {state.step}: {', '.join(wrong[:3])}{more} not finite")


def check_classes(epochs: Sequence[EpochRecord]) -> None:
    """Raise Diverged if the last scored epoch has lost classes that an earlier epoch had."""
    *before, last = [(record.step, record.scores) for record in epochs if record.scores]
    step, scores = last
    now = scores.class_tv
    best = min((each.class_tv for _, each in before), default=1.0)
    if best <= _SOUND_CLASS_TV and now > _COLLAPSED_CLASS_TV:
        raise Diverged(
            f"iteration {step}: the class shares of the images differ by {now:.2f} from those "
            f"of real ones (total variation), {best:.2f} before; FCD {scores.fcd:.1f}"
        )


def _named(row: NDArray[np.float32]) -> str:
    return ", ".join(f"{n} {v:.4g}" for n, v in zip(StepMetrics._fields, row.tolist(), strict=True))
