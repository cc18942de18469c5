"""What a run could not read of its inputs, and the true images that this leaves out."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from nucleiseg.archives.globs import compile_glob

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    import pandas as pd

    from nucleiseg.evaluation.counts import Counts

_Key = tuple[str, ...]


def name_unread(dataset: str | None, reason: str) -> str:
    """Say that nothing of an archive, or of a dataset where it is named, was read."""
    return f"{'dataset' if dataset else 'archive'} not read: {reason}"


def drop_unread(
    found: Counts, expected: Counts, names: list[str]
) -> tuple[Counts, Counts, Counter[str]]:
    """Set aside what no image was read of, archives or datasets: one row each.

    Such rows have no index. Where the truth names their images, these are set aside
    and counted; else such a row counts as one.

    Parameters
    ----------
    found, expected : Counts
    names : list of str
        The columns, of archive and dataset, that both have.

    Returns
    -------
    found, expected : Counts
        Rows with an index only.
    left_out : Counter
        Images by reason.
    """
    left_out: Counter[str] = Counter()
    is_image = found.rows["index"].notna()
    rows, unread = found.rows[is_image], found.rows[~is_image]
    true_rows = expected.rows[expected.rows["index"].notna()]
    # What was read is not lost, though another name for it failed.
    read = {*_list_keys(rows, names)}
    n_true = Counter(key for key in _list_keys(true_rows, names) if key not in read)
    lost: set[_Key] = set()
    for row in unread.to_dict("records"):
        keys = {*_find_named(row, n_true, names)} - lost
        lost |= keys
        reason = name_unread(row.get("dataset"), row["reason"])
        left_out[reason] += sum(n_true[key] for key in keys) or 1
    is_lost = [key in lost for key in _list_keys(true_rows, names)]
    return (
        replace(found, rows=rows),
        replace(expected, rows=true_rows[~np.array(is_lost, np.bool_)]),
        left_out,
    )


def _list_keys(rows: pd.DataFrame, names: list[str]) -> Iterator[_Key]:
    """List which archive and dataset, of the named columns, each row is of."""
    if not names:
        return iter([()] * len(rows))
    return rows[names].itertuples(index=False, name=None)


def _find_named(
    row: dict[Any, Any], keys: Iterable[_Key], names: list[str]
) -> list[_Key]:
    """Find what a row without an index names, as far as it names anything."""
    matchers = [
        (place, _make_matcher(name, row[name]))
        for place, name in enumerate(names)
        if row[name]
    ]
    if not matchers:
        return []
    return [
        key for key in keys if all(matches(key[place]) for place, matches in matchers)
    ]


def _make_matcher(column: str, text: str) -> Callable[[str], bool]:
    """Make what tells whether an archive or dataset is what a row names."""
    if column == "archive":
        return lambda name: name == text
    wanted = text.lstrip("/")
    try:
        # Of an archive that cannot be opened, the row has what the user named.
        glob = compile_glob(wanted)
    except re.error:
        glob = re.compile(re.escape(wanted))
    return lambda key: (
        key.lstrip("/") == wanted or bool(glob.fullmatch(key.lstrip("/")))
    )
