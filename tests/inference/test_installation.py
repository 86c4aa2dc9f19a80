"""The commands in messages install this ganpack, and no other package of the same name."""

import json
from importlib import metadata
from types import SimpleNamespace
from typing import Any

import pytest

from inference.runtime import installation
from tests.support.files import ROOT

WHEEL = "file:///home/my%20wheels/ganpack-0.1.0-py3-none-any.whl"


@pytest.mark.parametrize(
    ("origin", "expected"),
    [
        (
            {"url": "file:///home/me/ganpack", "dir_info": {"editable": True}},
            "pip install -e '/home/me/ganpack[gpu]'",
        ),
        (
            {"url": "file:///home/me/ganpack", "dir_info": {}},
            "pip install '/home/me/ganpack[gpu]'",
        ),
        (
            {"url": WHEEL, "archive_info": {}},
            "pip install '/home/my wheels/ganpack-0.1.0-py3-none-any.whl[gpu]'",
        ),
        (
            {"url": "https://example.org/ganpack-0.1.0-py3-none-any.whl", "archive_info": {}},
            "pip install 'ganpack[gpu] @ https://example.org/ganpack-0.1.0-py3-none-any.whl'",
        ),
        (
            {"url": "https://example.org/g.git", "vcs_info": {"vcs": "git", "commit_id": "a1b2"}},
            "pip install 'ganpack[gpu] @ git+https://example.org/g.git@a1b2'",
        ),
        (None, "pip install 'ganpack-0.1.0-py3-none-any.whl[gpu]'"),
    ],
)
def test_the_command_names_what_was_installed(
    origin: dict[str, Any] | None, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = None if origin is None else json.dumps(origin)
    found = SimpleNamespace(version="0.1.0", read_text=lambda name: text)
    monkeypatch.setattr(metadata, "distribution", lambda name: found)
    assert installation.command("gpu") == expected


def test_a_checkout_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> Any:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "distribution", missing)
    assert installation.command("cpu") == f"pip install -e '{ROOT}[cpu]'"


def test_no_text_names_ganpack_as_if_it_were_on_the_index() -> None:
    names = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]
    for folder in ("training", "export", "inference", "examples", "scripts", "notebooks"):
        names += [path for path in (ROOT / folder).rglob("*") if path.suffix in {".py", ".md"}]
    for path in names:
        for line in path.read_text("utf-8").splitlines():
            assert "pip install ganpack" not in line, path
            assert "pip install 'ganpack[" not in line or " @ " in line, path
