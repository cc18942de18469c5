"""One row an image compared: its counts and its errors."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from nucleiseg.metrics import average_precision

if TYPE_CHECKING:
    import pandas as pd

    from nucleiseg.evaluation.pairing import Paired


def list_images(paired: Paired) -> pd.DataFrame:
    """Make a table of the images that were compared, in their order.

    Returns
    -------
    DataFrame
        dataset, index, true, predicted and error (predicted − true); of label images
        also found, missed and false_positives (at IoU 0.50), splits, merges, ap_50 and
        mean_ap (0.50 to 0.95).
    """
    rows = paired.rows
    table = rows.rename(columns={"group": "dataset"})[
        ["dataset", "index", "true", "predicted"]
    ].assign(error=rows["predicted"] - rows["true"])
    if paired.matches is None:
        return table
    matches = paired.matches
    found = matches.true_positives[:, 0]
    precision = average_precision(matches)
    return table.assign(
        found=found,
        missed=matches.n_true - found,
        false_positives=matches.n_predicted - found,
        splits=matches.splits,
        merges=matches.merges,
        ap_50=precision[:, 0],
        mean_ap=precision.mean(axis=1),
    )


def rank_worst(images: pd.DataFrame) -> list[int]:
    """Rank the images of a table of label images, the worst first, by positions.

    By AP at IoU 0.50, which is low where any kind of error is common; of equal ones
    the image with more errors comes first. Images without any are left out.
    """
    kinds = images[["missed", "false_positives", "splits", "merges"]]
    n_errors = kinds.sum(axis=1).to_numpy()
    order = np.lexsort((np.arange(len(images)), -n_errors, images["ap_50"]))
    return [int(place) for place in order if n_errors[place]]
