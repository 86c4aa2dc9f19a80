"""How well a conditional generator draws each class: its own FCD, and whether it is recognised."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from inference.noise import latents
from training.scoring.scores import Draw, Reference, draw_all, frechet_distance, mean_and_covariance

_FEWEST = 2  # images that a covariance needs


@dataclass(frozen=True)
class ClassScore:
    """Generated images of one label against the real images of that class."""

    name: str
    fcd: float
    """Between them, in the extractor's features."""
    excess: float
    """(FCD - floor) / trace, both of this class: what real images of it have from one another."""
    recognised: float
    """Share of the generated images that the extractor takes for this class."""
    real_recognised: float
    """The same of the real images."""
    images: int
    """Generated images, and real ones; few of them make FCD and floor larger."""

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)


def score_classes(
    reference: Reference, draw: Draw, latent_dim: int, seed: int, names: Sequence[str]
) -> list[ClassScore]:
    """The scores of each label of a conditional generator, on images 0 and on of a seed.

    Empty where the real images have no labels, or those of other classes.
    """
    real, others = reference.real, reference.others
    if real.labels is None or others.labels is None or reference.classes != len(names):
        return []
    scores = []
    for label, name in enumerate(names):
        mine = (real.labels[: reference.count] == label).nonzero()[:, 0]
        theirs = (others.labels[: reference.count] == label).nonzero()[:, 0]
        count = min(len(mine), len(theirs))
        if count < _FEWEST:
            continue
        z = torch.from_numpy(latents(count, latent_dim, seed=seed))
        images = draw_all(draw, (z, torch.full((count,), label)))
        fake, fake_predicted = reference.extractor(images)
        statistics = mean_and_covariance(real.features[mine[:count]])
        others_of_it = mean_and_covariance(others.features[theirs[:count]])
        floor = frechet_distance(others_of_it, statistics)
        fcd = frechet_distance(mean_and_covariance(fake), statistics)
        scores.append(
            ClassScore(
                name=name,
                fcd=fcd,
                excess=(fcd - floor) / float(statistics[1].trace()),
                recognised=float((fake_predicted == label).double().mean()),
                real_recognised=float((real.predicted[mine] == label).double().mean()),
                images=count,
            )
        )
    return scores
