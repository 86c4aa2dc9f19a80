"""`save` and the writers: the name chooses the format, and a file is complete or absent."""

import sys
import tracemalloc
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from inference import save
from inference.writing.outputs import Job, Writer, writer_for
from inference.writing.pictures import grid


@pytest.fixture
def images() -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (7, 5, 6), np.uint8)


@pytest.mark.parametrize("colour", [(), (3,)])
def test_every_kind_gives_back_the_images(tmp_path: Path, colour: tuple[int, ...]) -> None:
    images = np.random.default_rng(0).integers(0, 256, (7, 5, 6, *colour), np.uint8)
    for name in ("a.png", "a.npy", "a.npz", "folder"):
        save(images, tmp_path / name, seed=4, start=2**40)
    with Image.open(tmp_path / "a.png") as picture:
        np.testing.assert_array_equal(np.asarray(picture), grid(images))
    np.testing.assert_array_equal(np.load(tmp_path / "a.npy"), images)
    with np.load(tmp_path / "a.npz") as arrays:
        assert {name: arrays[name].tolist() for name in ("seed", "start")} == {
            "seed": 4,
            "start": 2**40,
        }
        np.testing.assert_array_equal(arrays["images"], images)
    for i, image in enumerate(images):
        with Image.open(tmp_path / "folder" / f"{2**40 + i}.png") as picture:
            np.testing.assert_array_equal(np.asarray(picture), image)
    save(images, tmp_path / "folder", start=8)
    assert (tmp_path / "folder" / "0000000014.png").exists()  # ten digits


@pytest.mark.parametrize("name", ["a.gif", "a.webp"])
def test_an_animation_is_a_loop_of_the_images(
    tmp_path: Path, images: NDArray[np.uint8], name: str
) -> None:
    save(images, tmp_path / name, scale=3, fps=10)
    with Image.open(tmp_path / name) as animation:
        assert getattr(animation, "n_frames") == 7  # noqa: B009
        assert animation.info["loop"] == 0
        for i, image in enumerate(images):
            animation.seek(i)
            frame = np.asarray(animation.convert("L"))
            assert animation.info["duration"] == 100
            np.testing.assert_array_equal(frame, image.repeat(3, 0).repeat(3, 1))


def test_equal_images_give_equal_files(tmp_path: Path, images: NDArray[np.uint8]) -> None:
    for name in ("a.npz", "b.npz"):
        save(images, tmp_path / name)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


@pytest.mark.parametrize("name", ["a.png", "a.npy", "a.npz", "a.gif", "folder"])
def test_what_is_there_is_not_written_over_unless_forced(
    tmp_path: Path, images: NDArray[np.uint8], name: str
) -> None:
    save(images, tmp_path / name, start=3)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(FileExistsError, match="force"):
        save(255 - images, tmp_path / name, start=3)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    save(255 - images, tmp_path / name, start=3, force=True)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} != before


def test_a_folder_takes_other_images_beside_its_own(
    tmp_path: Path, images: NDArray[np.uint8]
) -> None:
    save(images, tmp_path)
    with pytest.raises(FileExistsError, match="holds 1 of these images already, 6 to 6"):
        save(images, tmp_path, start=6)
    save(images, tmp_path, start=7)
    assert len(list(tmp_path.iterdir())) == 14


@pytest.mark.parametrize(
    ("images", "name", "complaint"),
    [
        (np.zeros((2, 5, 5)), "a.npy", r"got float64 \(2, 5, 5\)"),
        (np.zeros((5, 5), np.uint8), "a.npy", r"got uint8 \(5, 5\)"),
        (np.zeros((1, 5, 5, 2), np.uint8), "a.npy", r"\(1, 5, 5, 2\)"),
        (np.zeros((1, 5, 5), np.uint8), "a.tif", r"\.jpg, \.npy or \.npz file, a folder.*a\.tif"),
        (np.zeros((0, 5, 5), np.uint8), "a.png", "got 0"),
        (np.zeros((0, 5, 5), np.uint8), "a.gif", "got 0"),
    ],
)
def test_what_cannot_be_saved_is_told(
    tmp_path: Path, images: Any, name: str, complaint: str
) -> None:
    with pytest.raises(ValueError, match=complaint):
        save(images, tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def begin(writer: Writer, images: NDArray[np.uint8], error: BaseException) -> None:
    with suppress(type(error)), writer:
        writer.write(images)
        writer.write(images)
        raise error


JOB = Job(count=10**6, image_shape=(5, 6), start=3)


@pytest.mark.parametrize("name", ["a.png", "a.npy", "a.npz"])
def test_an_error_leaves_no_file(tmp_path: Path, images: NDArray[np.uint8], name: str) -> None:
    begin(writer_for(tmp_path / name, JOB), images, RuntimeError())
    assert list(tmp_path.iterdir()) == []


def test_an_interrupt_leaves_whole_files(tmp_path: Path, images: NDArray[np.uint8]) -> None:
    twice = np.concatenate([images, images])
    for name in ("a.npy", "a.npz", "folder", "a.png"):
        writer = writer_for(tmp_path / name, JOB)
        begin(writer, images, KeyboardInterrupt())
        assert writer.done == (0 if name == "a.png" else 14)
    np.testing.assert_array_equal(np.load(tmp_path / "a.npy"), twice)
    with np.load(tmp_path / "a.npz") as arrays:
        np.testing.assert_array_equal(arrays["images"], twice)
    assert len(list((tmp_path / "folder").iterdir())) == 14
    assert {path.name for path in tmp_path.iterdir()} == {"a.npy", "a.npz", "folder"}


def test_half_a_batch_is_no_part_of_the_file(tmp_path: Path, images: NDArray[np.uint8]) -> None:
    writer = writer_for(tmp_path / "a.npy", JOB)
    with suppress(KeyboardInterrupt), writer:
        writer.write(images)
        writer._file.write(b"half a batch")  # type: ignore[attr-defined]
        raise KeyboardInterrupt
    np.testing.assert_array_equal(np.load(tmp_path / "a.npy"), images)


def test_a_million_images_pass_through_little_memory(tmp_path: Path) -> None:
    batch = np.zeros((10_000, 4, 4), np.uint8)
    tracemalloc.start()
    with writer_for(tmp_path / "a.npy", Job(10**6, (4, 4))) as writer:
        for _ in range(100):
            writer.write(batch)
    assert tracemalloc.get_traced_memory()[1] < 10**6  # of 16 MB
    tracemalloc.stop()
    assert np.load(tmp_path / "a.npy", mmap_mode="r").shape == (10**6, 4, 4)


def test_a_pipe_gets_the_bytes(
    images: NDArray[np.uint8], capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    sys.stdout.flush()
    save(images, "-")
    assert capfdbinary.readouterr().out == images.tobytes()
