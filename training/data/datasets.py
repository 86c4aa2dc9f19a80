"""The named data sets, and folders of images, as `Images`."""

import errno
import fcntl
import gzip
import hashlib
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from training.config import DataConfig
from training.data.images import DataError, Images, hold_out
from training.data.memory import require_room

_log = logging.getLogger(__name__)


def load_held_out(config: DataConfig) -> tuple[Images, Images | None]:
    """The training images, and the held-out images: the test images if there are some."""
    if config.dataset not in _TORCHVISION:
        return hold_out(_load_all(config, train=True), config.held_out_share)
    images = load_images(config)
    return images, load_images(config, train=False) if config.held_out_share else None


def load_images(config: DataConfig, *, train: bool = True) -> Images:
    """The training images, or with `train=False` the test images, on the CPU.

    Raises:
        ConfigError: for an unknown data set that is no folder.
        DataError: if the images cannot be loaded; the message says what to do.
    """
    images = _load_all(config, train=train)
    return images if config.dataset in _TORCHVISION else hold_out(images, config.held_out_share)[0]


def _load_all(config: DataConfig, *, train: bool) -> Images:
    config.require_there()
    shape = config.channels, config.image_size, config.image_size
    if config.dataset in _TORCHVISION:
        images = _load_torchvision(config, train)
        require_room(len(images), shape)
    elif not train:
        raise DataError(f"{config.dataset} has no test images of its own")
    elif config.dataset == "digits":
        require_room(_DIGITS, shape)
        images = _load_digits(config)
    else:
        from training.data.image_folder import load_folder

        return load_folder(config)
    pixels = images.pixels
    if pixels.shape[2:] != (config.image_size, config.image_size):
        from torchvision.transforms.v2.functional import resize

        pixels = resize(pixels, [config.image_size, config.image_size], antialias=True)
    return replace(images, pixels=pixels.expand(-1, config.channels, -1, -1).contiguous())


_UNWRITABLE = {errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOSPC, errno.EDQUOT, errno.ENOTDIR}
_DIGITS = 1797  # images of scikit-learn
_TORCHVISION = {"mnist": "MNIST", "fashion-mnist": "FashionMNIST", "kmnist": "KMNIST"}


def _load_torchvision(config: DataConfig, train: bool) -> Images:
    from torchvision import datasets

    dataset_class = getattr(datasets, _TORCHVISION[config.dataset])
    folder = config.data_dir / dataset_class.__name__ / "raw"
    with _one_at_a_time(folder):
        for name, md5 in dataset_class.resources:
            _verify(folder / name, md5)
        try:
            dataset = _unpacked(dataset_class, config.data_dir, folder, train)
        except (OSError, RuntimeError, EOFError, ValueError, AssertionError) as error:
            files = ", ".join(name for name, _ in dataset_class.resources)
            reason = str(error).strip().splitlines()[-1] if str(error).strip() else repr(error)
            way_out = f"Put {files} into {folder}"
            if getattr(error, "errno", None) in _UNWRITABLE:
                way_out = "Name a folder that can be written with --data-dir"
            raise DataError(
                f"{config.dataset} is not in --data-dir {config.data_dir} and cannot be downloaded "
                f"({reason}). {way_out}, or use --dataset digits, which needs no download"
            ) from error
    return Images(dataset.data.unsqueeze(1), dataset.targets, tuple(map(str, dataset.classes)))


@contextmanager
def _one_at_a_time(folder: Path) -> Iterator[None]:
    """Wait while another process downloads or unpacks into a folder, file by file."""
    with suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
    try:
        number = os.open(folder, os.O_RDONLY)
    except OSError:  # what is wrong with the folder is said by those who read it
        yield
        return
    try:
        try:
            fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _log.info("waiting for another run, which loads %s", folder)
            fcntl.flock(number, fcntl.LOCK_EX)
        except OSError:  # some disks have no such locks
            pass
        yield
    finally:
        os.close(number)


def _unpacked(dataset_class: Any, data_dir: Path, folder: Path, train: bool) -> Any:
    """A data set of torchvision, which downloads and unpacks missing files."""
    try:
        return dataset_class(data_dir, train=train, download=True)
    except OSError:
        packed = [folder / name for name, _ in dataset_class.resources]
        if not all(path.is_file() for path in packed):
            raise
        # The folder is read-only and has the packed files.
        with TemporaryDirectory() as elsewhere:
            raw = Path(elsewhere, *folder.parts[-2:])
            raw.mkdir(parents=True)
            for path in packed:
                (raw / path.name).symlink_to(path.absolute())
            return dataset_class(elsewhere, train=train, download=True)


def _verify(packed: Path, md5: str) -> None:
    """Raise DataError if a downloaded file, or its unpacked content, is not as published.

    torchvision checks only files that it downloads itself, and never the unpacked content.
    """
    if not packed.exists():
        return  # torchvision will download it
    content = packed.read_bytes()
    again = "delete it, and it is downloaded again"
    if hashlib.md5(content, usedforsecurity=False).hexdigest() != md5:
        raise DataError(f"{packed} is truncated or changed, its md5 is not {md5}: {again}")
    unpacked = packed.with_suffix("")
    if unpacked.exists() and unpacked.read_bytes() != gzip.decompress(content):
        raise DataError(
            f"{unpacked} is truncated or changed, its content differs from {packed.name}: "
            f"delete it, and it is unpacked again"
        )


def _load_digits(config: DataConfig) -> Images:
    """scikit-learn's 1,797 handwritten digits of 8×8, values 0 … 16."""
    from sklearn.datasets import load_digits
    from torchvision.transforms.v2.functional import resize

    images, labels = load_digits(return_X_y=True)
    pixels = torch.from_numpy(images).float().mul_(255 / 16).view(-1, 1, 8, 8)
    # Resize in float32, and round to whole levels last.
    pixels = resize(pixels, [config.image_size, config.image_size], antialias=True)
    return Images(pixels.round().byte(), torch.from_numpy(labels), tuple("0123456789"))
