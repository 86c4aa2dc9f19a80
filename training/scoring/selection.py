"""The choice of a run's best generator snapshot, by two rules."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from training.run_folder.folder import RunFolder
from training.run_folder.history import Choice, EpochRecord
from training.run_folder.json_file import write_object
from training.run_folder.scores import Scores

RULES = ("fcd", "g-loss")

# A collapsed generator can have a good FCD. It is chosen only if there is no other one.
_LEAST_COVERAGE = 0.5  # as a share of the best coverage in the run
_MOST_CLASS_TV = 0.3

MOST_MILESTONES = 6  # 12 MB each, in the default settings


def choose(rule: str, epochs: Sequence[EpochRecord]) -> Choice:
    """The best snapshot by a rule. At least one of the epochs must have scores.

    fcd: the lowest FCD. g-loss, the rule of the exercise: the lowest mean generator loss of an
    epoch. The first epoch is left out if there are others, because its loss is low only because the
    discriminator has not learned anything yet.
    """
    if rule == "fcd":
        scored, why = _sound(epochs)
        ranked = sorted((scores.fcd, record.step, record.epoch) for record, scores in scored)
    else:
        candidates = list(epochs[1:] or epochs)
        why = f"lowest mean generator loss of {len(candidates)} epochs"
        why += ", the first excepted" if len(epochs) > 1 else ""
        ranked = sorted((record.loss_g, record.step, record.epoch) for record in candidates)
    (score, step, epoch), *rest = ranked
    runner_up = dict(zip(("score", "step", "epoch"), rest[0], strict=True)) if rest else None
    checkpoint = RunFolder(Path()).checkpoint(step).as_posix()
    return Choice(rule, checkpoint, epoch, step, score, runner_up, why)


def write_best(
    folder: RunFolder, rule: str, choices: Mapping[str, Choice], **findings: Any
) -> None:
    """Write best.json: the choice by `rule`, the choices by all rules, and further findings."""
    content = {
        **asdict(choices[rule]),
        "choices": {name: asdict(choice) for name, choice in choices.items()},
        **findings,
    }
    write_object(folder.best, content)


def prune(folder: RunFolder, epochs: Sequence[EpochRecord], earlier: int = 0) -> None:
    """Remove snapshots except the best by each rule, the last, and a few at even distances.

    earlier: also keep those that were best after this number of epochs.
    """
    keep = _milestones(epochs)
    keep |= {known[-1].step for known in (epochs, epochs[:earlier]) if known}
    # A resume may reopen the last epoch, and then chooses among the epochs before it.
    for known in (epochs, epochs[:-1], epochs[:earlier]):
        if any(record.scores for record in known):
            keep |= {choose(rule, known).step for rule in RULES} | _best_yet_to_be(known)
    for step, path in folder.checkpoints_by_step().items():
        if step not in keep:
            path.unlink()


def _milestones(epochs: Sequence[EpochRecord]) -> set[int]:
    """Steps of scored epochs, at even distances: every first, second, fourth, … of them."""
    scored = [record.step for record, _ in _scored(epochs)]
    every = 1
    while len(scored[every - 1 :: every]) > MOST_MILESTONES:
        every *= 2
    return set(scored[every - 1 :: every])


def _best_yet_to_be(epochs: Sequence[EpochRecord]) -> set[int]:
    """Steps that fcd may choose later, once a better coverage rules out others: see `_sound`."""
    ranked = sorted(_scored(epochs), key=lambda each: (each[1].fcd, each[0].step))
    steps, most = {ranked[0][0].step}, -1.0
    for record, scores in ranked:
        if scores.class_tv <= _MOST_CLASS_TV and scores.coverage > most:
            steps.add(record.step)
            most = scores.coverage
    return steps


def _scored(epochs: Sequence[EpochRecord]) -> list[tuple[EpochRecord, Scores]]:
    """The scored epochs, with their scores."""
    return [(record, record.scores) for record in epochs if record.scores]


def _sound(epochs: Sequence[EpochRecord]) -> tuple[list[tuple[EpochRecord, Scores]], str]:
    """The scored epochs that have not collapsed, and a sentence about them."""
    scored = _scored(epochs)
    least = _LEAST_COVERAGE * max(scores.coverage for _, scores in scored)
    sound = [
        (record, scores)
        for record, scores in scored
        if scores.coverage >= least and scores.class_tv <= _MOST_CLASS_TV
    ]
    why = f"lowest FCD of {len(scored)} scored checkpoints"
    if not sound:
        return scored, f"{why}, though each has poor coverage or class shares"
    if len(sound) < len(scored):
        why += f", {len(scored) - len(sound)} passed over for poor coverage or class shares"
    return sound, why
