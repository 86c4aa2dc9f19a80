"""Train the exercise's GAN as tutorials do, for comparison; score it like a run of ganpack.

python -m benchmarks.textbook --dataset mnist --epochs 30 --run-dir runs/textbook-mnist
"""

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, Literal

import torch
import tyro
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset
from torchvision import datasets, transforms

from benchmarks.figures import device_named
from training.config import DataConfig, TrainConfig
from training.data.datasets import load_images
from training.gan.networks import Discriminator, Generator
from training.run_folder.folder import RunFolder
from training.scoring.extractor import extractor_for
from training.scoring.reference import SELECTION_SEED, Reference, reference_for
from training.scoring.subject import Subject

_RECIPE = {"recipe": "textbook", "batch_size": 64}


class _Digits(Dataset[tuple[torch.Tensor, int]]):
    """The digits that need no download, with the interface of torchvision's data sets."""

    def __init__(
        self, data_dir: Path, *, train: bool, download: bool, transform: Callable[[Any], Any]
    ) -> None:
        images = load_images(DataConfig("digits", data_dir))
        assert images.labels is not None
        self._transform, self._labels = transform, images.labels.tolist()
        self._images = [Image.fromarray(pixels) for pixels in images.pixels[:, 0].numpy()]

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return self._transform(self._images[index]), self._labels[index]


DATASETS: dict[str, Callable[..., Any]] = {
    "mnist": datasets.MNIST,
    "fashion-mnist": datasets.FashionMNIST,
    "digits": _Digits,
}


@dataclass(frozen=True)
class TextbookConfig:
    """Which images to train with, and for how long."""

    run_dir: Path
    """Folder for config.json and metrics.jsonl."""
    dataset: str = "mnist"
    """mnist, fashion-mnist or digits."""
    data_dir: Path = Path("data")
    epochs: int = 30
    seed: int = 0
    score_epochs: int = 2
    """Epochs between two scorings."""
    device: Literal["auto", "cuda", "cpu"] = "auto"


@dataclass(frozen=True)
class Step:
    """The losses of a step."""

    epoch: int
    loss_g: float
    loss_d: float


def textbook_networks() -> tuple[Generator, Discriminator]:
    """The exercise's networks. As in many copies of this GAN, `BatchNorm1d(n, 0.8)` sets eps."""
    network = TrainConfig().network
    shape = (1, 28, 28)
    generator = Generator(network.latent_dim, network.generator_dims, shape)
    for layer in generator.layers:
        if isinstance(layer, nn.BatchNorm1d):
            layer.eps = 0.8
    return generator, Discriminator(network.discriminator_dims, shape)


def train_textbook(
    generator: Generator, discriminator: Discriminator, dataset: str, data_dir: Path, epochs: int
) -> Iterator[Step]:
    """Train in place and yield after each step, on the device of the networks.

    This loop has a data loader, images from PIL, and a printed line for each step.
    """
    device = next(generator.parameters()).device
    transform = transforms.Compose([
        transforms.Resize(28), transforms.ToTensor(), transforms.Normalize([0.5], [0.5]),
    ])  # fmt: skip
    images = DATASETS[dataset](data_dir, train=True, download=True, transform=transform)
    loader = DataLoader(images, batch_size=64, shuffle=True)
    criterion = nn.BCELoss()
    optimizer_g = torch.optim.Adam(generator.parameters(), lr=2e-4, betas=(0.5, 0.999))
    optimizer_d = torch.optim.Adam(discriminator.parameters(), lr=2e-4, betas=(0.5, 0.999))
    for epoch in range(1, epochs + 1):
        for i, (batch, _) in enumerate(loader):
            real = batch.to(device)
            valid = torch.ones(len(real), device=device)
            invalid = torch.zeros(len(real), device=device)
            optimizer_g.zero_grad()
            fake = generator(torch.randn(len(real), generator.latent_dim, device=device))
            loss_g = criterion(discriminator.probability(fake), valid)
            loss_g.backward()
            optimizer_g.step()
            optimizer_d.zero_grad()
            on_real = criterion(discriminator.probability(real), valid)
            on_fake = criterion(discriminator.probability(fake.detach()), invalid)
            loss_d = (on_real + on_fake) / 2
            loss_d.backward()
            optimizer_d.step()
            print(
                f"[epoch {epoch}/{epochs}] [batch {i + 1}/{len(loader)}] "
                f"[D loss: {loss_d.item():f}] [G loss: {loss_g.item():f}]"
            )
            yield Step(epoch, loss_g.item(), loss_d.item())


def main() -> None:
    """Run the command."""
    train_and_score(
        tyro.cli(TextbookConfig, prog="python -m benchmarks.textbook", description=__doc__)
    )


def train_and_score(config: TextbookConfig) -> None:
    """Train, score the raw weights with their running statistics, and write metrics.jsonl."""
    device = device_named(config.device)
    images = load_images(DataConfig(config.dataset, config.data_dir)).to(device)
    extractor = extractor_for(images, config.data_dir / "extractors", device)
    reference = reference_for(extractor, images, test=None)
    torch.manual_seed(config.seed)
    generator, discriminator = textbook_networks()
    generator.to(device)
    discriminator.to(device)
    folder = RunFolder(config.run_dir)
    folder.path.mkdir(parents=True)
    settings = {"data": {"dataset": config.dataset}, "recipe": _RECIPE, "seed": config.seed}
    folder.config.write_text(json.dumps({"config": settings}, indent=2) + "\n")
    steps = train_textbook(generator, discriminator, config.dataset, config.data_dir, config.epochs)
    count, start = 0, time.monotonic()
    with folder.metrics.open("w", encoding="utf-8") as file:
        for epoch, of_epoch in groupby(steps, key=lambda step: step.epoch):
            losses = [(step.loss_g, step.loss_d) for step in of_epoch]
            loss_g, loss_d = (sum(column) / len(losses) for column in zip(*losses, strict=True))
            count += len(losses)
            record = {
                "kind": "epoch",
                "epoch": epoch,
                "step": count,
                "loss_g": loss_g,
                "loss_d": loss_d,
                "images_per_second": len(images) / (time.monotonic() - start),
                "scores": _scores(reference, generator) if epoch % config.score_epochs == 0 else {},
            }
            file.write(json.dumps(record) + "\n")
            file.flush()
            start = time.monotonic()


def _scores(reference: Reference, generator: Generator) -> dict[str, Any]:
    generator.eval()
    scores = reference.score(Subject.of(generator), SELECTION_SEED).to_dict()
    generator.train()
    return scores


if __name__ == "__main__":
    main()
