"""Run folders that were damaged, changed by hand, cut off at their start, or made to do harm."""

import json
import os
import random
import shutil
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import pytest

from export.artifact_folder import ExportError, best_checkpoint
from tests.support.comparing import read_lines, without_timing
from tests.support.runs import TINY
from training.config import ConfigError
from training.pages.run_view import read_run
from training.records.event_file import EventFile
from training.records.metrics_file import SoundLines
from training.report import main as report_main
from training.run import main
from training.run_folder.checkpoint import load_generator
from training.run_folder.config_file import read_config, refuse_used
from training.run_folder.folder import RunFolder, RunFolderError, locked
from training.run_folder.history import read_best
from training.run_folder.json_file import parse_object, typed
from training.run_folder.sealed_file import CheckpointError, DamagedError, load, save
from training.train import train


@pytest.fixture
def run_dir(tiny_run: Path, tmp_path: Path) -> Path:
    """A copy of the tiny run."""
    return Path(shutil.copytree(tiny_run, tmp_path / "run"))


def step_line(step: int) -> str:
    names = ("loss_g", "loss_d", "d_real", "d_fake")
    return json.dumps({"kind": "iteration", "step": step, **dict.fromkeys(names, 0.5)})


def epoch_line(epoch: int, step: int) -> str:
    names = ("loss_g", "loss_d", "d_real", "d_fake", "images_per_second")
    numbers = dict.fromkeys(names, 0.5)
    return json.dumps({"kind": "epoch", "epoch": epoch, "step": step, **numbers, "scores": {}})


STEPS = [step_line(step) for step in range(1, 7)]


@pytest.mark.parametrize(
    ("lines", "steps", "damaged"),
    [
        (STEPS, [1, 2, 3, 4, 5, 6], 0),
        ([*STEPS[:2], "null", "[]", "{}", "\0" * 9, '{"kind": 1}', *STEPS[2:]], [*range(1, 7)], 5),
        ([*STEPS[:2], STEPS[2].replace("0.5", "NaN", 1), *STEPS[3:]], [1, 2, 4, 5, 6], 1),
        ([*STEPS[:2], STEPS[2].replace("0.5", "1e400", 1), *STEPS[3:]], [1, 2, 4, 5, 6], 1),
        ([*STEPS[:2], STEPS[2].replace("0.5", "true", 1), *STEPS[3:]], [1, 2, 4, 5, 6], 1),
        ([*STEPS[:2], STEPS[2].replace("3", "3.0", 1), *STEPS[3:]], [1, 2, 4, 5, 6], 1),
        ([*STEPS[:2], STEPS[2].replace("3", "9" * 30, 1), *STEPS[3:]], [1, 2, 4, 5, 6], 1),
        ([*STEPS[:2], STEPS[2].replace('"loss_d"', '"loss_e"'), *STEPS[3:]], [1, 2, 4, 5, 6], 1),
        ([*STEPS[:2], step_line(900), *STEPS[3:]], [1, 2, 4, 5, 6], 1),  # it jumps ahead
        ([step_line(900), *STEPS[1:]], [2, 3, 4, 5, 6], 1),
        ([*STEPS[:4], step_line(2), *STEPS[5:]], [1, 2, 3, 4, 6], 1),
        ([*STEPS[:4], *STEPS[3:]], [1, 2, 3, 4, 5, 6], 1),
        ([*STEPS, *STEPS], [1, 2, 3, 4, 5, 6], 6),
        ([*STEPS[:5], step_line(900), epoch_line(1, 6)], [1, 2, 3, 4, 5], 1),
        ([*STEPS[:2], "[" * 100_000, "x" * 3_000_000, *STEPS[2:]], [1, 2, 3, 4, 5, 6], 2),
        (['{"half": "\\ud800"}', *STEPS], [1, 2, 3, 4, 5, 6], 1),
    ],
)
def test_each_sound_line_of_the_records_is_kept(
    lines: list[str], steps: list[int], damaged: int, tmp_path: Path
) -> None:
    file = tmp_path / "metrics.jsonl"
    file.write_text("\n".join([*lines, STEPS[0][:20]]))
    found = SoundLines(file, 2**30)
    assert [each.step for each in found.iterations()] == steps
    assert found.damaged == damaged
    with pytest.raises(OSError, match="absurd"):
        next(SoundLines(file, 50).iterations())


