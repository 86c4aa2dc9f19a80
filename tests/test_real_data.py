"""On the real data sets, where `data/` holds them, and on what `make demo` left behind."""

from pathlib import Path

import numpy as np
import pytest
import torch

from training.config import DataConfig, TrainConfig
from training.data import Images, load_images
from training.extractor import train_classifier
from training.loop import train

ROOT = Path(__file__).parents[1]
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
    # After 300 steps: mostly black, as digits are, with strokes, and not all alike.
    assert images.mean() < 100
    assert images.max() > 200
    assert images.std(axis=0).max() > 20


@pytest.mark.full
def test_the_demo_draws_digits() -> None:
    """At least 80 % of 1,000 samples are recognised by a classifier of the real digits."""
    from inference import Sampler

    artifact = ROOT / "runs" / "demo" / "artifact"
    if not artifact.is_dir():
        pytest.skip("run `make demo` first")
    real = load_images(DataConfig(dataset="digits"))
    assert real.labels is not None
    held_out = torch.arange(len(real)) % 5 == 0
    network = train_classifier(Images(real.pixels[~held_out], real.labels[~held_out], real.classes))

    @torch.inference_mode()
    def probabilities(pixels: torch.Tensor) -> torch.Tensor:
        _, logits = network(pixels.float() / 127.5 - 1)
        return torch.Tensor(logits.softmax(1))

    right = probabilities(real.pixels[held_out]).argmax(1) == real.labels[held_out]
    assert right.float().mean() > 0.98
    noise = np.random.default_rng(0).integers(0, 256, (1000, 1, 28, 28), np.uint8)
    confident = probabilities(torch.from_numpy(noise)).amax(1) > 0.5
    assert confident.float().mean() < 0.2  # or its word would be worth nothing
    samples = probabilities(torch.from_numpy(Sampler(artifact).sample(1000)).unsqueeze(1))
    recognised = (samples.amax(1) > 0.5).float().mean().item()
    classes = samples.argmax(1).bincount(minlength=10)
    print(f"{recognised:.1%} recognised, classes {classes.tolist()}")
    assert recognised >= 0.8
    assert classes.min() >= 20
