"""Build the browser example and use it in headless Chromium.

The checks in the browser are in `examples/browser/test/page.test.mjs`. This file prepares the
images that Python generates.
"""

import json
import shutil
from base64 import b64encode
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from inference import Sampler
from tests.support.golden_file import IMAGES
from tests.support.node import CONTRACTS, installed, needs_node, run, with_contract

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
WALK = (3, 44)


def base64(images: NDArray[np.uint8]) -> str:
    return b64encode(images.tobytes()).decode()


def halfway(z: NDArray[np.float32]) -> NDArray[np.float32]:
    """Between two z, (2, latent_dim), on the sphere."""
    a, b = z.astype(float)
    angle = np.arccos(a @ b / np.sqrt((a @ a) * (b @ b)))
    z = np.sin(angle / 2) / np.sin(angle) * (a + b)
    return z[None].astype(np.float32)


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return installed("browser", tmp_path_factory)


@needs_node
@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed: apt-get install chromium")
@pytest.mark.full
def test_the_page_shows_what_python_draws(
    example: Path,
    golden_artifact: Path,
    colour_artifact: Path,
    conv_artifact: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ARTIFACT", str(golden_artifact))
    run("npm", "run", "build", cwd=example)
    sampler, other = (Sampler(each, provider="cpu") for each in (golden_artifact, colour_artifact))
    # Labels and convolutions in one.
    with_classes = Sampler(conv_artifact, provider="cpu")
    forged = []
    for name, (contract, message) in CONTRACTS.items():
        folder = example / "forged" / name
        folder.mkdir(parents=True)
        (folder / "generator.onnx").write_bytes(with_contract(golden_artifact, contract))
        forged.append({"file": str(folder / "generator.onnx"), "message": message})
    first_and_last = with_classes.latents(64, seed=7)[[0, 63]]
    expected = {
        "chromium": CHROMIUM,
        "dist": str(example / "dist"),
        "golden": str(IMAGES),
        "artifact": str(golden_artifact),
        "forged": forged,
        "seed7": base64(sampler.sample(64, seed=7)),
        "walk": {
            "from": WALK[0],
            "to": WALK[1],
            "halfway": base64(sampler.decode(halfway(sampler.latents(64, seed=7)[list(WALK)]))),
        },
        "other": {
            "artifact": str(colour_artifact),
            "width": other.metadata.image_shape[2],
            "seed7": base64(other.sample(64, seed=7)),
            "halfway": base64(other.decode(halfway(other.latents(64, seed=7)[list(WALK)]))),
        },
        "conditional": {
            "artifact": str(conv_artifact),
            "names": list(with_classes.metadata.classes),
            "drawn": base64(with_classes.sample(64, seed=7)),
            "three": base64(with_classes.sample(64, seed=7, label=3)),
            "walk": base64(with_classes.decode(halfway(first_and_last), 3)),
        },
    }
    (example / "expected.json").write_text(json.dumps(expected), encoding="utf-8")
    monkeypatch.setenv("EXPECTED", str(example / "expected.json"))
    print(
        run(
            "node",
            "--test",
            "--test-reporter",
            "spec",
            "test/page.test.mjs",
            cwd=example,
            seconds=300,
        )
    )


@needs_node
@pytest.mark.full
def test_a_build_without_an_artifact_says_so(
    example: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ARTIFACT", str(tmp_path))
    built = run("npm", "run", "build", "--", "--outDir", tmp_path / "dist", cwd=example)
    assert "the page will ask for files" in built
    assert not (tmp_path / "dist" / "artifact").exists()
