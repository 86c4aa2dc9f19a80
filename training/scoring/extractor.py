"""The feature extractor: images are compared in the features of a small classifier.

The features of a photo classifier mean nothing on 28×28 digits. MNIST and Fashion-MNIST have fixed
extractors, which are shipped and made by `scripts/make_extractors.py`. Another labelled data set
trains its own extractor on first use. Unlabelled images use a network with random weights, which
can tell distributions apart too (Naeem et al., ICML 2020, arXiv 2002.09797).
"""

import hashlib
import logging
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn
from torch.nn import functional as F

from inference.noise import latents
from inference.writing.files import atomic_write
from inference.writing.plain_file import read_plain
from training.data.batches import Batches
from training.data.images import DataError, Images, normalised
from training.engine.precision import float32_products

FEATURES = 128
_FIRST_CHANNELS = 32
_MOST_BLUR = 0.5  # largest weight of the image blurred by (1, 2, 1) / 4 both ways
_MOST_NOISE = 0.15  # largest standard deviation, for pixels in [-1, 1]
_CHUNK = 250  # images at once: their activations fit into the processor's cache
_CHUNK_VALUES = 2**21  # activations of the first layer at once: fewer images where these are large
_LINE_SECONDS = 5.0  # between two lines of progress
_MOST_BYTES = 2**28  # of the file of an extractor
_SHIPPED = Path(__file__).with_name("extractors")
_SHIPPED_FOR = {
    "d18cfd466eb1": "mnist",
    "1f243a60b4b7": "fashion-mnist",
}  # by the first digits of the sha256 of the training images and labels
_log = logging.getLogger(__name__)


class Classifier(nn.Module):
    """A small convolutional classifier. The features are its last hidden layer, normalised."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *_convolution(channels, _FIRST_CHANNELS, 5, stride=2),
            *_convolution(_FIRST_CHANNELS, 48, 3),
            nn.MaxPool2d(2),
            *_convolution(48, 64, 3),
            nn.AdaptiveMaxPool2d(3),
            nn.Flatten(),
            nn.Linear(64 * 9, FEATURES, bias=False),
            nn.BatchNorm1d(FEATURES),
        )
        self.head = nn.Linear(FEATURES, classes)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Features (B, 128) and logits (B, classes) of images (B, C, H, W) in [-1, 1]."""
        features: Tensor = self.body(images)
        logits: Tensor = self.head(F.relu(features))
        return features, logits


