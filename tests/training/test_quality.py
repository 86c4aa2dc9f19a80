"""Compare the scores with torch-fidelity's and with known properties."""

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.support.files import ROOT
from tests.support.runs import TINY
from training.config import DataConfig
from training.data.datasets import load_images
from training.data.images import DataError, Images
from training.gan.state import TrainState
from training.scoring.distances import frechet_distance, kernel_distance, nearest
from training.scoring.extractor import Extractor, extractor_for, random_classifier
from training.scoring.reference import (
    SELECTION_SEED,
    Reference,
    reference_for,
    split_reals,
)
from training.scoring.subject import Subject

pytest.importorskip("torch_fidelity")

from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
from torch_fidelity.metric_kid import kid_features_to_metric
from torch_fidelity.metric_prc import prc_features_to_metric

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def digits() -> Images:
    return load_images(TINY.data)


@pytest.fixture(scope="module")
def extractor(digits: Images) -> Extractor:
    return extractor_for(digits, TINY.data.data_dir / "extractors", CPU)


@pytest.fixture(scope="module")
def reference(digits: Images, extractor: Extractor) -> Reference:
    return Reference(extractor, *split_reals(digits), "train")


def drawing(pixels: Tensor):  # type: ignore[no-untyped-def]
    """A generator that returns these images in turn, for any noise."""
    images = iter(pixels)
    return lambda z: torch.stack(list(itertools.islice(images, len(z))))


def test_scores_are_those_of_torch_fidelity(
    digits: Images, extractor: Extractor, reference: Reference
) -> None:
    noise = torch.randint(-40, 40, digits.pixels.shape, generator=torch.Generator().manual_seed(0))
    noisy = (digits.pixels + noise).clamp(0, 255).byte()[:898]
    scores = reference.score(Subject(drawing(noisy), 8), seed=0)

    fake, _ = extractor(noisy)
    real, _ = extractor(split_reals(digits)[0].pixels)
    statistics = [fid_features_to_statistics(features) for features in (fake, real)]
    fid = fid_statistics_to_metric(*statistics, verbose=False)["frechet_inception_distance"]
    assert scores.fcd == pytest.approx(fid, rel=1e-4)
    kid = kid_features_to_metric(fake, real, kid_subsets=1, kid_subset_size=898, verbose=False)
    assert scores.kid == pytest.approx(kid["kernel_inception_distance_mean"], rel=1e-4)
    prc = prc_features_to_metric(fake, real, prc_neighborhood=5, verbose=False)
    assert scores.precision == pytest.approx(prc["precision"], abs=2e-3)
    assert scores.recall == pytest.approx(prc["recall"], abs=2e-3)
    assert 0.02 < scores.precision < 0.98  # otherwise the comparison would show nothing


def test_real_images_score_as_real(digits: Images, reference: Reference) -> None:
    scores = reference.score(Subject(drawing(split_reals(digits)[1].pixels), 8), seed=0)
    assert scores.fcd == pytest.approx(reference.floor)
    assert scores.excess == pytest.approx(0, abs=1e-9)
    assert abs(scores.kid) < 0.02
    assert min(scores.precision, scores.recall, scores.coverage) > 0.85
    assert scores.class_tv < 0.05


def test_collapse_is_seen(digits: Images, reference: Reference) -> None:
    assert digits.labels is not None
    ones = digits.pixels[digits.labels == 1].repeat(8, 1, 1, 1)
    scores = reference.score(Subject(drawing(ones), 8), seed=0)
    assert scores.class_tv > 0.8
    assert scores.coverage < 0.2
    assert scores.excess > 0.3


def test_a_worse_generator_scores_worse(digits: Images, reference: Reference) -> None:
    """FCD grows with noise, as in figure 3 of Heusel et al. 2017."""
    others = split_reals(digits)[1].pixels
    generator = torch.Generator().manual_seed(0)
    distances = []
    for amplitude in (0, 20, 40, 80):
        noise = torch.randint(-amplitude, amplitude + 1, others.shape, generator=generator)
        noisy = (others + noise).clamp(0, 255).byte()
        distances.append(reference.score(Subject(drawing(noisy), 8), seed=0).fcd)
    assert distances == sorted(distances)
    assert distances[-1] > 5 * distances[0]


def test_too_few_images_are_refused(digits: Images, extractor: Extractor) -> None:
    with pytest.raises(DataError, match="11 images are too few"):
        reference_for(extractor, digits.take(torch.arange(11)), None)
    few = reference_for(extractor, digits.take(torch.arange(12)), None)
    assert np.isfinite(few.score(Subject(drawing(digits.pixels), 8), seed=0).fcd)


