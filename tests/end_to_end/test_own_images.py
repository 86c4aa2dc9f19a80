"""A folder of colour images, from training to every place that shows images."""

import base64
import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray
from PIL import EpsImagePlugin, Image

from export import score
from inference import Sampler
from inference.run import main as draw
from inference.writing.pictures import grid
from scripts.tint import write_tinted
from tests.support.own_images import COLOURS
from training.compare import main as compare
from training.config import DataConfig
from training.data.datasets import load_images
from training.data.images import DataError, Images
from training.pages.report import write_report
from training.run_folder.config_file import read_config


@pytest.fixture(scope="module")
def images(colour_run: Path) -> Images:
    return load_images(read_config(colour_run).data)


@pytest.fixture(scope="module")
def sampler(colour_artifact: Path) -> Sampler:
    return Sampler(colour_artifact, provider="cpu")


def picture(file: Path | io.BytesIO) -> NDArray[np.uint8]:
    with Image.open(file) as image:
        assert image.mode == "RGB"
        return np.asarray(image)


def require_near(drawn: NDArray[np.uint8], expected: NDArray[np.uint8]) -> None:
    """PyTorch and onnxruntime may round by one level differently."""
    assert drawn.shape == expected.shape
    assert np.abs(drawn.astype(int) - expected).max() <= 1


def test_any_format_size_and_turn_is_the_same_image(images: Images) -> None:
    assert images.pixels.shape == (36, 3, 32, 32)
    assert images.classes == ("leaf", "stone")
    assert images.labels is not None
    assert images.labels.tolist() == [0] * 18 + [1] * 18
    for label, colour in enumerate(COLOURS.values()):
        for upright in images.pixels[images.labels == label].numpy().astype(int):
            # Blue is too dark: JPEG changes its shades too much.
            for half, part in ((upright[:, 4:14, 14:18], 1), (upright[:, 20:28, 14:18], 3)):
                levels = half.mean((1, 2)) * part
                assert 0.68 * colour[0] < levels[0] < 1.03 * colour[0]
                assert levels[1] / levels[0] == pytest.approx(colour[1] / colour[0], abs=0.06)


def test_no_image_starts_another_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """PostScript must not reach Ghostscript, whatever the file is called."""

    def run(*arguments: Any, **options: Any) -> None:
        raise AssertionError("Ghostscript was asked")

    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", run)
    content = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n"
    for name in ("cat.png", "dog.eps"):
        (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=r"^1 of 1 images .*cat\.png"):
        load_images(DataConfig(str(tmp_path), image_size=8))


def test_the_run_learns_colours_and_shows_them(colour_run: Path, images: Images) -> None:
    last = picture(sorted((colour_run / "samples").iterdir())[-1])
    assert last.shape == (8 * 34 + 2, 8 * 34 + 2, 3)
    generated = last.reshape(-1, 3)[last.any(2).ravel()].mean(0)
    real = images.pixels.float().mean((0, 2, 3)).numpy()
    assert real[0] - real[2] > 60  # another order of channels would be found
    np.testing.assert_allclose(generated, real, atol=25)

    shown = picture(colour_run / "real.png")
    cells = {shown[i : i + 32, j : j + 32].tobytes() for i in range(2, 206, 34)
             for j in range(2, 206, 34)}  # fmt: skip
    assert cells == {image.permute(1, 2, 0).numpy().tobytes() for image in images.pixels}
    nearest = picture(colour_run / "nearest.png")  # rows of samples above rows of real images
    below = {nearest[i : i + 32, j : j + 32].tobytes() for i in (36, 104)
             for j in range(2, 274, 34)}  # fmt: skip
    assert below <= cells


