"""The help of all commands: its text, and how quickly it appears."""

import os
import re
import resource
import subprocess
import sys

import pytest

from tests.support.files import ROOT

COMMANDS = ("training.run", "training.report", "training.compare", "export.run", "export.score")


def help_of(module: str) -> str:
    return subprocess.run(
        [sys.executable, "-m", module, "--help"],
        check=True,
        capture_output=True,
        encoding="utf-8",
        cwd=ROOT,
        env={**os.environ, "COLUMNS": "80", "PYTHONUTF8": "1"},
    ).stdout


@pytest.mark.parametrize("module", COMMANDS)
def test_help_begins_with_an_example_and_names_every_default(module: str) -> None:
    text = help_of(module)
    top, *groups = text.split("╭─ ")
    assert f"\npython -m {module}" in top
    assert groups
    options = re.split(r"\n│ (?=-|[A-Z]{3})", text)[1:]
    assert len(options) >= 2
    for option in map(unframed, options):
        assert "(default: " in option or "(required)" in option or option.startswith("-h"), option
        assert len(option.split("(")[0]) > 20, option  # the help says what the option is


def test_the_help_of_the_sampler_has_examples_groups_and_each_default_once() -> None:
    text = help_of("inference.run")
    top, *groups = re.split(
        r"\n(?=which images:|where to:|how it runs:|ONNX files|about the artifact:)", text
    )
    assert len(re.findall(r"^python -m inference\.run \S+/artifact -n ", top, re.MULTILINE)) == 2
    assert [group.partition(":")[0] for group in groups] == [
        "which images", "where to", "how it runs", "ONNX files of other programs",
        "about the artifact",
    ]  # fmt: skip
    assert not re.search(r"default: (None|False)", text)
    options = re.split(r"\n  (?=-|[A-Z]{3})", text)[1:]
    assert len(options) == 26
    assert max(option.count("(default: ") for option in options) == 1
    (start,) = [" ".join(o.split()) for o in options if o.startswith("--start")]
    assert start.startswith("--start N index of the first image, 0 to 2^63 - COUNT")


def test_settings_are_in_groups_and_in_units() -> None:
    text = help_of("training.run")
    groups = {group.split(" ─")[0]: unframed(group) for group in text.split("╭─ ")[1:]}
    assert list(groups) == ["options", "data options", "network options", "recipe options"]
    assert (
        "--latent-dim INT Length of the noise vector z. (default: 100)" in groups["network options"]
    )
    assert "pixels" in groups["data options"]
    assert "(default: runs/DATASET-DATE-TIME)" in groups["options"]
    # A paragraph is wrapped again: its lines do not end where those of the source do.
    assert (
        "a folder or a zip archive of images, whose subfolders are the classes."
        in groups["data options"]
    )
    broken = [line for line in text.splitlines() if re.fullmatch(r"│ {23}\S.{1,30}[a-z,] +│", line)]
    assert broken == []


@pytest.mark.parametrize(("module", "seconds"), [("training.run", 1.5), ("inference.run", 0.3)])
def test_help_comes_at_once(module: str, seconds: float) -> None:
    """Measured in processor time, which does not depend on other programs."""
    taken = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        command = [sys.executable, "-m", module, "--help"]
        subprocess.run(command, check=True, capture_output=True, cwd=ROOT)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        taken.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(taken) < seconds


def unframed(text: str) -> str:
    """The text in a box, without its frame."""
    return " ".join(re.sub(r"[│╭╮╰╯─]", " ", text).split())
