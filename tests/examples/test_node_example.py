"""The Node example draws what the golden file says."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from inference import Sampler
from tests.support.files import ROOT
from tests.support.golden_file import golden_images, require_golden_z, require_same_pixels
from tests.support.node import installed, needs_node, run

# z does not go into the PNG: asked of the function that draws it.
Z = """
import { readFile, writeFile } from "node:fs/promises";
import * as ort from "onnxruntime-web";
import { draw } from "./draw.mjs";
const [file, seed, start, count] = process.argv.slice(1);
const sampler = await ort.InferenceSession.create(await readFile(file));
const { z } = await draw(sampler, seed, start, count);
await writeFile("z.bin", new Uint8Array(z.data.buffer, z.data.byteOffset, z.data.byteLength));
"""


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return installed("node", tmp_path_factory)


def draw(example: Path, artifact: Path, place: list[str], shape: tuple[int, ...]) -> NDArray[Any]:
    """What draw.mjs draws of images of a shape, (H, W[, 3]), taken out of its grid."""
    run("node", "draw.mjs", artifact / "sampler.onnx", *place, "drawn.png", cwd=example)
    picture = np.asarray(Image.open(example / "drawn.png"))
    height, width, *channels = shape
    count = int(place[2])
    columns = int(np.ceil(np.sqrt(count)))
    cells = picture.reshape(-1, height, columns, width, *channels).swapaxes(1, 2)
    drawn = cells.reshape(-1, *shape)
    assert not drawn[count:].any()
    return drawn[:count]


@needs_node
@pytest.mark.full
def test_node_draws_in_colour(example: Path, colour_artifact: Path) -> None:
    expected = Sampler(colour_artifact, provider="cpu").sample(7, seed=5, start=2)
    require_same_pixels(draw(example, colour_artifact, ["5", "2", "7"], (32, 32, 3)), expected)


@needs_node
@pytest.mark.full
def test_node_draws_the_golden_images(example: Path, golden_artifact: Path) -> None:
    sampler = golden_artifact / "sampler.onnx"
    for golden in golden_images():
        place = [str(number) for number in (golden.seed, golden.start, golden.count)]
        drawn = draw(example, golden_artifact, place, golden.pixels.shape[1:])
        require_same_pixels(drawn, golden.pixels)

        run("node", "--input-type=module", "-e", Z, sampler, *place, cwd=example)
        z = np.fromfile(example / "z.bin", "<f4")
        require_golden_z(z, golden)


@needs_node
@pytest.mark.full
@pytest.mark.parametrize("label", [None, 3])
def test_node_draws_a_class_by_convolutions(
    example: Path, conv_artifact: Path, label: int | None
) -> None:
    place = ["7", "5", "9", "classes.png", *([] if label is None else [str(label)])]
    run("node", "draw.mjs", conv_artifact / "sampler.onnx", *place, cwd=example)
    cells = np.asarray(Image.open(example / "classes.png")).reshape(3, 8, 3, 8).swapaxes(1, 2)
    sampler = Sampler(conv_artifact, provider="cpu")
    require_same_pixels(cells.reshape(9, 8, 8), sampler.sample(9, seed=7, start=5, label=label))


@pytest.mark.parametrize("example", ["node"])
def test_the_lock_file_names_no_registry_and_exact_versions(example: str) -> None:
    folder = ROOT / "examples" / example
    lock = json.loads((folder / "package-lock.json").read_text(encoding="utf-8"))
    assert len(lock["packages"]) > 5
    for name, package in lock["packages"].items():
        assert "resolved" not in package
        assert not name or package["integrity"].startswith("sha512-")
    wanted = json.loads((folder / "package.json").read_text(encoding="utf-8"))
    asked = wanted.get("dependencies", {}) | wanted.get("devDependencies", {})
    assert all(version[0].isdigit() for version in asked.values())