def test_a_copy_of_a_training_image_is_found(digits: Images) -> None:
    pixels = digits.pixels[[5, 900]].clone()
    pixels[1, 0, 0, :4] += 8  # four of 64 pixels: √(4 · 8² / 64) grey levels away
    distances, indices = nearest(pixels, digits.pixels)
    assert indices.tolist() == [5, 900]
    assert distances.tolist() == pytest.approx([0, 2], abs=0.02)
    _, others = nearest(digits.pixels[[5, 900]], digits.pixels, skip=1)
    assert not {5, 900} & set(others.tolist())


def test_the_frechet_distance_of_known_gaussians() -> None:
    """In one dimension, the distance is (m_a - m_b)^2 + (s_a - s_b)^2."""
    one = torch.ones(1, 1).double()
    a, b = (torch.tensor([3.0]).double(), 4 * one), (torch.tensor([1.0]).double(), 25 * one)
    assert frechet_distance(a, b) == pytest.approx(2**2 + (2 - 5) ** 2)
    assert frechet_distance(a, a) == pytest.approx(0)


def test_the_kernel_distance_is_unbiased() -> None:
    generator = torch.Generator().manual_seed(0)
    same = [kernel_distance(*torch.randn(2, 200, 8, generator=generator)) for _ in range(100)]
    error = np.std(same) / 10
    assert abs(np.mean(same)) < 4 * error


def test_one_noise_gives_one_score_and_another_nearly_the_same(reference: Reference) -> None:
    state = TrainState.create(TINY.network, TINY.recipe, (1, 8, 8), CPU, 0)
    subject = Subject.of(state.generator.eval())
    first, again, other = (
        reference.score(subject, seed) for seed in (SELECTION_SEED, SELECTION_SEED, 1)
    )
    assert first == again
    assert first.fcd != other.fcd
    assert first.fcd == pytest.approx(other.fcd, rel=0.1)


def test_an_extractor_is_trained_once(digits: Images, tmp_path: Path) -> None:
    few = digits.take(torch.arange(0, 1797, 30))
    first = extractor_for(few, tmp_path / "cache", CPU)
    (file,) = (tmp_path / "cache").iterdir()
    before = file.stat().st_mtime_ns
    again = extractor_for(few, tmp_path / "cache", CPU)
    assert file.stat().st_mtime_ns == before
    assert first.sha256 == again.sha256
    assert (first.kind, file.stem) == ("trained", few.sha256())


def test_unlabelled_images_use_random_features(digits: Images, tmp_path: Path) -> None:
    extractor = extractor_for(Images(digits.pixels, None, ()), tmp_path, CPU)
    assert extractor.kind == "random"
    assert not list(tmp_path.iterdir())
    # These scores also tell real digits from damaged ones.
    reference = Reference(extractor, *split_reals(Images(digits.pixels, None, ())), "train")
    damaged = split_reals(digits)[1].pixels.flip(3)
    assert reference.score(Subject(drawing(damaged), 8), seed=0).fcd > 2 * reference.floor


def test_the_random_features_are_fixed() -> None:
    """Images are chosen by the noise stream, not by a random generator that may change."""
    weight = next(random_classifier(1).parameters())
    assert weight.flatten()[:2].tolist() == pytest.approx([0.378367, -0.072360], abs=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "folder", "least"), [("mnist", "MNIST", 0.992),
                         ("fashion-mnist", "FashionMNIST", 0.92)])  # fmt: skip
def test_the_shipped_extractors_know_their_data(name: str, folder: str, least: float) -> None:
    """The extractor knows the classes. A missing class is worse than hardly visible noise."""
    config = DataConfig(dataset=name, data_dir=ROOT / "data")
    if not (config.data_dir / folder).is_dir():
        pytest.skip(f"no {folder} in {config.data_dir.name}/")
    images, test = load_images(config), load_images(config, train=False)
    extractor = extractor_for(images, config.data_dir / "extractors", CPU)
    assert extractor.kind == "shipped"
    _, predicted = extractor(test.pixels)
    assert test.labels is not None
    assert torch.eq(predicted, test.labels).float().mean() >= least
    half, others = split_reals(images)
    reference = Reference(extractor, half, others, "train")

    def excess(pixels: torch.Tensor) -> float:
        parts = iter(pixels[: reference.count].split(1000))
        return reference.score(Subject(lambda z: next(parts), 1), 0).excess

    noise = 10 * torch.randn(others.pixels.shape, generator=torch.Generator().manual_seed(0))
    noisy = (others.pixels + noise).round().clamp(0, 255).byte()
    assert others.labels is not None
    assert excess(others.pixels) == pytest.approx(0, abs=1e-6)
    assert 0 < excess(noisy) < excess(others.pixels[others.labels > 0]) / 2


def test_shipped_extractors_are_small() -> None:
    files = list((ROOT / "training" / "scoring" / "extractors").glob("*.safetensors"))
    assert {file.stem for file in files} == {"mnist", "fashion-mnist"}
    assert all(file.stat().st_size < 500_000 for file in files)
