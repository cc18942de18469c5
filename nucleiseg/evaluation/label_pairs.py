"""Label images against label images: every nucleus is matched."""

from __future__ import annotations

from collections import Counter

import numpy as np

from nucleiseg.errors import RunError
from nucleiseg.evaluation.labels import (
    LabelDataset,
    describe_instances,
    open_labels,
    read_pieces,
)
from nucleiseg.evaluation.pairing import Paired, check_equally_many
from nucleiseg.metrics import concatenate_matches, match_instances


def pair_labels(predicted: str, truth: str, min_true_area_px: int) -> Paired:
    """Match label images with label images, dataset by dataset, piece by piece."""
    import pandas as pd

    found, expected = open_labels(predicted), open_labels(truth, min_true_area_px)
    keys = [[dataset.info.key for dataset in side] for side in (found, expected)]
    check_equally_many(predicted, truth, *keys)
    for one, other in zip(found, expected, strict=True):
        _check_shapes(one, other)
    nothing = np.zeros((0, 1, 1), np.uint8)
    matches = [match_instances(nothing, nothing)]
    groups: list[str] = []
    for one, other in zip(found, expected, strict=True):
        for pair in zip(read_pieces(one), read_pieces(other), strict=True):
            matches.append(match_instances(*pair))
            groups += [one.group] * len(pair[0])
    joined = concatenate_matches(matches)
    rows = pd.DataFrame(
        {"group": groups, "predicted": joined.n_predicted, "true": joined.n_true}
    )
    notes = describe_instances(found) + describe_instances(expected)
    return Paired(rows, Counter(), 0, joined, notes)


def _check_shapes(one: LabelDataset, other: LabelDataset) -> None:
    """Refuse label images that do not lie over each other."""
    shapes = [(d.info.n_images, *d.info.image_shape) for d in (one, other)]
    if shapes[0] != shapes[1]:
        raise RunError(
            f"{one.group}: shape {shapes[0]}, but {other.group} has {shapes[1]}; "
            "name label images of the same images, in the same order"
        )