@pytest.mark.parametrize(
    ("epochs", "kept"),
    [
        ([(1, 4), (2, 8), (3, 11)], [1, 2, 3]),
        ([(1, 4), (900, 8), (3, 11)], [1, 3]),
        ([(900, 4), (2, 8), (3, 11)], [2, 3]),
        ([(1, 4), (2, 800), (3, 11)], [1, 3]),
        ([(1, 4), (2, 8), (2, 8), (3, 11), (1, 4)], [1, 2, 3]),
        ([(1, 4), (0, 8), (3, 11)], [1, 3]),
    ],
)
def test_each_sound_epoch_of_the_records_is_kept(
    epochs: list[tuple[int, int]], kept: list[int], tmp_path: Path
) -> None:
    file = tmp_path / "metrics.jsonl"
    file.write_text("".join(epoch_line(*epoch) + "\n" for epoch in epochs))
    found = SoundLines(file, 2**30)
    assert not list(found.iterations())
    assert [record.epoch for record in found.epochs] == kept
    assert found.damaged == len(epochs) - len(kept)


@dataclass(frozen=True)
class Typed:
    count: int
    share: float = 0.0
    name: str = ""
    place: Path = Path()
    sizes: tuple[int, ...] = ()
    pair: tuple[float, float] | None = None
    kind: Literal["a", 1] = "a"
    table: dict[str, list[float]] | None = None


