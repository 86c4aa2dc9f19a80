"""The scores of a generator snapshot: their values, titles and formats. No torch."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
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
    Score("recall", "recall", ".3f", "share of real images that it can draw", True),
    Score("coverage", "coverage", ".3f", "share of real images with a generated one near", True),
    Score(
        "class_tv",
        "class shares",
        ".3f",
        "share of its images in other classes than real images (total variation)",
        needs_classes=True,
    ),
)


def shown(scores: Scores) -> list[Score]:
    """The scores to show for these images: class shares need several classes."""
    return [score for score in SCORES if not score.needs_classes or len(scores.class_counts) > 1]


def _missing(value: Any) -> bool:
    return value in ([], "", 0) if not isinstance(value, float) else math.isnan(value)
