"""What tuning is worth on images that it has not seen: halves with each other's."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nucleiseg.config import InstancesConfig
from nucleiseg.evaluation import Choice, Table
from nucleiseg.instances import label_at_size
from nucleiseg.metrics import (
    Estimate,
    InstanceMatches,
    concatenate_matches,
    count_scores,
    instance_scores,
    match_instances,
)
from nucleiseg.tuning.confidence import (
    Judged,
    Trust,
    calibrate,
    judge_image,
    measure_trust,
)
from nucleiseg.tuning.labelled_maps import LabelledMaps

_N_FOLDS = 2


@dataclass(frozen=True)
class Crossed:
    """Each half of the images with what the other half chose."""

    scores: dict[str, Estimate]
    """By name."""
    plain: Trust | None
    """In the mean foreground probability of a nucleus; None where one of the halves
    has no nuclei."""
    calibrated: Trust | None
    """In the calibrated confidence; likewise."""

    def as_dict(self) -> dict[str, Any]:
        """Values for a file, rounded."""
        trusts = {"plain": self.plain, "calibrated": self.calibrated}
        return {
            **{
                name: [round(figure, 4) for figure in (one.value, one.low, one.high)]
                for name, one in self.scores.items()
            },
            "confidence": {
                name: trust and trust.as_dict() for name, trust in trusts.items()
            },
        }


def apply_choice(choice: Choice, before: InstancesConfig) -> InstancesConfig:
    """Put the chosen thresholds in place of others; the method stays."""
    chosen = {
        "threshold": choice.threshold,
        "seed_threshold": choice.seed_threshold,
        "min_area_px": choice.min_area_px,
    }
    return before.model_copy(update=chosen)


def label_and_judge(
    image: LabelledMaps, settings: InstancesConfig
) -> tuple[NDArray[np.int32], Judged]:
    """Label an image as a count would, and say which nuclei are right."""
    maps = image.load()
    labels = label_at_size(maps, image.truth.shape, settings)
    return labels, judge_image(maps, labels, image.truth)


def cross(
    found: Sequence[LabelledMaps], table: Table, before: InstancesConfig
) -> Crossed:
    """Score each half of every group with thresholds and calibration of the other.

    Parameters
    ----------
    found : sequence of LabelledMaps
    table : Table
        Of these images.
    before : InstancesConfig
        Says the method.
    """
    folds = assign_folds([image.group for image in found])
    settings = [
        apply_choice(table.choose(np.flatnonzero(folds != fold)), before)
        for fold in range(_N_FOLDS)
    ]
    matches: list[InstanceMatches] = []
    judged: list[Judged] = []
    # What the images say of the thresholds that they themselves chose.
    others: list[list[Judged]] = [[] for _ in range(_N_FOLDS)]
    for image, fold in zip(found, folds, strict=True):
        for number, chosen in enumerate(settings):
            labels, one = label_and_judge(image, chosen)
            if number == fold:
                matches.append(match_instances(labels, image.truth))
                judged.append(one)
            else:
                others[number].append(one)
    plain = calibrated = None
    calibrations = [calibrate(images) for images in others]
    shares = [
        calibration.apply(one.scores)
        for one, fold in zip(judged, folds, strict=True)
        if (calibration := calibrations[fold]) is not None
    ]
    if len(shares) == len(judged) and any(len(one.scores) for one in judged):
        plain = measure_trust(judged, [one.probabilities for one in judged])
        calibrated = measure_trust(judged, shares)
    return Crossed(_score(concatenate_matches(matches)), plain, calibrated)


def _score(matches: InstanceMatches) -> dict[str, Estimate]:
    nuclei = instance_scores(matches, rng=np.random.default_rng(0))
    counts = count_scores(
        matches.n_predicted, matches.n_true, rng=np.random.default_rng(0)
    )
    return {
        "AP(.5)": nuclei.ap_pooled[0],
        "mean AP(.5-.9)": nuclei.mean_ap_pooled_50_90,
        "F1(.5)": nuclei.f1_pooled[0],
        "count error": counts.count_error,
        "bias": counts.bias,
    }


def assign_folds(groups: Sequence[str]) -> NDArray[np.intp]:
    """Put the images of each group into halves, by turns."""
    seen: dict[str, int] = {}
    folds = []
    for group in groups:
        folds.append(seen.get(group, 0) % _N_FOLDS)
        seen[group] = seen.get(group, 0) + 1
    return np.array(folds, dtype=np.intp)