def test_few_images_are_scored_by_a_classifier_of_their_own(
    colour_run: Path, colour_artifact: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The classifier is trained once and kept. The run knows the folder."""
    data_dir = read_config(colour_run).data.data_dir
    (kept,) = (data_dir / "extractors").iterdir()
    written = kept.stat().st_mtime_ns
    best = json.loads((colour_run / "best.json").read_text())
    for target in (colour_run / best["checkpoint"], colour_artifact):
        assert score.main([str(target), "--data-dir", str(data_dir), "--json"]) == 0
        ((_, scores),) = json.loads(capsys.readouterr().out).items()
        assert scores["fcd"] == pytest.approx(best["score"], rel=1e-3)
        assert (scores["images"], scores["extractor"]) == (18, "trained")
        assert scores["real_class_counts"][1] + scores["real_class_counts"][0] == 18
    assert kept.stat().st_mtime_ns == written


def test_reports_hold_pictures_in_colour(
    colour_run: Path, sampler: Sampler, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_report(colour_run, tmp_path / "report.html")
    assert compare([str(colour_run), str(colour_run)]) == 0
    for page in ("report.html", "compare.html"):
        html = (tmp_path / page).read_text("utf-8")
        found = re.findall(r"data:image/png;base64,([\w+/=]+)", html)
        best, *others = [picture(io.BytesIO(base64.b64decode(each))) for each in found]
        require_near(best, grid(sampler.sample(64)))
        assert others


def test_tensorboard_gets_the_grid_in_colour(colour_run: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    board = EventAccumulator(str(colour_run / "tensorboard"), {"images": 0})
    board.Reload()
    (tag,) = board.Tags()["images"]
    last = picture(io.BytesIO(board.Images(tag)[-1].encoded_image_string))
    files = sorted((colour_run / "samples").iterdir())
    np.testing.assert_array_equal(last, picture(files[-1]))


def test_the_artifact_is_in_colour(colour_artifact: Path, sampler: Sampler) -> None:
    assert sampler.metadata.image_shape == (3, 32, 32)
    assert sampler.check().passed
    images = sampler.sample(64)
    assert images.shape == (64, 32, 32, 3)
    assert len(np.unique(images.reshape(-1, 3), axis=0)) > 100
    np.testing.assert_array_equal(picture(colour_artifact / "samples.png"), grid(images))
    card = (colour_artifact / "README.md").read_text("utf-8")
    assert "\n# `images`, 32×32 in colour: " in card
    assert "uint8 (64, 32, 32, 3)" in card
    assert "(count, 32, 32, 3)" in card
    session = onnxruntime.InferenceSession(colour_artifact / "sampler.onnx")
    numbers = {"seed": 0, "start": 60, "count": 4}
    (pixels,) = session.run(["pixels"], {k: np.array(v, np.int64) for k, v in numbers.items()})
    np.testing.assert_array_equal(pixels, images[60:])


def test_the_sampler_writes_colours_into_every_file(
    colour_artifact: Path, sampler: Sampler, tmp_path: Path
) -> None:
    images = sampler.sample(5)

    def drawn(name: str, *options: str) -> Path:
        output = tmp_path / name
        arguments = ["--provider", "cpu", *options, "--output", str(output)]
        assert draw([str(colour_artifact), *arguments]) == 0
        return output

    np.testing.assert_array_equal(picture(drawn("a.png", "-n", "5")), grid(images))
    np.testing.assert_array_equal(np.load(drawn("a.npy", "-n", "5")), images)
    np.testing.assert_array_equal(np.load(drawn("a.npz", "-n", "5"))["images"], images)
    folder = drawn("folder", "-n", "5")
    for image, file in zip(images, sorted(folder.iterdir()), strict=True):
        np.testing.assert_array_equal(picture(file), image)
    captioned = picture(drawn("c.png", "-n", "4", "--captions", "--scale", "2"))
    assert (captioned[2:66:2, -66:-2:2] == images[1]).all()
    for name in ("w.webp", "w.png", "w.gif"):
        with Image.open(drawn(name, "--walk", "2", "--steps", "2")) as walk:
            assert getattr(walk, "n_frames", 1) == 4
            first = np.asarray(walk.convert("RGB")).astype(int)
        # A frame of a GIF has 256 colours.
        assert np.abs(first - images[0]).mean() <= (8 if name.endswith("gif") else 0)


def test_images_without_labels_say_by_what_they_are_scored(
    colour_run: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    from training.scoring.extractor import extractor_for

    caplog.set_level("INFO", "training")
    flat = Path(read_config(colour_run).data.dataset) / "leaf"
    images = load_images(DataConfig(str(flat), image_size=8, channels=3))
    extractor = extractor_for(images, tmp_path, images.pixels.device)
    assert extractor.kind == "random"
    assert "18 images without labels (no subfolders)" in caplog.text
    assert "scored in features of a fixed random network" in caplog.text


def test_tinted_images_have_one_colour_each(tmp_path: Path) -> None:
    """The output of `scripts/tint.py` for a grey data set."""
    grey = load_images(DataConfig("digits"))
    write_tinted(grey, tmp_path / "tinted", 30)
    tinted = load_images(DataConfig(str(tmp_path / "tinted"), channels=3))
    assert tinted.classes == grey.classes
    assert grey.labels is not None
    assert tinted.labels is not None
    order = grey.labels[:30].argsort(stable=True)  # folder by folder
    assert tinted.labels.tolist() == grey.labels[order].tolist()
    brightest = tinted.pixels.amax(1)
    np.testing.assert_allclose(brightest, grey.pixels[order, 0], atol=1)
    colours = tinted.pixels.amax((2, 3)) / grey.pixels[order].amax((1, 2, 3))[:, None]
    expected = grey.pixels[order] * colours[:, :, None, None]
    assert (tinted.pixels - expected).abs().max() <= 1
    assert colours.std(0).min() > 0.1
