"""Data sets and batches, and the errors if there are none."""

import gzip
import hashlib
import struct
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import datasets

from training.config import DataConfig
from training.data.batches import Batches
from training.data.datasets import load_images
from training.data.images import DataError, Images
from training.run import main


def test_digits_need_no_files() -> None:
    images = load_images(DataConfig(dataset="digits"))
    assert images.pixels.shape == (1797, 1, 28, 28)
    assert images.pixels.dtype == torch.uint8
    assert (int(images.pixels.amin()), int(images.pixels.amax())) == (0, 255)
    assert images.labels is not None
    assert torch.bincount(images.labels).tolist()[:4] == [178, 182, 177, 183]
    assert images.classes == tuple("0123456789")
    small = load_images(DataConfig(dataset="digits", image_size=8, channels=3))
    assert small.pixels.shape == (1797, 3, 8, 8)
    assert (small.pixels[:, 0] == small.pixels[:, 2]).all()
    assert small.sha256() != images.sha256()


# --- a folder of images ---


def write_image(path: Path, value: int | tuple[int, ...], size: tuple[int, int] = (10, 20)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB" if isinstance(value, tuple) else "L", size, value).save(path)


def test_a_folder_with_subfolders_has_labels(tmp_path: Path) -> None:
    write_image(tmp_path / "cat" / "1.png", 10)
    write_image(tmp_path / "cat" / "deep" / "2.bmp", 20)
    write_image(tmp_path / "ant" / "3.gif", 30)
    (tmp_path / "notes.txt").write_text("no image")
    images = load_images(DataConfig(dataset=str(tmp_path), image_size=6))
    assert images.pixels.shape == (3, 1, 6, 6)
    assert images.pixels[:, 0, 3, 3].tolist() == [30, 10, 20]
    assert images.classes == ("ant", "cat")
    assert images.labels is not None
    assert images.labels.tolist() == [0, 1, 1]


def test_a_flat_folder_has_none(tmp_path: Path) -> None:
    write_image(tmp_path / "1.png", 10)
    write_image(tmp_path / "more" / "2.png", 20)
    images = load_images(DataConfig(dataset=str(tmp_path)))
    assert images.labels is None
    assert images.classes == ()


def test_colour_is_kept_or_made_grey_as_asked(tmp_path: Path) -> None:
    write_image(tmp_path / "1.png", (250, 100, 20))
    colour = load_images(DataConfig(dataset=str(tmp_path), channels=3))
    assert colour.pixels[0, :, 14, 14].tolist() == [250, 100, 20]
    grey = load_images(DataConfig(dataset=str(tmp_path)))
    assert grey.pixels[0, :, 14, 14].tolist() == [136]  # 0.299 R + 0.587 G + 0.114 B


def test_colours_that_are_dropped_are_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "training")
    write_image(tmp_path / "a" / "1.png", 10)
    write_image(tmp_path / "b" / "2.png", 20)
    load_images(DataConfig(dataset=str(tmp_path)))
    assert "2 images of 2 classes, as its subfolders say: a, b" in caplog.text
    assert "--channels" not in caplog.text
    write_image(tmp_path / "3.png", (250, 100, 20))
    load_images(DataConfig(dataset=str(tmp_path)))
    assert "3 images without labels (1 lie beside the subfolders)" in caplog.text
    assert "colours are dropped (--channels 1): --channels 3 keeps them" in caplog.text


def test_what_is_transparent_becomes_white(tmp_path: Path) -> None:
    half = Image.new("RGBA", (10, 10), (0, 0, 0, 0))
    half.paste((250, 100, 20, 255), (0, 5, 10, 10))
    half.save(tmp_path / "1.png")
    half.convert("LA").save(tmp_path / "2.png")
    half.quantize(4).save(tmp_path / "3.png")  # a palette with transparent entries
    half.convert("RGB").save(tmp_path / "4.png", transparency=(0, 0, 0))
    images = load_images(DataConfig(dataset=str(tmp_path), image_size=10, channels=3)).pixels
    assert (images[:, :, :4] == 255).all()
    assert images[:, :, 7, 5].tolist() == [
        [250, 100, 20],
        [136] * 3,
        [250, 100, 20],
        [250, 100, 20],
    ]


def test_sixteen_bits_are_scaled_and_thirty_two_refused(tmp_path: Path) -> None:
    levels = (np.arange(0, 256, 16) * 257).astype(np.uint16).repeat(16).reshape(16, 16)
    Image.fromarray(levels).save(tmp_path / "1.png")
    images = load_images(DataConfig(dataset=str(tmp_path), image_size=16))
    assert images.pixels[0, 0, :, 5].tolist() == list(range(0, 256, 16))
    Image.fromarray(levels.astype(np.float32)).save(tmp_path / "2.tif")
    with pytest.raises(DataError, match=r"2\.tif \(its levels go from 0 to 61680: "):
        load_images(DataConfig(dataset=str(tmp_path)))


