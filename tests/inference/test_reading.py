"""Reading files of unknown origin, and showing their text."""

import os
import pickle
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from inference import ArtifactError, Sampler
from inference.errors import presentable
from inference.writing.plain_file import read_plain


def test_a_plain_file_is_read_up_to_its_limit(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"12345")
    assert read_plain(file, 5) == b"12345"
    assert read_plain(str(file), 6) == b"12345"
    with pytest.raises(OSError, match="5 bytes are absurd: at most 4 are read"):
        read_plain(file, 4)


def test_a_file_that_says_it_is_empty_is_read_up_to_its_limit_too() -> None:
    """A file that reports size 0, like those below /proc, or that grows while it is read."""
    file = Path("/proc/self/maps")
    if not file.exists():
        pytest.skip("no /proc")
    with pytest.raises(OSError, match="11 bytes are absurd"):
        read_plain(file, 10)


def a_pipe(folder: Path) -> Path:
    os.mkfifo(folder / "pipe")  # reading would wait for a writer
    return folder / "pipe"


def a_loop(folder: Path) -> Path:
    (folder / "loop").symlink_to(folder / "loop")
    return folder / "loop"


def not_entered(folder: Path) -> Path:
    """A file in a folder that only root may enter."""
    inner = folder / "closed"
    inner.mkdir()
    inner.chmod(0)
    if os.access(inner, os.X_OK):
        return folder / ("n" * 300)
    return inner / "generator.onnx"


PATHS: list[tuple[Callable[[Path], Path], str]] = [
    (lambda folder: folder, "No such file"),  # it holds no generator.onnx
    (lambda folder: folder / "none", "No such file"),
    (lambda folder: folder / ("n" * 300), "too long"),
    (lambda folder: folder / ("n/" * 4000), "too long"),
    (lambda folder: folder / "a\0b", "its path is impossible"),
    (lambda folder: folder / "\ud800", "its path is impossible"),
    (lambda folder: Path("/dev/zero"), "no plain file"),
    (lambda folder: Path("/dev/stdin") if os.isatty(0) else Path("/dev/null"), "no plain file"),
    (a_pipe, "no plain file"),
    (a_loop, "symbolic links"),
    (not_entered, "Permission denied|too long"),
]


@pytest.mark.skipif(sys.platform != "linux", reason="has no such files")
@pytest.mark.parametrize(("make", "complaint"), PATHS)
def test_a_path_that_leads_to_no_file_is_an_artifact_error(
    make: Callable[[Path], Path], complaint: str, tmp_path: Path
) -> None:
    path = make(tmp_path)
    with pytest.raises(ArtifactError, match=complaint) as raised:
        Sampler(path)
    assert len(str(raised.value)) <= 1000
    assert str(raised.value).isprintable()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("as it is: 猫 “…”  é", "as it is: 猫 “…”  é"),
        ("two\nlines\r\n\tand more", "two lines and more"),
        ("\x1b[31mred\x07\0", "\\x1b[31mred\\x07\\x00"),
        ("left\u202eright", "left\\u202eright"),
        ("half \ud800", "half \\ud800"),
    ],
)
def test_foreign_text_is_shown_in_one_line_of_printable_characters(text: str, shown: str) -> None:
    assert presentable(text) == shown
    assert presentable(shown) == shown


@pytest.mark.parametrize("character", ["x", "\0", "\U000e0001", " ", "\n", "猫"])
def test_a_message_has_a_bounded_length(character: str) -> None:
    error = ArtifactError("begins" + character * 1_000_000 + "and ends")
    text = str(error)
    assert len(text) <= 1000
    assert text.startswith("begins")
    assert text.endswith("and ends")
    assert str(ArtifactError(text)) == text
    assert str(pickle.loads(pickle.dumps(error))) == text
