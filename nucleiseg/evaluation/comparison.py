"""Two sides opened and their images paired, before anything is scored."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from nucleiseg.errors import RunError
from nucleiseg.evaluation.count_pairs import pair_counts
from nucleiseg.evaluation.counted import is_run, open_run
from nucleiseg.evaluation.label_pairs import pair_labels
from nucleiseg.evaluation.sides import Side, add_images, check_images, open_side
from nucleiseg.evaluation.wording import list_reasons

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nucleiseg.evaluation.pairing import Paired


@dataclass(frozen=True)
class Comparison:
    """The images of two sides, paired."""

    found: Side
    expected: Side
    paired: Paired
    """At least one image."""


def compare(
    predicted: str,
    truth: str | Sequence[str],
    *,
    images: Sequence[str] = (),
    min_true_area_px: int = 0,
    for_pictures: bool = False,
) -> Comparison:
    """Pair predicted counts or label images with true ones, and match their nuclei.

    A dataset of bool or float, or one whose only value above 0 is 1 (or 255), holds
    masks: its instances are the 8-connected components of what is above 0.5, and the
    notes say so. Any other dataset of integers holds instance labels.

    Parameters
    ----------
    predicted : str
        A table (`.csv` or `.parquet`) with columns index and count; or `ARCHIVE:KEY`,
        label images in an npz or HDF5 archive, where KEY may be a glob over datasets;
        or the directory of a run, of which the label images are taken if it has them,
        else the table.
    truth : str or sequence of str
        Table or label images. Those for a run pair up with its datasets by their names
        (:func:`nucleiseg.evaluation.partners.open_partners`).
    images : sequence of str
        `ARCHIVE:KEY` of the images of predicted label images, in their order, for
        pictures; a run knows its own.
    min_true_area_px : int
        True nuclei of a smaller area become background (truth of label images only).
    for_pictures : bool
        Check first that there is what pictures of errors are made of.

    Raises
    ------
    RunError
        If a table is not usable or the images of the two sides do not pair up, or
        there can be no pictures.
    ArchiveError
        If label images cannot be found or read.
    """
    names = [truth] if isinstance(truth, str) else list(truth)
    if is_run(predicted):
        found, expected = open_run(predicted, names, min_true_area_px)
    else:
        found, expected = open_side([predicted]), open_side(names, min_true_area_px)
    if expected.table is not None and min_true_area_px > 0:
        raise RunError(
            f"{expected.name}: a least area of {min_true_area_px} px needs label "
            "images as truth, found a table; leave it at 0 or name ARCHIVE:KEY"
        )
    if images:
        found = add_images(found, images)
    tables = [side for side in (found, expected) if side.table is not None]
    if for_pictures and tables:
        raise RunError(
            f"{tables[0].name}: only counts, expected label images on both sides for "
            "pictures of errors; name ARCHIVE:KEY, or a run of nucleiseg segment"
        )
    if for_pictures:
        check_images(found)
    paired = (pair_counts if tables else pair_labels)(found, expected)
    if paired.rows.empty:
        raise RunError(
            f"{predicted}: no image is left to compare with {expected.name}, expected "
            f"one at least ({list_reasons(paired.left_out)}); mend the failed images "
            "first"
        )
    return Comparison(found, expected, paired)
