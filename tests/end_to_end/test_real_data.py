"""Tests with the real data sets, if `data/` has them, and with the results of `make demo`."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.support.files import ROOT
from training.config import DataConfig, TrainConfig
from training.data.datasets import load_images
from training.train import train

DATA = ROOT / "data"


@pytest.mark.parametrize(
    ("name", "folder", "first_labels", "mean"),
    # The first labels and the mean pixel (of 0 … 1) as published for the data sets.
    [("mnist", "MNIST", [5, 0, 4, 1, 9, 2], 0.1307),
     ("fashion-mnist", "FashionMNIST", [9, 0, 0, 3, 0, 2], 0.2860)],
)  # fmt: skip
def test_the_published_data_is_what_is_read(
    name: str, folder: str, first_labels: list[int], mean: float
) -> None:
    if not (DATA / folder).is_dir():
        pytest.skip(f"no {folder} in {DATA.name}/")
    images = load_images(DataConfig(dataset=name, data_dir=DATA))
    assert images.pixels.shape == (60_000, 1, 28, 28)
    assert images.labels is not None
    assert images.labels[:6].tolist() == first_labels
    assert float(images.pixels.float().mean() / 255) == pytest.approx(mean, abs=5e-5)
    assert len(images.classes) == 10


@pytest.mark.slow
def test_full_size_training_on_mnist_starts_well(tmp_path: Path) -> None:
    if not (DATA / "MNIST").is_dir():
        pytest.skip(f"no MNIST in {DATA.name}/")
    from export.artifact_folder import best_checkpoint, export
    from inference import Sampler

    config = TrainConfig(data=DataConfig(data_dir=DATA), iterations=300, device="cpu")
    train(config, tmp_path / "run")
    export(best_checkpoint(tmp_path / "run"), tmp_path / "artifact")
    images = Sampler(tmp_path / "artifact").sample(256)
    # After 300 steps the images are mostly black, have strokes, and differ from one another.
    assert images.mean() < 100
    assert images.max() > 200
    assert images.std(axis=0).max() > 20


@pytest.mark.full
def test_the_demo_draws_digits() -> None:
    """At least 80 % of 1,000 samples are recognised by a classifier of the real digits."""
    from sklearn.kernel_approximation import Nystroem
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    from inference import Sampler

    artifact = ROOT / "runs" / "demo" / "artifact"
    if not artifact.is_dir():
        pytest.skip("run `make demo` first")
    real = load_images(DataConfig(dataset="digits"))
    assert real.labels is not None
    pixels, labels = real.pixels.flatten(1).numpy() / 255, real.labels.numpy()
    held_out = np.arange(len(real)) % 5 == 0
    # Kernel logistic regression, because it is unsure of images that are far from all real digits.
    classifier = make_pipeline(
        Nystroem(gamma=0.02, n_components=1000, random_state=0),
        LogisticRegression(C=100, max_iter=1000),
    ).fit(pixels[~held_out], labels[~held_out])
    assert classifier.score(pixels[held_out], labels[held_out]) > 0.98

    def recognised(images: NDArray[np.float64]) -> float:
        """The share of images that get a class with a probability over 0.5."""
        return float((classifier.predict_proba(images).max(1) > 0.5).mean())

    random = np.random.default_rng(0)
    assert recognised(random.random((1000, 784))) < 0.05  # the classifier itself must be good
    assert recognised(random.permuted(pixels, axis=1)) < 0.05
    samples = Sampler(artifact).sample(1000).reshape(1000, -1) / 255
    classes = np.bincount(classifier.predict(samples), minlength=10)
    print(f"{recognised(samples):.1%} recognised, classes {classes.tolist()}")
    assert recognised(samples) >= 0.8
    assert classes.min() >= 20
