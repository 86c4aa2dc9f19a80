"""Which snapshot is best."""

import json
from pathlib import Path

import pytest

from training.run_folder.folder import RunFolder
from training.run_folder.history import EpochRecord
from training.run_folder.scores import Scores
from training.scoring import selection
from training.scoring.selection import RULES, choose, prune, write_best


def epoch(
    number: int,
    loss_g: float = 1.0,
    fcd: float | None = None,
    coverage: float = 0.9,
    class_tv: float = 0.0,
) -> EpochRecord:
    scores = None if fcd is None else Scores(fcd=fcd, coverage=coverage, class_tv=class_tv)
    return EpochRecord(number, 10 * number, loss_g, 0, 0, 0, 1, scores)


def test_g_loss_takes_the_lowest_but_the_first() -> None:
    choice = choose("g-loss", [epoch(1, 0.5), epoch(2, 1.0), epoch(3, 0.9), epoch(4, 1.1)])
    assert (choice.epoch, choice.step, choice.score) == (3, 30, 0.9)
    assert choice.runner_up == {"epoch": 2, "step": 20, "score": 1.0}
    assert choice.checkpoint == "checkpoints/step-0000030.pt"
    assert choice.why == "lowest mean generator loss of 3 epochs, the first excepted"


def test_a_single_epoch_is_the_best() -> None:
    for rule in RULES:
        choice = choose(rule, [epoch(1, 3.0, fcd=5.0)])
        assert (choice.epoch, choice.runner_up) == (1, None)


def test_fcd_takes_the_lowest_of_the_scored() -> None:
    choice = choose("fcd", [epoch(1, fcd=9.0), epoch(2), epoch(3, fcd=4.0), epoch(4, fcd=5.0)])
    assert (choice.epoch, choice.score) == (3, 4.0)
    assert choice.runner_up == {"epoch": 4, "step": 40, "score": 5.0}
    assert choice.why == "lowest FCD of 3 scored checkpoints"


@pytest.mark.parametrize(
    "collapsed", [{"coverage": 0.4}, {"class_tv": 0.4}], ids=["coverage", "classes"]
)
def test_fcd_passes_over_a_collapsed_generator(collapsed: dict[str, float]) -> None:
    epochs = [epoch(1, fcd=9.0), epoch(2, fcd=1.0, **collapsed), epoch(3, fcd=4.0)]
    choice = choose("fcd", epochs)
    assert choice.epoch == 3
    assert choice.why.endswith("1 passed over for poor coverage or class shares")


def test_where_all_look_collapsed_the_lowest_is_taken_and_it_is_said() -> None:
    choice = choose("fcd", [epoch(1, fcd=9.0, class_tv=0.5), epoch(2, fcd=8.0, class_tv=0.5)])
    assert choice.epoch == 2
    assert choice.why.endswith("though each has poor coverage or class shares")


def test_the_best_by_each_rule_the_last_and_some_between_are_kept(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    epochs = [
        epoch(i, 2.0, fcd=5.0) for i in range(1, 24)
    ]  # every fourth epoch, because twelve were too many
    epochs[6] = epoch(7, 1.0, fcd=5.0)
    epochs[12] = epoch(13, 2.0, fcd=1.0)
    for record in epochs:
        (tmp_path / "checkpoints" / f"step-{record.step:07d}.pt").touch()
    prune(RunFolder(tmp_path), epochs)
    kept = sorted(int(path.stem[5:]) for path in (tmp_path / "checkpoints").iterdir())
    assert kept == [40, 70, 80, 120, 130, 160, 200, 230]


def test_what_may_come_to_be_the_best_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the last epoch is reopened, or better coverage makes the best snapshot look poor."""
    monkeypatch.setattr(selection, "MOST_MILESTONES", 0)
    (tmp_path / "checkpoints").mkdir()

    def left_of(epochs: list[EpochRecord]) -> set[str]:
        for record in epochs:
            (tmp_path / f"checkpoints/step-{record.step:07d}.pt").touch()
        prune(RunFolder(tmp_path), epochs)
        return {f"checkpoints/{path.name}" for path in (tmp_path / "checkpoints").iterdir()}

    epochs = [epoch(1, fcd=9.0), epoch(2, 0.5, fcd=3.0), epoch(3, fcd=5.0), epoch(4, 0.1, fcd=1.0)]
    left = left_of(epochs)
    assert {choose(rule, epochs[:-1]).checkpoint for rule in RULES} <= left
    assert len(left) == 2

    poor = [(9.0, 0.2), (3.0, 0.3), (4.0, 0.5), (6.0, 0.4)]
    epochs = [epoch(i + 1, fcd=fcd, coverage=share) for i, (fcd, share) in enumerate(poor)]
    left = left_of(epochs)
    risen = choose("fcd", [*epochs, epoch(5, fcd=5.0, coverage=0.9)])
    assert risen.step == 30
    assert risen.checkpoint in left


def test_best_json_says_rule_score_runner_up_and_why(tmp_path: Path) -> None:
    epochs = [epoch(1, 0.5, fcd=9.0), epoch(2, 1.0, fcd=4.0), epoch(3, 0.9, fcd=5.0)]
    choices = {rule: choose(rule, epochs) for rule in RULES}
    write_best(RunFolder(tmp_path), "fcd", choices, final={"fcd": {"fcd": 4.5}})
    best = json.loads((tmp_path / "best.json").read_text())
    assert (best["rule"], best["epoch"], best["score"]) == ("fcd", 2, 4.0)
    assert best["runner_up"]["epoch"] == 3
    assert best["why"]
    assert best["choices"]["g-loss"]["epoch"] == 3
    assert best["final"]["fcd"]["fcd"] == 4.5