def test_json_becomes_typed_values() -> None:
    text = (
        b'{"count": 3, "share": 1, "name": "n", "place": "a/b", "sizes": [1, 2], "pair": [0, 0.5],'
        b' "kind": 1, "table": {"x": [2]}, "unknown": null}'
    )
    expected = Typed(3, 1, "n", Path("a/b"), (1, 2), (0, 0.5), 1, {"x": [2]})
    assert typed(Typed, parse_object(text)) == expected


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ("null", "it is null, not an object"),
        ("[1]", "it is a list, not an object"),
        ("{}", "it has no count"),
        ('{"count": true}', "count is true or false, not a whole number"),
        ('{"count": 1.0}', "count is 1.0, not a whole number"),
        ('{"count": 9223372036854775808}', "count is 9223372036854775808, not a whole number"),
        ('{"count": 1, "share": 1e400}', "share is inf, not a finite number"),
        ('{"count": 1, "share": NaN}', "NaN is no number in JSON"),
        ('{"count": 1, "share": "1"}', "share is '1', not a finite number"),
        ('{"count": 1, "name": "\\ud800"}', "name is .*, not a text"),
        ('{"count": 1, "place": "a\\u0000"}', "place is .*, not a path"),
        ('{"count": 1, "sizes": [1, null]}', "sizes is null, not a whole number"),
        ('{"count": 1, "sizes": 5}', "sizes is 5, not a list"),
        ('{"count": 1, "pair": [1]}', "pair is a list, not null"),
        ('{"count": 1, "kind": true}', "kind is true or false, not one of 'a', 1"),
        ('{"count": 1, "table": {"x": [null]}}', "table is an object, not null"),
        ("[" * 100_000, "nested too deeply"),
        ('{"count": 1, "name": "\xff"}', "utf-8"),
    ],
)
def test_json_of_other_types_is_refused_in_words(values: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        typed(Typed, parse_object(values.encode("latin-1")))


def flipped(content: bytes, place: int, bit: int) -> bytes:
    changed = bytearray(content)
    changed[place] ^= 1 << bit
    return bytes(changed)


@pytest.mark.parametrize("name", ["config.json", "metrics.jsonl", "best.json"])
def test_a_flipped_bit_is_a_word_and_never_a_traceback(name: str, run_dir: Path) -> None:
    """The settings are then those of last.pt; of the records, no more than the line is lost."""
    file, chance = run_dir / name, random.Random(name)
    content = file.read_bytes()
    for _ in range(60):
        file.write_bytes(flipped(content, chance.randrange(len(content)), chance.randrange(8)))
        view = read_run(run_dir)
        # A damaged end of a line costs two.
        assert len(view.steps) + len(view.epochs) >= 43 + 12 - 2
        view.minutes()
        view.best_scores()
        if view.best:
            view.minutes_at(view.best.step)


def test_a_report_says_what_is_lost_and_shows_the_rest(
    run_dir: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    metrics = run_dir / "metrics.jsonl"
    lines = metrics.read_text().splitlines(keepends=True)
    until = next(i for i, line in enumerate(lines) if '"epoch": 6,' in line)
    metrics.write_text("".join(["null\n", *lines[1:until]]) + lines[until][:9])
    (run_dir / "nearest.png").write_bytes(b"rubbish")
    os.mkfifo(run_dir / "samples" / "step-0000044.png")
    (run_dir / "checkpoints" / "step-0000004 (copy).pt").touch()
    (run_dir / "samples" / "step-oops.png").touch()
    content = json.loads((run_dir / "config.json").read_text())
    content |= {"versions": [1], "machine": {"cores": 2}, "class_names": ["a"] * 9, "seconds": 1}
    (run_dir / "config.json").write_text(json.dumps(content))
    assert report_main([str(run_dir)]) == 0
    page = (run_dir / "report.html").read_text()
    assert "22 of 43 iterations and 7 of 12 epochs are lost" in page
    assert "22 of 43 iterations and 7 of 12 epochs are lost" in caplog.text
    assert "nearest.png is left out: it is damaged" in caplog.text
    assert "versions is a list, not an object; machine.cores is 2, not a text" in caplog.text
    assert "Are all classes equally frequent?" not in page
    metrics.write_text("".join(line for line in lines if '"epoch"' in line))
    assert read_run(run_dir).losses.shape == (12, 4)  # those of the epochs instead


def sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(2**36)


SPECIAL: dict[str, Callable[[Path], Any]] = {
    "folder": lambda path: path.mkdir(),
    "pipe": os.mkfifo,  # a reader would wait for a writer
    "device": lambda path: path.symlink_to("/dev/zero"),  # it has no end
    "loop": lambda path: path.symlink_to(path.name),
    "gigabytes": sparse,
}


@pytest.mark.parametrize("kind", SPECIAL)
def test_what_stands_in_a_files_place_is_a_word(
    kind: str, run_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = RunFolder(run_dir)
    for path in (folder.last, folder.previous, folder.config, folder.best, folder.metrics):
        path.unlink(missing_ok=True)
        SPECIAL[kind](path)
    for read in (load, lambda path: load_generator(load(path))):
        with pytest.raises(CheckpointError):
            read(folder.last)
    with pytest.raises(ConfigError, match=r"holds no run: config\.json: "):
        read_config(run_dir)
    with pytest.raises((OSError, ValueError)):
        read_best(folder)
    with pytest.raises(ExportError, match=r"best\.json"):
        best_checkpoint(run_dir)
    with pytest.raises(RunFolderError, match="not empty"):
        refuse_used(folder)
    config = run_dir / "config.json"
    config.rmdir() if kind == "folder" else config.unlink()
    config.write_text(json.dumps({"config": {}}))
    with pytest.raises(ConfigError, match=r"metrics\.jsonl: |recorded no iteration"):
        read_run(run_dir)
    assert "best.json is left out: " in caplog.text


def test_a_socket_in_a_files_place_is_a_word(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)  # the path of a socket is short
    with socket.socket(socket.AF_UNIX) as made:
        made.bind("last.pt")
    with pytest.raises(CheckpointError, match="cannot be read: it is no plain file"):
        load(Path("last.pt"))


def test_a_damaged_run_goes_on_from_what_is_sound(
    run_dir: Path, tiny_run: Path, caplog: pytest.LogCaptureFixture
) -> None:
    metrics = run_dir / "metrics.jsonl"
    lines = metrics.read_bytes().splitlines(keepends=True)
    lost = [i for i, line in enumerate(lines) if b'"step": 9,' in line or b'"epoch": 3,' in line]
    for i in lost:
        lines[i] = flipped(lines[i], lines[i].index(b"step"), 1)
    metrics.write_bytes(b"".join(lines))
    (run_dir / "config.json").write_text('{"config": {"recipe": "colour"}}')
    (run_dir / "best.json").write_text("null")
    odd = [
        run_dir / "checkpoints" / "step-0000099 (copy).pt",
        run_dir / "checkpoints" / "step-99.pt",
        run_dir / "samples" / "step-best.png",
        run_dir / "tensorboard" / "events.out.tfevents.odd",
        run_dir / "tensorboard" / "events.out.tfevents.9999999999.x",
    ]
    for path in odd:
        path.write_bytes(b"not ours")
    assert main(["--resume", str(run_dir)]) == 0
    assert "recipe is 'colour'" in caplog.text or "RecipeConfig" in caplog.text
    assert "the settings are those of last.pt" in caplog.text
    assert "metrics.jsonl: 1 of 43 iterations are lost" in caplog.text
    assert read_config(run_dir) == TINY
    assert (run_dir / "best.json").read_bytes() == (tiny_run / "best.json").read_bytes()
    found, expected = (read_lines(run, "epoch") for run in (run_dir, tiny_run))
    assert found == expected
    found, expected = (read_lines(run, "iteration") for run in (run_dir, tiny_run))
    assert found == [line for line in expected if line["step"] != 9]
    assert [path.read_bytes() for path in odd] == [b"not ours"] * len(odd)


def test_an_event_file_comes_after_the_others_and_over_none(tmp_path: Path) -> None:
    for name in ("4000000000.here", "abc", "12", "9999999999.x", "4000000001", "-999999999.x"):
        (tmp_path / f"events.out.tfevents.{name}").touch()
    EventFile(tmp_path, 1, {}).close()
    (new,) = [path for path in tmp_path.iterdir() if path.stat().st_size]
    assert new.name.startswith("events.out.tfevents.4000000001.")


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"recipe": {"lr": 0.0009}}, "--lr 0.0002 -> 0.0009 (--override lr allows it"),
        ({"seed": 7, "score_every": 3}, "--seed 0 -> 7, --score-every 10 -> 3 (--override seed"),
        ({"recipe": {"batch_size": 256}}, "--batch-size 512 -> 256 (this can never change"),
        ({"engine": "compiled"}, "--engine plain -> compiled"),
        ({"network": {"latent_dim": 11}}, "--latent-dim 10 -> 11 (this can never change"),
        ({"deterministic": True}, "--deterministic False -> True"),
    ],
)
def test_settings_that_were_changed_by_hand_are_refused(
    changes: dict[str, Any], complaint: str, run_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = json.loads((run_dir / "config.json").read_text())
    for name, value in changes.items():
        own = content["config"]
        own[name] = own[name] | value if isinstance(value, dict) else value
    (run_dir / "config.json").write_text(json.dumps(content))
    before = (run_dir / "last.pt").read_bytes()
    assert main(["--resume", str(run_dir)]) in {1, 2}
    error = capsys.readouterr().err.splitlines()[-1]
    assert "config.json does not fit last.pt: " in error or "other networks than config" in error
    assert complaint in error
    assert (run_dir / "last.pt").read_bytes() == before


def test_an_allowed_change_is_saved_at_once(run_dir: Path) -> None:
    changed = replace(TINY, recipe=replace(TINY.recipe, lr=0.0009))
    with pytest.raises(ConfigError, match="does not fit"):
        train(changed, run_dir, resume=True)
    train(changed, run_dir, resume=True, override=frozenset({"lr"}))
    assert load(run_dir / "last.pt")["settings"]["recipe"]["lr"] == 0.0009
    train(changed, run_dir, resume=True)
    train(replace(changed, epochs=13), run_dir, resume=True)  # what a resume may change anyway


def test_a_save_without_settings_goes_on(run_dir: Path) -> None:
    """As the first saves of this format."""
    content = load(run_dir / "last.pt")
    del content["settings"]
    save(content, run_dir / "last.pt")
    (run_dir / "previous.pt").unlink()
    (run_dir / "config.json").write_bytes((run_dir / "config.json").read_bytes()[:-40])
    with pytest.raises(ConfigError, match="damaged or of another version"):
        read_config(run_dir)
    assert train(TINY, run_dir, resume=True).step == 43


@pytest.mark.parametrize(
    "change",
    [
        {"step": "x"},
        {"history": {"epochs": [{}]}},
        {"history": None},
        {"noise": [1]},
        {"tensors": {"ema.layers.0.weight": 1}},
        {"tensors": []},
        {"checked": None},
    ],
)
def test_a_forged_training_state_is_damaged(change: dict[str, Any], run_dir: Path) -> None:
    save(load(run_dir / "last.pt") | change, run_dir / "last.pt")
    (run_dir / "previous.pt").unlink(missing_ok=True)
    with pytest.raises(CheckpointError, match="are damaged"):
        train(TINY, run_dir, resume=True)
    assert (run_dir / "last.pt.damaged").exists()


@pytest.mark.parametrize(
    "change",
    [
        {"network": None},
        {"network": {"latent_dim": 10}},
        {"network": {"latent_dim": 10**12, "hidden_dims": [16, 32], "image_shape": [1, 8, 8]}},
        {"network": {"latent_dim": 10, "hidden_dims": [16, 32], "image_shape": [1, 8, 9]}},
        {"ema": {}},
        {"ema": 5},
    ],
)
def test_a_forged_snapshot_is_refused_without_its_memory(
    change: dict[str, Any], run_dir: Path
) -> None:
    content = load(best_checkpoint(run_dir)) | change
    with pytest.raises(CheckpointError, match=r"^x\.pt is none that ganpack writes: "):
        load_generator(content, "x.pt")


def test_a_refused_file_comes_without_advice_to_trust_it(tmp_path: Path) -> None:
    save({"format_version": 1, "payload": Path()}, tmp_path / "last.pt")
    with pytest.raises(DamagedError) as raised:
        load(tmp_path / "last.pt")
    assert "could run code" in str(raised.value)
    assert "weights_only" not in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_run_that_is_killed_at_its_start_can_be_started_again(
    tmp_path: Path,
) -> None:
    """The folder is copied before every operation on a file, as a kill there would leave it."""
    run_dir, copies, busy = tmp_path / "run", tmp_path / "copies", [False]
    events = {"open", "os.mkdir", "os.rename", "os.remove", "os.truncate"}

    def copy_before(event: str, arguments: tuple[Any, ...]) -> None:
        if busy[0] or event not in events or not str(arguments[0]).startswith(str(run_dir)):
            return
        busy[0] = True
        number = len(list(copies.iterdir())) if copies.exists() else 0
        if run_dir.exists():
            shutil.copytree(run_dir, copies / f"{number:03d}")
        busy[0] = (run_dir / "last.pt").exists()

    sys.addaudithook(copy_before)
    train(replace(TINY, iterations=2, score_every=1), run_dir)
    busy[0] = True
    states = sorted(copies.iterdir())
    begun = [state for state in states if not (state / "last.pt").exists()]
    assert len(begun) > 8
    assert {(state / "config.json").exists() for state in begun} == {True, False}
    for state in begun:
        refuse_used(RunFolder(state))
    last = next(state for state in reversed(begun) if not (state / "config.json").exists())
    assert (last / "checkpoints").is_dir()
    train(replace(TINY, iterations=2, score_every=1), last)
    found, expected = (without_timing(read_lines(run, "epoch")) for run in (last, run_dir))
    assert found == expected


@pytest.mark.parametrize(
    "other",
    [
        lambda path: (path / "notes.txt").touch(),
        lambda path: (path / "notes.tmp").touch(),
        lambda path: (path / "checkpoints" / "step-0000001.pt").touch(),
        lambda path: (path / "checkpoints" / "inner").mkdir(),
        lambda path: (path / "config.json").write_text('{"name": "a web page"}'),
        lambda path: (path / "config.json").mkdir(),
        lambda path: (path / "real.png").touch(),
        lambda path: (path / ".config.json.12.tmp").mkdir(),
        lambda path: (path / "config.json").symlink_to("/dev/null"),
        lambda path: (path / "last.pt").touch(),
        lambda path: (path / ".git").mkdir(),
    ],
)
def test_a_folder_with_anything_of_others_is_never_begun(
    other: Callable[[Path], Any], tmp_path: Path
) -> None:
    folder = RunFolder(tmp_path)
    folder.checkpoints.mkdir()
    for path in (folder.lock, folder.extractor, tmp_path / ".config.json.12345.tmp"):
        path.touch()
    refuse_used(folder)
    other(tmp_path)
    with pytest.raises(RunFolderError, match="not empty"):
        refuse_used(folder)


def test_a_file_is_no_place_for_a_run(tmp_path: Path) -> None:
    (tmp_path / "run").touch()
    with pytest.raises(RunFolderError, match="is no folder: name another"):
        refuse_used(RunFolder(tmp_path / "run"))


def test_a_resume_of_a_run_that_never_began_says_to_start_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(SystemExit):
        main(["--resume", str(tmp_path)])
    assert "start it again, without --resume" in capsys.readouterr().err


LINKS = ["checkpoints", "samples", "tensorboard", ".lock"]


@pytest.mark.parametrize("name", LINKS)
def test_nothing_is_written_through_a_link_out_of_the_folder(name: str, tmp_path: Path) -> None:
    outside, folder = tmp_path / "outside", RunFolder(tmp_path / "run")
    outside.mkdir()
    (outside / "step-0000009.png").write_text("precious")
    (outside / ".last.pt.1.tmp").write_text("precious")
    (folder.path / name).parent.mkdir(parents=True)
    target = outside / "step-0000009.png" if name == ".lock" else outside
    (folder.path / name).symlink_to(target)
    with pytest.raises(RunFolderError, match="symbolic link"), locked(folder):
        pass
    assert {path.read_text() for path in outside.iterdir()} == {"precious"}


def test_links_in_the_place_of_files_are_replaced(tiny_run: Path, tmp_path: Path) -> None:
    """The run folder may be a link itself."""
    run_dir, victim, missing = tmp_path / "run", tmp_path / "victim", tmp_path / "missing"
    run_dir.symlink_to(shutil.copytree(tiny_run, tmp_path / "elsewhere"))
    victim.write_text("precious")
    for name in ("real.png", "nearest.png", "best.json", "metrics.jsonl", "report.html"):
        (run_dir / name).unlink(missing_ok=True)
        (run_dir / name).symlink_to(victim)
    for name in ("last.pt", "config.json", "real.png"):  # as if a process of this number had died
        (run_dir / f".{name}.{os.getpid()}.tmp").symlink_to(missing)
    assert main(["--resume", str(run_dir), "--epochs", "13"]) == 0
    assert victim.read_text() == "precious"
    assert not missing.exists()
    assert run_dir.is_symlink()
    assert not [path for path in run_dir.rglob("*") if path.is_symlink()]
