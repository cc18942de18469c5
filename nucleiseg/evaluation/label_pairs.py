"""Label images against label images: every nucleus is matched."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import numpy as np

from nucleiseg.errors import RunError
from nucleiseg.evaluation.labels import LabelDataset, read_pieces
from nucleiseg.evaluation.pairing import NO_TRUTH, Paired, check_equally_many
from nucleiseg.metrics import concatenate_matches, match_instances

if TYPE_CHECKING:
    from nucleiseg.evaluation.sides import Side

_FAILED = "failed while it was segmented"


def pair_labels(found: Side, expected: Side) -> Paired:
    """Match label images with label images, dataset by dataset, piece by piece."""
    import pandas as pd

    keys = [
        [dataset.info.key for dataset in side.datasets] for side in (found, expected)
    ]
    check_equally_many(found.name, expected.name, *keys)
    pairs = list(zip(found.datasets, expected.datasets, strict=True))
    for one, other in pairs:
        _check_shapes(one, other)
    left_out = Counter(found.unread)
    nothing = np.zeros((0, 1, 1), np.uint8)
    matches = [match_instances(nothing, nothing)]
    tables = []
    for place, (one, other) in enumerate(pairs):
        start = 0
        for piece, truth in zip(read_pieces(one), read_pieces(other), strict=True):
            index = np.arange(start, start + len(piece))
            start += len(piece)
            is_failed = np.isin(index, one.failed)
            is_known = ~is_failed & ~np.isin(index, other.failed)
            left_out[_FAILED] += int(is_failed.sum())
            left_out[NO_TRUTH] += int((~is_failed & ~is_known).sum())
            matches.append(match_instances(piece[is_known], truth[is_known]))
            known = {"group": one.group, "place": place, "index": index[is_known]}
            tables.append(pd.DataFrame(known))
    joined = concatenate_matches(matches)
    columns = {"predicted": joined.n_predicted, "true": joined.n_true}
    rows = pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()
    rows = rows.assign(**columns)
    n_failed = len(found.unread) + left_out[_FAILED]
    # Without those of 0, which would be listed.
    return Paired(
        rows, +left_out, n_failed, joined, found.describe() + expected.describe()
    )


def _check_shapes(one: LabelDataset, other: LabelDataset) -> None:
    """Refuse label images that do not lie over each other."""
    shapes = [(d.info.n_images, *d.info.image_shape) for d in (one, other)]
    if shapes[0] != shapes[1]:
        raise RunError(
            f"{one.group}: shape {shapes[0]}, but {other.group} has {shapes[1]}; "
            "name label images of the same images, in the same order"
        )