@dataclass(frozen=True)
class Extractor:
    """A fixed network that gives features, and its origin."""

    network: Classifier
    kind: str
    """"shipped", "trained" on this data set, or "random"."""
    sha256: str
    """The sha256 of its file. Scores in different features cannot be compared."""

    def __call__(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Features (N, 128) and predicted classes (N,) of uint8 pixels (N, C, H, W)."""
        return self.of_parts([pixels])

    @float32_products()  # otherwise scores of an image would differ between programs
    @torch.no_grad()
    def of_parts(self, parts: Iterable[Tensor]) -> tuple[Tensor, Tensor]:
        """The same of images that come in parts."""
        features, predicted = [], []
        for pixels in parts:
            *_, height, width = pixels.shape
            values = _FIRST_CHANNELS * -(-height // 2) * -(-width // 2)
            for chunk in pixels.split(min(_CHUNK, max(1, _CHUNK_VALUES // values))):
                found, logits = self.network(normalised(chunk))
                features.append(found)
                predicted.append(logits.argmax(1))
        return torch.cat(features), torch.cat(predicted)


def extractor_for(
    images: Images,
    cache: Path,
    device: torch.device,
    *,
    spare: Path | None = None,
    least_steps: int = 300,
) -> Extractor:
    """The extractor of a data set: shipped, from the folder `cache`, or made now and kept there.

    spare: the file that keeps it if `cache` cannot be written; read before the cache.
    least_steps: the fewest steps to train one, for small data sets.

    Raises:
        DataError: for a damaged file.
    """
    data_sha256 = images.sha256()
    channels, classes = images.image_shape[0], max(len(images.classes), 1)
    shipped = _SHIPPED_FOR.get(data_sha256[:12])
    if shipped:
        content = (_SHIPPED / f"{shipped}.safetensors").read_bytes()
        return _extractor(content, "shipped", channels, classes, device)
    if images.labels is None:
        _log.info("images without labels: scored in features of a fixed random network")
        content = save(random_classifier(channels).state_dict())
        return _extractor(content, "random", channels, classes, device)
    path = cache / f"{data_sha256}.safetensors"
    found = _find([spare, path] if spare else [path])
    if found is None:
        _log.info("training a classifier of this data set, once, to score images by")
        content = save(train_classifier(images, least_steps=least_steps).state_dict())
        kept = _keep(content, path, spare)
    else:
        kept, content = found
    try:
        return _extractor(content, "trained", channels, classes, device)
    except (SafetensorError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise DataError(f"{kept} is damaged ({reason}): delete it, and it is made again") from None


def _find(places: list[Path]) -> tuple[Path, bytes] | None:
    """The first readable file and its content; None if there is none."""
    for place in places:
        with suppress(OSError):  # missing, or not readable
            return place, read_plain(place, _MOST_BYTES)
    return None


def train_classifier(
    images: Images, *, epochs: int = 6, seed: int = 0, least_steps: int = 300
) -> Classifier:
    """A classifier of labelled images, on their device, in eval mode.

    AdamW with one cycle of the learning rate (Smith and Topin 2018, arXiv 1708.07120). The images
    are shifted, blurred and made noisy a little. More epochs or label smoothing would pull each
    class together into a point, and then the features would distinguish classes, but not images.
    """
    assert images.labels is not None
    batches = Batches(images, min(128, len(images)), seed)
    steps = max(batches.epoch_end(epochs), least_steps)
    device = images.pixels.device
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed seeds all GPUs as well
        if device.type == "cuda":
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        network = Classifier(images.image_shape[0], len(images.classes))
        network.to(device).train()
        optimizer = torch.optim.AdamW(network.parameters(), weight_decay=0.01)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, steps)
        due = time.monotonic() + _LINE_SECONDS
        for step in range(steps):
            if time.monotonic() > due:
                _log.info("classifier: %d of %d steps", step, steps)
                due = time.monotonic() + _LINE_SECONDS
            indices = batches.indices(step)
            _, logits = network(_disturbed(_shifted(normalised(images.pixels[indices]))))
            loss = F.cross_entropy(logits, images.labels[indices])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return network.eval()


def random_classifier(channels: int) -> Classifier:
    """A network with He-normal weights taken from the noise stream, so that they never change."""
    network = Classifier(channels, 1).eval()
    for i, weight in enumerate(p for p in network.parameters() if p.ndim > 1):
        fan_in = weight[0].numel()
        values = torch.from_numpy(latents(len(weight), fan_in, seed=i))
        weight.data = values.view_as(weight) * (2 / fan_in) ** 0.5
    return network


def _keep(content: bytes, path: Path, spare: Path | None) -> Path:
    """Write the file of an extractor to the first possible place; returns this place."""
    for place in filter(None, (path, spare)):
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            with atomic_write(place) as file:
                file.write(content)
        except OSError as error:
            _log.warning("the classifier cannot be kept in %s: %s", place.parent, error.strerror)
        else:
            _log.info("the classifier is kept in %s", place)
            return place
    _log.warning("the classifier is not kept: it will be trained again the next time")
    return path


def _extractor(
    content: bytes, kind: str, channels: int, classes: int, device: torch.device
) -> Extractor:
    network = Classifier(channels, classes)
    network.load_state_dict(load(content))
    network.to(device).eval().requires_grad_(False)
    return Extractor(network, kind, hashlib.sha256(content).hexdigest())


def _convolution(n_in: int, n_out: int, size: int, stride: int = 1) -> list[nn.Module]:
    convolution = nn.Conv2d(n_in, n_out, size, stride, padding=size // 2, bias=False)
    return [convolution, nn.BatchNorm2d(n_out), nn.ReLU()]


def _shifted(images: Tensor) -> Tensor:
    """Move images by up to two pixels each way, all images of a batch alike."""
    padded = F.pad(images, (2, 2, 2, 2), value=-1.0)
    top, left = torch.randint(0, 5, (2,)).tolist()
    height, width = images.shape[2:]
    return padded[:, :, top : top + height, left : left + width]


def _disturbed(images: Tensor) -> Tensor:
    """Add a faint blur and faint noise, of a random strength for each image.

    Otherwise the features react to invisible changes: noise of 10 grey levels would raise FCD as
    much as half a missing class. Robust features: Alfarra et al. 2022, arXiv 2201.13019.
    """
    taps = images.new_tensor([1, 2, 1]) / 4
    channels = images.shape[1]
    kernel = torch.outer(taps, taps).expand(channels, 1, 3, 3)
    blurred = F.conv2d(F.pad(images, (1, 1, 1, 1), mode="replicate"), kernel, groups=channels)
    blur, noise = torch.rand(2, len(images), 1, 1, 1, device=images.device)
    disturbed = images.lerp(blurred, blur * _MOST_BLUR)
    disturbed += torch.randn_like(disturbed) * (noise * _MOST_NOISE)
    return disturbed.clamp_(-1, 1)