def test_hidden_files_are_left_out_and_one_subfolder_is_no_label(tmp_path: Path) -> None:
    write_image(tmp_path / "all" / "1.png", 10)
    for name in ("all/._1.png", "__MACOSX/._1.png", ".thumbnails/1.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"no image")
    images = load_images(DataConfig(dataset=str(tmp_path)))
    assert len(images) == 1
    assert images.labels is None


def test_large_jpeg_files_are_read_small_and_alike(tmp_path: Path) -> None:
    """JPEG is decoded at a lower resolution, which is faster."""
    ramp = np.linspace(0, 255, 512).astype(np.uint8)
    picture = np.stack([np.tile(ramp, (512, 1)), np.tile(ramp[:, None], (1, 512)),
                        np.full((512, 512), 80, np.uint8)], axis=2)  # fmt: skip
    Image.fromarray(picture).save(tmp_path / "1.png")
    Image.fromarray(picture).save(tmp_path / "2.jpg", quality=95)
    images = load_images(DataConfig(dataset=str(tmp_path), image_size=16, channels=3))
    exact, decoded = images.pixels.int()
    assert (exact - decoded).abs().max() <= 4


def test_images_are_cropped_not_squeezed(tmp_path: Path) -> None:
    """A wide picture keeps its proportions; its sides are cut off."""
    picture = np.zeros((10, 30), np.uint8)
    picture[:, 10:20] = 200
    Image.fromarray(picture).save(tmp_path / "1.png")
    images = load_images(DataConfig(dataset=str(tmp_path), image_size=10))
    assert (images.pixels == 200).all()


def test_unreadable_images_are_named_and_counted(tmp_path: Path) -> None:
    for i in range(8):
        write_image(tmp_path / f"good{i}.png", 10)
        (tmp_path / f"bad{i}.png").write_bytes(b"no image")
    good = (tmp_path / "good0.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(good[: len(good) // 2])
    with pytest.raises(DataError, match=r"9 of 17 images .*bad0\.png.*; …"):
        load_images(DataConfig(dataset=str(tmp_path)))


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no images"):
        load_images(DataConfig(dataset=str(tmp_path)))


# --- torchvision's data sets ---


def idx(array: np.ndarray) -> bytes:
    """The IDX format of MNIST."""
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


@pytest.fixture
def fake_mnist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data folder with ten images that torchvision accepts as MNIST; gives its raw folder."""
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    pixels = np.random.default_rng(0).integers(0, 256, (10, 28, 28), np.uint8)
    labels = np.arange(10, dtype=np.uint8)
    resources = []
    for part in ("train", "t10k"):
        for kind, array in (("images-idx3", pixels), ("labels-idx1", labels)):
            content = gzip.compress(idx(array))
            (raw / f"{part}-{kind}-ubyte.gz").write_bytes(content)
            md5 = hashlib.md5(content, usedforsecurity=False).hexdigest()
            resources.append((f"{part}-{kind}-ubyte.gz", md5))
    monkeypatch.setattr(datasets.MNIST, "resources", resources)
    monkeypatch.setattr(datasets.MNIST, "mirrors", ["http://127.0.0.1:9/"])  # no server answers
    return raw


def load_mnist(raw: Path) -> Images:
    return load_images(DataConfig(dataset="mnist", data_dir=raw.parents[1]))


def test_torchvision_data_is_unpacked_and_read(fake_mnist: Path) -> None:
    images = load_mnist(fake_mnist)
    assert images.pixels.shape == (10, 1, 28, 28)
    assert images.labels is not None
    assert images.labels.tolist() == list(range(10))
    assert load_mnist(fake_mnist).sha256() == images.sha256()  # again, with unpacked files


def test_packed_files_in_a_folder_that_cannot_be_written_are_read(fake_mnist: Path) -> None:
    unpacked = fake_mnist / "train-images-idx3-ubyte"
    unpacked.symlink_to(fake_mnist / "no such folder" / "file")
    assert len(load_mnist(fake_mnist)) == 10
    assert not unpacked.exists()


def test_a_run_waits_while_another_one_unpacks(
    fake_mnist: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def slow(url: str, download_root: str, filename: str, md5: str) -> None:
        packed = Path(download_root, filename)
        content = gzip.decompress(packed.read_bytes())
        with packed.with_suffix("").open("wb") as file:
            file.write(content[:-5])
            file.flush()
            if not others:
                others.append(pool.submit(load_mnist, fake_mnist))
                time.sleep(0.3)
            file.write(content[-5:])

    others: list[Future[Images]] = []
    monkeypatch.setattr(datasets.mnist, "download_and_extract_archive", slow)
    caplog.set_level("INFO")
    with ThreadPoolExecutor(1) as pool:
        first = load_mnist(fake_mnist)
        assert others[0].result().sha256() == first.sha256()
    assert f"waiting for another run, which loads {fake_mnist}" in caplog.text


def test_a_folder_that_cannot_take_a_download_is_said(fake_mnist: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    message = r"\(\[Errno 20\] Not a directory: .*Name a folder that can be written with --data-dir"
    with pytest.raises(DataError, match=message):
        load_images(DataConfig(dataset="mnist", data_dir=tmp_path / "file"))


def test_a_truncated_download_is_named(fake_mnist: Path) -> None:
    file = fake_mnist / "train-images-idx3-ubyte.gz"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(DataError, match=r"train-images-idx3-ubyte\.gz is truncated or changed"):
        load_mnist(fake_mnist)


@pytest.mark.parametrize("change", ["truncated", "tampered"])
def test_a_changed_unpacked_file_is_named(fake_mnist: Path, change: str) -> None:
    load_mnist(fake_mnist)
    file = fake_mnist / "train-images-idx3-ubyte"
    content = file.read_bytes()
    file.write_bytes(content[:-1] if change == "truncated" else content[:-1] + b"\x00")
    with pytest.raises(DataError, match=r"train-images-idx3-ubyte is truncated or changed"):
        load_mnist(fake_mnist)


def test_no_data_and_no_network_says_what_to_do(
    fake_mnist: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    empty = tmp_path / "empty"
    assert main(["--dataset", "mnist", "--data-dir", str(empty)]) == 1
    error = capsys.readouterr().err
    for part in (f"--data-dir {empty}", "train-images-idx3-ubyte.gz", "--dataset digits"):
        assert part in error


# --- batches ---


def numbered(count: int) -> Images:
    """Images of one pixel, all different."""
    return Images(torch.arange(count, dtype=torch.uint8).view(-1, 1, 1, 1), None, ())


def numbers(batch: torch.Tensor) -> list[int]:
    return [round((x + 1) * 127.5) for x in batch.flatten().tolist()]


@pytest.mark.parametrize(("count", "batch_size"), [(10, 3), (10, 10), (7, 4), (12, 4)])
def test_every_epoch_sees_every_image_once(count: int, batch_size: int) -> None:
    batches = Batches(numbered(count), batch_size, seed=1)
    drawn = [n for step in range(3 * count) for n in numbers(batches[step])]
    epochs = [drawn[i * count : (i + 1) * count] for i in range(3)]
    assert all(sorted(epoch) == list(range(count)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]


def test_batches_are_full_normalised_and_a_function_of_seed_and_step() -> None:
    batches = Batches(numbered(10), 4, seed=1)
    forward = [batches[step] for step in range(9)]
    again = Batches(numbered(10), 4, seed=1)
    for step in (8, 2, 5):  # in any order, as a resumed run starts in the middle
        torch.testing.assert_close(again[step], forward[step], rtol=0, atol=0)
    assert all(batch.shape == (4, 1, 1, 1) for batch in forward)
    assert not torch.equal(forward[0], Batches(numbered(10), 4, seed=2)[0])
    black_and_white = torch.tensor([0, 255], dtype=torch.uint8).view(2, 1, 1, 1)
    ends = Batches(Images(black_and_white, None, ()), 2, seed=0)[0]
    assert sorted(ends.flatten().tolist()) == [-1.0, 1.0]


def test_an_epoch_ends_at_the_first_step_that_has_seen_its_images() -> None:
    batches = Batches(numbered(10), 4, seed=0)
    assert [batches.epoch_end(epoch) for epoch in (1, 2, 3)] == [3, 5, 8]
    assert [batches.epochs(step) for step in range(9)] == [0, 0, 0, 1, 1, 2, 2, 2, 3]
    mnist = Batches(Images(torch.zeros(60_000, 1, 1, 1, dtype=torch.uint8), None, ()), 64, 0)
    assert mnist.epoch_end(200) == 187_500


def test_fewer_images_than_a_batch_are_refused() -> None:
    with pytest.raises(DataError, match="3 images are fewer than one batch of 4"):
        Batches(numbered(3), 4, seed=0)
