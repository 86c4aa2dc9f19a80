"""Data sets as one uint8 tensor on the device, and endless shuffled full batches of them."""

import gzip
import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from training.config import DataConfig


class DataError(Exception):
    """A data set cannot be had; the message says what to do."""


@dataclass(frozen=True)
class Images:
    """A data set in memory."""

    pixels: Tensor
    """uint8 (N, C, H, W)."""
    labels: Tensor | None
    """int64 (N,), indices into `classes`; None for unlabelled images."""
    classes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.pixels)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        _, channels, height, width = self.pixels.shape
        return channels, height, width

    def sha256(self) -> str:
        """Of the pixels and labels, in order: tells data sets apart."""
        digest = hashlib.sha256(self.pixels.cpu().numpy().data)  # no copy of it
        if self.labels is not None:
            digest.update(self.labels.cpu().numpy().tobytes())
        return digest.hexdigest()

    def take(self, indices: Tensor) -> "Images":
        """The images at `indices`."""
        labels = None if self.labels is None else self.labels[indices]
        return replace(self, pixels=self.pixels[indices], labels=labels)

    def to(self, device: torch.device) -> "Images":
        """The same images, held on `device`."""
        labels = None if self.labels is None else self.labels.to(device)
        return replace(self, pixels=self.pixels.to(device), labels=labels)


def normalised(pixels: Tensor) -> Tensor:
    """uint8 0 … 255 to float32 in [-1, 1]."""
    return pixels.float().div_(127.5).sub_(1)


class Batches:
    """Endless full batches: a new permutation of all images each epoch, running on across its end.

    A batch is a function of the seed and its step, so nothing needs to be saved for a resume.
    """

    def __init__(
        self, images: Images, batch_size: int, seed: int, *, conditional: bool = False
    ) -> None:
        """conditional: whether batches have labels."""
        if conditional and images.labels is None:
            raise DataError(
                "--conditional needs labelled images, and these have no labels: put the images of "
                "each class into a subfolder of its own, or leave --conditional out"
            )
        if batch_size > len(images):
            raise DataError(
                f"{len(images)} images are fewer than one batch of {batch_size}: "
                f"add images, or lower --batch-size"
            )
        self.pixels = images.pixels
        self.labels = images.labels if conditional else None
        self.batch_size = batch_size
        self.seed = seed
        self._orders: dict[int, Tensor] = {}

    def __getitem__(self, step: int) -> Tensor:
        """The real images of step 0, 1, …: float32 (B, C, H, W) in [-1, 1]."""
        return normalised(self.pixels[self.indices(step)])

    def labels_at(self, step: int) -> Tensor | None:
        """The labels of those images, int64 (B,); None for batches without."""
        return None if self.labels is None else self.labels[self.indices(step)]

    def indices(self, step: int) -> Tensor:
        """Which images those are, (B,)."""
        epoch, first = divmod(step * self.batch_size, len(self.pixels))
        indices = self._order(epoch)[first : first + self.batch_size]
        if len(indices) < self.batch_size:
            rest = self._order(epoch + 1)[: self.batch_size - len(indices)]
            indices = torch.cat([indices, rest])
        return indices

    def epochs(self, step: int) -> int:
        """Epochs finished after `step` steps."""
        return step * self.batch_size // len(self.pixels)

    def epoch_end(self, epoch: int) -> int:
        """The first step that has seen all images of epochs 1 to `epoch`."""
        return -(-epoch * len(self.pixels) // self.batch_size)

    def _order(self, epoch: int) -> Tensor:
        if epoch not in self._orders:
            self._orders = {e: self._orders[e] for e in self._orders if e == epoch - 1}
            (seed,) = np.random.SeedSequence((self.seed, epoch)).generate_state(1, np.uint64)
            generator = torch.Generator().manual_seed(int(seed))
            order = torch.randperm(len(self.pixels), generator=generator)
            self._orders[epoch] = order.to(self.pixels.device)
        return self._orders[epoch]


def load_images(config: DataConfig, *, train: bool = True) -> Images:
    """The training images, or with `train=False` the test images, on the CPU.

    Raises:
        ConfigError: for a data set that is neither ours nor a folder.
        DataError: where they cannot be had; the message says what to do.
    """
    config.require_there()
    if config.dataset in _TORCHVISION:
        images = _load_torchvision(config, train)
    elif not train:
        raise DataError(f"{config.dataset} has no test images of its own")
    elif config.dataset == "digits":
        images = _load_digits(config)
    else:
        from training.data.image_folder import load_folder

        return load_folder(Path(config.dataset), config.image_size, config.channels)
    pixels = images.pixels
    if pixels.shape[2:] != (config.image_size, config.image_size):
        from torchvision.transforms.v2.functional import resize

        pixels = resize(pixels, [config.image_size, config.image_size], antialias=True)
    return replace(images, pixels=pixels.expand(-1, config.channels, -1, -1).contiguous())


_TORCHVISION = {"mnist": "MNIST", "fashion-mnist": "FashionMNIST", "kmnist": "KMNIST"}


def _load_torchvision(config: DataConfig, train: bool) -> Images:
    from torchvision import datasets

    dataset_class = getattr(datasets, _TORCHVISION[config.dataset])
    folder = config.data_dir / dataset_class.__name__ / "raw"
    for name, md5 in dataset_class.resources:
        _verify(folder / name, md5)
    try:
        dataset = dataset_class(config.data_dir, train=train, download=True)
    except (OSError, RuntimeError, EOFError, ValueError, AssertionError) as error:
        files = ", ".join(name for name, _ in dataset_class.resources)
        reason = str(error).strip().splitlines()[-1] if str(error).strip() else repr(error)
        raise DataError(
            f"{config.dataset} is not in --data-dir {config.data_dir} and cannot be downloaded "
            f"({reason}). Put {files} into {folder}, or use --dataset digits, which needs no "
            f"download"
        ) from error
    return Images(dataset.data.unsqueeze(1), dataset.targets, tuple(map(str, dataset.classes)))


def _verify(packed: Path, md5: str) -> None:
    """Raise DataError if a downloaded file, or what was unpacked from it, is not as published.

    torchvision checks only what it downloads itself, and never what it unpacked.
    """
    if not packed.exists():
        return  # torchvision will fetch it
    content = packed.read_bytes()
    again = "delete it, and it is downloaded again"
    if hashlib.md5(content, usedforsecurity=False).hexdigest() != md5:
        raise DataError(f"{packed} is truncated or changed, its md5 is not {md5}: {again}")
    unpacked = packed.with_suffix("")
    if unpacked.exists() and unpacked.read_bytes() != gzip.decompress(content):
        raise DataError(
            f"{unpacked} is truncated or changed, it is not what {packed.name} holds: "
            f"delete it, and it is unpacked again"
        )


def _load_digits(config: DataConfig) -> Images:
    """scikit-learn's 1,797 handwritten digits of 8×8, values 0 … 16."""
    from sklearn.datasets import load_digits
    from torchvision.transforms.v2.functional import resize

    images, labels = load_digits(return_X_y=True)
    pixels = torch.from_numpy(images).float().mul_(255 / 16).view(-1, 1, 8, 8)
    # Resized as float32: rounding to whole levels comes last.
    pixels = resize(pixels, [config.image_size, config.image_size], antialias=True)
    return Images(pixels.round().byte(), torch.from_numpy(labels), tuple("0123456789"))
