"""Counts against counts, one side of which is a table at least: images are joined."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from nucleiseg.errors import RunError
from nucleiseg.evaluation.counts import Counts, read_counts
from nucleiseg.evaluation.pairing import NO_TRUTH, Paired, check_equally_many
from nucleiseg.evaluation.unread import drop_unread
from nucleiseg.evaluation.wording import list_images, of_group

if TYPE_CHECKING:
    from nucleiseg.evaluation.sides import Side


def pair_counts(predicted: Side, truth: Side) -> Paired:
    """Join the counts of two sides, one of which is a table at least."""
    found, expected = read_counts(predicted), read_counts(truth)
    both_tables = predicted.table is not None and truth.table is not None
    names = _shared_names(found, expected) if both_tables else []
    found, expected, left_out = drop_unread(found, expected, names)
    if both_tables:
        _check_names_suffice(found, expected, names)
        keys = [*names, "index"]
    else:
        found, expected = _number_datasets(found, expected)
        keys = ["place", "index"]
    _check_partners(found, expected, keys)
    joined = found.rows.merge(expected.rows, on=keys, suffixes=("", "_true"))
    failed = joined["count"].isna()
    left_out.update(joined.loc[failed, "reason"])
    n_failed = left_out.total()
    uncounted = joined["count_true"].isna() & ~failed
    left_out.update([NO_TRUTH] * int(uncounted.sum()))
    columns = ["group", "place", "index", "count", "count_true"]
    kept = joined.loc[~failed & ~uncounted, columns]
    numbers = ["place", "index", "predicted", "true"]
    rows = kept.set_axis(["group", *numbers], axis="columns").astype(
        dict.fromkeys(numbers, "int64")
    )
    return Paired(rows, left_out, n_failed, None, found.notes + expected.notes)


def _shared_names(found: Counts, expected: Counts) -> list[str]:
    """Give the columns, of archive and dataset, that both tables have."""
    both = (found.rows, expected.rows)
    return [c for c in ("archive", "dataset") if all(c in rows for rows in both)]


def _check_names_suffice(found: Counts, expected: Counts, names: list[str]) -> None:
    """Refuse to join on less than what tells the datasets of either table apart."""
    for side, other in ((found, expected), (expected, found)):
        n_datasets = side.rows["place"].nunique()
        n_known = len(side.rows[names].drop_duplicates()) if names else 1
        if n_datasets > max(1, n_known):
            raise RunError(
                f"{side.name}: {n_datasets} datasets, which {other.name} does not tell "
                f"apart (shared columns: {', '.join([*names, 'index'])}); give both "
                "tables the columns archive and dataset"
            )


def _number_datasets(found: Counts, expected: Counts) -> tuple[Counts, Counts]:
    """Set `place` to the order in which a dataset appears, on both sides alike.

    Raises
    ------
    RunError
        If the sides differ in their number of datasets, or in the length of one.
    """
    # Not by their names: two may have the same.
    by_dataset = [c.rows.groupby("place", sort=False) for c in (found, expected)]
    sizes, true_sizes = (groups.size().tolist() for groups in by_dataset)
    names, true_names = (groups["group"].first().tolist() for groups in by_dataset)
    check_equally_many(found.name, expected.name, names, true_names)
    for one, other, n_one, n_other in zip(
        names, true_names, sizes, true_sizes, strict=True
    ):
        if n_one != n_other:
            raise RunError(
                f"{found.name}: {n_one} images{of_group(one)}, but {expected.name} has "
                f"{n_other}{of_group(other)}; name datasets of the same images, in the "
                "same order"
            )
    places, true_places = (groups.ngroup() for groups in by_dataset)
    return (
        replace(found, rows=found.rows.assign(place=places)),
        replace(expected, rows=expected.rows.assign(place=true_places)),
    )


def _check_partners(found: Counts, expected: Counts, keys: list[str]) -> None:
    """Refuse doubled rows, and rows without a partner on the other side."""
    for side in (found, expected):
        doubled = side.rows[side.rows.duplicated(keys)]
        if len(doubled):
            raise RunError(
                f"{side.name}: more than one row for {list_images(doubled)}, expected "
                "one row an image; remove the doubled rows"
            )
    for side, other in ((found, expected), (expected, found)):
        sought = other.rows.merge(side.rows[keys], on=keys, how="left", indicator=True)
        lacking = sought[sought["_merge"] == "left_only"]
        if len(lacking):
            raise RunError(
                f"{side.name}: no row for {list_images(lacking)}, expected one for "
                f"every image of {other.name} (paired by {', '.join(keys)}); give both "
                "sides the same images and names, or leave archive and dataset out of "
                "one table"
            )
