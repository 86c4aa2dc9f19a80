"""Scores of each class of a conditional generator: its FCD, and whether it is recognised."""

from training.run_folder.scores import ClassScore
from training.scoring.distances import frechet_distance, mean_and_covariance
from training.scoring.reference import Reference
from training.scoring.subject import Subject

_FEWEST = 2  # a covariance needs two images


def score_classes(reference: Reference, subject: Subject, seed: int) -> list[ClassScore]:
    """The scores of each label of a conditional generator, from the first images of a seed.

    Empty if the real images have no labels, or another number of classes.
    """
    real, others = reference.real, reference.others
    if real.labels is None or others.labels is None or reference.classes != len(subject.classes):
        return []
    scores = []
    for label, name in enumerate(subject.classes):
        mine = (real.labels[: reference.count] == label).nonzero()[:, 0]
        theirs = (others.labels[: reference.count] == label).nonzero()[:, 0]
        count = min(len(mine), len(theirs))
        if count < _FEWEST:
            continue
        fake, fake_predicted = reference.extractor.of_parts(subject.images_of(label, count, seed))
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
