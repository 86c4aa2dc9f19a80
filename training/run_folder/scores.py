"""The scores of a generator snapshot: their values, titles and formats. No torch."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Self

from training.run_folder.json_file import typed


@dataclass(frozen=True, kw_only=True)
class Scores:
    """How near generated images are to real ones, and how that was measured.

    An old file may lack a score that was added later; its value is then NaN or empty.
    """

    fcd: float = math.nan
    """Fréchet classifier distance: FID (Heusel et al. 2017, arXiv 1706.08500) in other features."""
    excess: float = math.nan
    """(FCD - floor) / trace: 0 for real images, about 1 for unrelated images."""
    kid: float = math.nan
    """Unbiased squared MMD with a cubic kernel. Bińkowski et al. 2018, arXiv 1801.01401."""
    precision: float = math.nan
    """Share of generated images inside the real manifold. Kynkäänniemi et al. 2019, k = 5."""
    recall: float = math.nan
    """Share of real images inside the generated manifold. Kynkäänniemi et al. 2019, k = 5."""
    coverage: float = math.nan
    """Share of real images with a generated one near. Naeem et al. 2020, k = 5."""
    class_tv: float = math.nan
    """Total variation between the predicted classes of generated and real images, 0 … 1."""
    by_heart: float = math.nan
    """How far the discriminator of that step knows training images from others, relative to
    generated ones: (train - held out) / (train - generated), of its mean logits. Karras et al. 2020
    (arXiv 2006.06676, equation 1) call this r_v."""
    logit_train: float = math.nan
    """Mean logit of training images."""
    logit_held_out: float = math.nan
    """Mean logit of real images that are never trained on."""
    logit_generated: float = math.nan
    """Mean logit of generated images."""
    held_out: int = 0
    """Number of these held-out images."""
    class_counts: list[int] = field(default_factory=list)
    """Generated images by predicted class."""
    real_class_counts: list[int] = field(default_factory=list)
    """Real images by predicted class."""
    images: int = 0
    """Number of generated images, and of real ones."""
    split: str = ""
    """Which real images: "train" or "test"."""
    floor: float = math.nan
    """FCD between these real images and the same number of other real images."""
    trace: float = math.nan
    """Trace of the covariance of the real images' features."""
    extractor: str = ""
    """"shipped", "trained" or "random"."""
    extractor_sha256: str = ""

    def to_dict(self) -> dict[str, Any]:
        """The measured values, as JSON values."""
        return {name: value for name, value in vars(self).items() if not _missing(value)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self | None:
        """The scores that `to_dict` made `values` of; None for no values. Ignores unknown keys.

        Raises:
            ValueError: for other values.
        """
        scores: Self | None = typed(cls, values) if values else None
        return scores

    def with_discriminator_of(self, other: "Scores | None") -> "Scores":
        """These scores, with what the discriminator said when `other` was measured."""
        return self if other is None else replace(self, **{n: getattr(other, n) for n in _OF_D})

    @property
    def measure(self) -> tuple[str, str, int, float]:
        """What the scores were measured with. Only scores of the same measure can be compared."""
        return self.extractor_sha256, self.split, self.images, self.floor


@dataclass(frozen=True)
class ClassScore:
    """Generated images of one label against the real images of that class."""

    name: str
    fcd: float
    """FCD between the two, in the extractor's features."""
    excess: float
    """(FCD - floor) / trace. The floor is the FCD between two sets of real images of this class."""
    recognised: float
    """Share of the generated images that the extractor classifies as this class."""
    real_recognised: float
    """Share of the real images that it classifies as this class."""
    images: int
    """Number of generated images, and of real ones. With few images, FCD and floor are larger."""

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)


@dataclass(frozen=True)
class Score:
    """How one score is named, printed and ranked."""

    name: str
    """The field of `Scores`."""
    title: str
    format: str
    meaning: str
    """Explains the score to a reader who does not know it."""
    higher_is_better: bool = False
    needs_classes: bool = False
    of_discriminator: bool = False
    """The score needs held-out images, and does not judge generated images."""

    @property
    def tag(self) -> str:
        """The name of the score in TensorBoard."""
        return f"quality/{self.title.replace(' ', '_').lower()}"

    @property
    def description(self) -> str:
        """The meaning, and which direction is better."""
        return f"{self.meaning}; {'higher' if self.higher_is_better else 'lower'} is better."

    def value(self, scores: Scores) -> float:
        """The value in `scores`; NaN if it was not measured."""
        found: float = getattr(scores, self.name)
        return found

    def text(self, scores: Scores | None) -> str:
        """The value as text for a reader; "-" if there is none."""
        value = math.nan if scores is None else self.value(scores)
        return "-" if math.isnan(value) else format(value, self.format)


_OF_D = ("by_heart", "logit_train", "logit_held_out", "logit_generated", "held_out")
SCORES = (
    Score("fcd", "FCD", ".3f", "Fréchet distance from real images, in a classifier's features"),
    Score(
        "excess",
        "excess FCD",
        ".2%",
        "FCD beyond that of other real images: 0 % is real, 100 % is far away",
    ),
    Score("kid", "KID", ".5f", "kernel distance from real images, in a classifier's features"),
    Score("precision", "precision", ".3f", "share of its images that look real", True),
    Score("recall", "recall", ".3f", "share of real images that it can generate", True),
    Score("coverage", "coverage", ".3f", "share of real images with a generated one near", True),
    Score(
        "class_tv",
        "class shares",
        ".3f",
        "share of its images in other classes than real images (total variation)",
        needs_classes=True,
    ),
    Score(
        "by_heart",
        "by heart",
        ".1%",
        "how far the discriminator has learned the training images by heart: 0 % if it takes "
        "held-out real images for training images, 100 % if it takes them for generated ones",
        of_discriminator=True,
    ),
)


def shown(found: Iterable[Scores | None]) -> list[Score]:
    """The scores to show: those that were measured. Class shares need several classes."""
    known = [scores for scores in found if scores]
    return [
        score
        for score in SCORES
        if any(
            not math.isnan(score.value(scores))
            and (not score.needs_classes or len(scores.class_counts) > 1)
            for scores in known
        )
    ]


def _missing(value: Any) -> bool:
    return value in ([], "", 0) if not isinstance(value, float) else math.isnan(value)
