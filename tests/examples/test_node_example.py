"""The Node example generates the images of the golden file."""

import json
import os
import re
import subprocess
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from inference import ArtifactError, Sampler
from inference.artifact import SEAL_MARKER
from inference.writing.pictures import grid
from tests.support.files import ROOT
from tests.support.golden_file import golden_images, require_golden_z, require_same_pixels
from tests.support.node import CONTRACTS, installed, needs_node, node_reads, run, with_contract

# The PNG does not contain z, so ask the function that computes it.
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


def draw(example: Path, artifact: Path, *place: object) -> str:
    """Run draw.mjs, which writes drawn.png; its output."""
    return run("node", "draw.mjs", artifact, *map(str, place), cwd=example)


def same_picture(example: Path, images: NDArray[np.uint8], name: str = "drawn.png") -> None:
    """Compare a picture with the one that Python writes of the same images."""
    picture = np.asarray(Image.open(example / name))
    require_same_pixels(picture, grid(images))


@needs_node
@pytest.mark.full
def test_node_draws_in_colour(example: Path, colour_artifact: Path) -> None:
    images = Sampler(colour_artifact, provider="cpu").sample(7, seed=5, start=2)
    said = draw(example, colour_artifact, 5, 2, 7, "drawn.png")
    assert said == "drawn.png: images 2 to 8 of seed 5\n"
    same_picture(example, images)


@needs_node
@pytest.mark.full
def test_node_draws_the_golden_images(example: Path, golden_artifact: Path) -> None:
    sampler = golden_artifact / "sampler.onnx"
    for golden in golden_images():
        place = [str(number) for number in (golden.seed, golden.start, golden.count)]
        draw(example, sampler, *place, "drawn.png")
        same_picture(example, golden.pixels)

        run("node", "--input-type=module", "-e", Z, sampler, *place, cwd=example)
        z = np.fromfile(example / "z.bin", "<f4")
        require_golden_z(z, golden)


@needs_node
@pytest.mark.full
@pytest.mark.parametrize("label", [None, 3])
def test_node_draws_a_class_by_convolutions(
    example: Path, conv_artifact: Path, label: int | None
) -> None:
    sampler = Sampler(conv_artifact, provider="cpu")
    label_words = [] if label is None else [sampler.metadata.classes[label]]
    said = draw(example, conv_artifact, 7, 5, 300, "classes.png", *label_words)  # in two batches
    assert said.startswith("classes.png: images 5 to 304 of seed 7")
    same_picture(example, sampler.sample(300, seed=7, start=5, label=label), "classes.png")


@needs_node
@pytest.mark.full
def test_node_says_what_is_wrong(
    example: Path, golden_artifact: Path, conv_artifact: Path, tmp_path: Path
) -> None:
    file = (golden_artifact / "sampler.onnx").read_bytes()
    damaged = tmp_path / "sampler.onnx"
    damaged.write_bytes(file[:50_000] + bytes([file[50_000] ^ 1]) + file[50_001:])
    os.mkfifo(tmp_path / "fifo")
    cases: list[tuple[int, list[object], str]] = [
        (2, [], "usage: node draw.mjs ARTIFACT [SEED]"),
        (2, [golden_artifact, 2**63], "seed must be a whole number from 0 to 9223372036854775807"),
        (2, [golden_artifact, -1], "seed must be a whole number from 0 to 9223372036854775807"),
        (2, [golden_artifact, 0, 2**63 - 1, 2], "start must be a whole number from 0 to 92233720"),
        (2, [golden_artifact, 0, 0, 0], "count must be a whole number from 1"),
        (2, [golden_artifact, 0, 0, 9**9], "387420489 images are too many for one picture"),
        (2, [golden_artifact, 0, 0, 1, "a.jpg"], "the output must be a .png file, got a.jpg"),
        (2, [golden_artifact, 0, 0, 1, "a.png", 3], "this artifact has no classes, so it takes no"),
        (2, [conv_artifact, 0, 0, 1, "a.png", "cat"], "label must be 0 … 9 or one of"),
        (1, [damaged], "is damaged: its content does not match its seal"),
        (1, [golden_artifact / "generator.onnx"], "is a generator: give the sampler.onnx beside"),
        (1, [golden_artifact / "README.md"], "is not an ONNX file"),
        (1, ["nowhere"], "nowhere is not there. Give an artifact folder, or its sampler.onnx."),
        (1, [tmp_path / "fifo"], "is not a plain file"),
    ]
    for code, words, message in cases:
        done = subprocess.run(
            ["node", "draw.mjs", *map(str, words)], cwd=example, capture_output=True, text=True,
            timeout=20, check=False,
        )  # fmt: skip
        assert done.returncode == code, done.stderr
        assert message in done.stderr
        assert done.stdout == ""
        assert words == [] or done.stderr.startswith("error: ")
        assert words == [] or done.stderr.count("\n") == 1
    assert not (example / "a.png").exists()


@needs_node
def test_a_file_is_read_in_javascript_as_python_reads_it(
    golden_artifact: Path, tmp_path: Path
) -> None:
    whole = golden_artifact / "sampler.onnx"
    content = whole.read_bytes()
    broken = {
        "flipped": (content[:-99] + bytes([content[-99] ^ 1]) + content[-98:], "is damaged: "),
        "cut": (content[: len(content) // 2], "is not an ONNX file, or it is incomplete"),
        "empty": (b"", "was not written by ganpack: it has no contract and no seal"),
        "twice": (content + content[content.index(SEAL_MARKER) - 2 :], "is not an ONNX file"),
    }
    for name, (contract, message) in CONTRACTS.items():
        broken[name] = with_contract(golden_artifact, contract), message
    for name, (file, _) in broken.items():
        (tmp_path / name).write_bytes(file)
        with pytest.raises(ArtifactError):
            Sampler(file, provider="cpu")
    contract, *messages = node_reads(whole, *(tmp_path / name for name in broken))
    assert isinstance(contract, dict)
    assert contract["role"] == "sampler"
    for (name, (_, expected)), said in zip(broken.items(), messages, strict=True):
        assert isinstance(said, str), name
        assert said.startswith(str(tmp_path / name))
        assert re.search(expected, said)
        assert len(said) < 300


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
