"""Folders and archives of images as people have them."""

import io
import logging
import os
import stat
import struct
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms

from tests.support.runs import TINY
from training.config import ConfigError, DataConfig
from training.data.datasets import load_images
from training.data.images import DataError, Images
from training.train import train

SIZE = 8


def picture(value: int = 200, size: tuple[int, int] = (12, 10)) -> Image.Image:
    """An image that is bright on the left and dark on the right."""
    pixels = np.zeros((size[1], size[0]), np.uint8)
    pixels[:, : size[0] // 2] = value
    return Image.fromarray(pixels)


def load(folder: Path, **options: Any) -> Images:
    return load_images(DataConfig(str(folder), image_size=SIZE, **options))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two classes of two images."""
    for name in ("cats", "dogs"):
        (tmp_path / "pets" / name).mkdir(parents=True)
        for i in range(2):
            picture(100 + i).save(tmp_path / "pets" / name / f"{i}.png")
    return tmp_path / "pets"


def jpeg_with_exif(*entries: tuple[int, int, bytes]) -> bytes:
    """A JPEG whose left half is bright.  entries: tag, type and value."""
    offset = 8 + 2 + 12 * len(entries) + 4
    table, data = b"", b""
    for tag, kind, value in entries:
        count = len(value) if kind == 2 else 1
        if len(value) > 4:
            table += struct.pack("<HHII", tag, kind, count, offset + len(data))
            data += value
        else:
            table += struct.pack("<HHI", tag, kind, count) + value.ljust(4, b"\0")
    tiff = b"II*\0\x08\0\0\0" + struct.pack("<H", len(entries)) + table + b"\0\0\0\0" + data
    output = io.BytesIO()
    picture().save(output, "JPEG", exif=b"Exif\0\0" + tiff)
    return output.getvalue()


ROTATED = (0x0112, 3, struct.pack("<H", 6))
"""A picture to be turned right, so that its left half becomes the upper half."""


@pytest.mark.parametrize(
    "odd",
    [
        (0x011A, 2, b"72 dpi\0"),  # XResolution as text
        (0x011B, 1, b"\7"),
        (0x9286, 5, b"\0\0\0\0\0\0\0\0"),  # UserComment as 0/0
        (0x0128, 12, struct.pack("<d", float("nan"))),
    ],
)
def test_odd_tags_do_not_keep_an_image_from_being_turned_upright(
    odd: tuple[int, int, bytes], tmp_path: Path
) -> None:
    (tmp_path / "a.jpg").write_bytes(jpeg_with_exif(ROTATED, odd))
    (upright,) = load(tmp_path).pixels[:, 0].int()
    assert upright[:3].min() > 150
    assert upright[-3:].max() < 60


@pytest.mark.parametrize("turn", range(1, 9))
@pytest.mark.parametrize("ending", ["jpg", "png", "tif", "webp"])
def test_every_orientation_is_turned_upright(turn: int, ending: str, tmp_path: Path) -> None:
    pixels = np.zeros((40, 40), np.uint8)
    pixels[:20, :20], pixels[:20, 20:], pixels[20:, :20] = 250, 160, 80
    undo: dict[int, Callable[[Any], Any]] = {
        1: lambda a: a, 2: np.fliplr, 3: lambda a: np.rot90(a, 2), 4: np.flipud,
        5: lambda a: a.T, 6: np.rot90, 7: lambda a: np.rot90(a, 2).T, 8: lambda a: np.rot90(a, -1),
    }  # fmt: skip
    exif = Image.Exif()
    exif[0x0112] = turn
    stored = Image.fromarray(np.ascontiguousarray(undo[turn](pixels)))
    stored.convert("RGB").save(tmp_path / f"a.{ending}", exif=exif, quality=95)
    (upright,) = load(tmp_path).pixels[:, 0].int().numpy()
    corners = [upright[1, 1], upright[1, 6], upright[6, 1], upright[6, 6]]
    np.testing.assert_allclose(corners, [250, 160, 80, 0], atol=8)


def damaged(ending: str) -> bytes:
    output = io.BytesIO()
    picture(size=(64, 64)).convert("RGB").save(output, ending)
    content = bytearray(output.getvalue())
    content[len(content) // 3 :] = bytes(len(content) - len(content) // 3)
    return bytes(content)


BROKEN = {
    "a.png": damaged("PNG"),
    "a.avif": damaged("AVIF"),
    "a.dds": b"DDS |\0\0\0" + bytes(124),
    "a.blp": b"BLP2" + bytes(1200),
    "a.icns": b"icns\0\0\0\x10ic07\0\0\0\x08",
    "a.jp2": damaged("JPEG2000"),
    "a.qoi": b"qoif\0\0\0\x08\0\0\0\x08\3\0",
    "a.psd": b"8BPS\0\1" + bytes(40),
    "empty.gif": b"",
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_damaged_file_is_named_whatever_its_decoder_raises(
    name: str, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (folder / "dogs" / name).write_bytes(BROKEN[name])
    with pytest.raises(DataError, match=rf"^1 of 5 images .*{name} \(.+\)\. .*--skip-broken"):
        load(folder)
    images = load(folder, skip_broken=True)
    assert images.labels is not None
    assert images.labels.tolist() == [0, 0, 1, 1]
    assert f"dogs/{name}" in caplog.text
    assert "left out (--skip-broken): 1 of 5" in caplog.text


def test_a_folder_of_damaged_files_alone_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(BROKEN["a.png"])
    with pytest.raises(DataError, match=r"^1 of 1 images"):
        load(tmp_path, skip_broken=True)


def test_what_is_left_out_is_said(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "training")
    content = {
        "labels.h5": b"\x89HDF\r\n\x1a\n" + bytes(40), "wind.grib": b"GRIB" + bytes(3) + b"\2",
        "a.bufr": b"BUFR" + bytes(20), "b.wmf": bytes(80), "film.mpg": b"\0\0\1\xba" + bytes(20),
        "README": b"", "one.heic": b"x", "two.HEIC": b"x", ".DS_Store": b"x",
    }  # fmt: skip
    for name, data in content.items():
        (folder / "cats" / name).write_bytes(data)
    (folder / "cats" / "gone.png").symlink_to(folder / "nowhere.png")
    os.mkfifo(folder / "cats" / "pipe.png")
    assert len(load(folder)) == 4
    assert (
        "10 files left out: .heic (2), no ending (1), .bufr (1), .wmf (1), .mpg (1), "
        "links to nothing (1), .h5 (1), no regular files (1), .grib (1)"
    ) in caplog.text


def test_links_are_followed_but_not_in_circles(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "training")
    linked = tmp_path / "linked"
    linked.mkdir()
    for name in ("cats", "dogs"):
        (linked / name).symlink_to(folder / name)
    assert load(linked).classes == ("cats", "dogs")
    (linked / "birds").mkdir()
    picture().save(linked / "birds" / "0.png")
    (linked / "birds" / "again").symlink_to(linked)
    images = load(linked)
    assert images.classes == ("birds", "cats", "dogs")
    assert len(images) == 5
    assert "links to a folder that holds them (1)" in caplog.text


def test_what_may_not_be_read_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scan = os.scandir

    def refuse(path: Any) -> Any:
        if Path(path).name == "dogs":
            raise PermissionError(13, "Permission denied")
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(DataError, match=r"dogs cannot be read \(Permission denied\)"):
        load(folder)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_named(folder: Path) -> None:
    (folder / "dogs" / "0.png").chmod(stat.S_IWUSR)
    with pytest.raises(DataError, match=r"dogs/0\.png \(.*Permission denied"):
        load(folder)


def test_what_costs_all_labels_is_named(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    picture().save(folder / "stray.png")
    assert load(folder).labels is None
    assert "stray.png lies beside the subfolders: move it into one of them" in caplog.text
    (folder / "stray.png").unlink()
    caplog.clear()
    assert load(folder.parent).labels is None
    assert f"--dataset {folder} takes its 2 subfolders as classes" in caplog.text


def deep(folder: Path, most: int) -> None:
    folder.mkdir(exist_ok=True)
    for i in range(3):
        values = np.full((10, 10), most // 2 + i, np.uint16)
        values[:, 5:] = most
        values[0, 0] = 40
        Image.fromarray(values).save(folder / f"{i}.png")


def test_images_that_use_little_of_16_bits_are_dark_and_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    deep(tmp_path / "xray", 3000)
    assert load(tmp_path / "xray").pixels.max() == round(3000 / 65535 * 255)
    assert "is 3000 of 65535, so they are nearly black: use --levels auto" in caplog.text
    assert "--levels 40 3000" in caplog.text
    caplog.clear()
    spread = load(tmp_path / "xray", levels="auto").pixels
    assert spread.max() == 255
    assert int(spread[0, 0, 4, 1]) == round((1500 - 40) / (3000 - 40) * 255)
    assert load(tmp_path / "xray", levels=(0, 6000)).pixels.max() == 128
    deep(tmp_path / "whole", 65_000)
    assert load(tmp_path / "whole").pixels.max() == round(65000 / 257)
    assert not [record for record in caplog.records if record.levelname == "WARNING"]


def test_levels_below_zero_and_fractions_are_read_where_black_and_white_are_named(
    tmp_path: Path,
) -> None:
    hounsfield = np.full((10, 10), -1000, np.int16)
    hounsfield[:, 5:] = 1000
    Image.fromarray(hounsfield.astype(np.int32)).save(tmp_path / "ct.tif")
    with pytest.raises(DataError, match=r"levels go from -1000 to 1000: .*--levels LOW HIGH"):
        load(tmp_path)
    pixels = load(tmp_path, levels=(-1000.0, 1000.0)).pixels
    assert (int(pixels.min()), int(pixels.max())) == (0, 255)
    fractions = np.linspace(0, 1, 100, dtype=np.float32).reshape(10, 10)
    Image.fromarray(fractions).save(tmp_path / "ct.tif")
    assert load(tmp_path, levels="auto").pixels.max() > 200
    with pytest.raises(ConfigError, match=r"--levels: 9 must be below 3"):
        DataConfig(levels=(9, 3))


def test_lab_is_read(tmp_path: Path) -> None:
    red = Image.new("RGB", (10, 10), (200, 30, 40))
    srgb, cielab = (ImageCms.createProfile(name) for name in ("sRGB", "LAB"))
    lab = ImageCms.profileToProfile(red, srgb, cielab, outputMode="LAB")
    assert lab is not None
    lab.save(tmp_path / "a.tif")
    pixels = load(tmp_path, channels=3).pixels[0, :, 4, 4].int().tolist()
    np.testing.assert_allclose(pixels, (200, 30, 40), atol=4)


def test_huge_images_are_refused_or_allowed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    picture().save(tmp_path / "a.png")  # 120 pixels: Pillow warns
    picture(size=(40, 40)).save(tmp_path / "b.png")  # Pillow refuses
    with pytest.raises(DataError, match=r"^2 of 2 .*more than 100 pixels: .*--large-images"):
        load(tmp_path)
    assert len(load(tmp_path, large_images=True)) == 2
    assert Image.MAX_IMAGE_PIXELS == 100
    assert not recwarn.list


def test_an_archive_is_a_folder(folder: Path, tmp_path: Path) -> None:
    archive = tmp_path / "pets.zip"
    with zipfile.ZipFile(archive, "w") as packed:
        for path in folder.rglob("*.png"):
            packed.write(path, path.relative_to(folder))
        packed.writestr("__MACOSX/cats/._0.png", b"x")
        packed.writestr("cats/notes.txt", b"x")
    inside, unpacked = load(archive), load(folder)
    assert inside.classes == unpacked.classes == ("cats", "dogs")
    assert inside.sha256() == unpacked.sha256()
    content = bytearray(archive.read_bytes())
    content[60] ^= 1  # in the first image
    archive.write_bytes(content)
    with pytest.raises(DataError, match=r"^1 of 4 .*pets\.zip/cats/"):
        load(archive)
    archive.write_bytes(content[:200])
    with pytest.raises(ConfigError, match="neither a folder, nor a zip archive"):
        load(archive)


def test_names_that_are_not_utf8_are_refused(folder: Path) -> None:
    odd = os.fsencode(folder) + b"/caf\xe9"
    (folder / "cats").rename(os.fsdecode(odd))
    with pytest.raises(DataError, match=r"b'caf\\xe9/0.png' .* is not UTF-8: rename it"):
        load(folder)


@pytest.mark.parametrize("different", [0, 1])
def test_images_that_are_all_alike_are_refused_before_anything_is_written(
    different: int, tmp_path: Path
) -> None:
    (tmp_path / "alike").mkdir()
    for i in range(40):
        picture(90 if i < different else 200).save(tmp_path / "alike" / f"{i:02}.png")
    data = replace(TINY.data, dataset=str(tmp_path / "alike"), data_dir=tmp_path / "data")
    config = replace(TINY, data=data, recipe=replace(TINY.recipe, batch_size=8), epochs=1)
    with pytest.raises(DataError, match=r"20 of 40 images are all alike"):
        train(config, tmp_path / "run")
    assert {path.name for path in (tmp_path / "run").iterdir()} <= {".lock"}


def test_an_archive_is_opened_once(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To open it reads its list: once for each of 20,000 images would take an hour."""
    archive, opened = tmp_path / "pets.zip", []
    with zipfile.ZipFile(archive, "w") as packed:
        for path in folder.rglob("*.png"):
            packed.write(path, path.relative_to(folder))

    class Counted(zipfile.ZipFile):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            opened.append(arguments)
            super().__init__(*arguments, **options)

    monkeypatch.setattr(zipfile, "ZipFile", Counted)
    assert len(load(archive)) == 4
    assert len(opened) == 1
