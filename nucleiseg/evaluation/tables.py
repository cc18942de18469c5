"""Tables of counts, read and checked."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from nucleiseg.errors import RunError

if TYPE_CHECKING:
    import pandas as pd

_SUFFIXES = (".csv", ".parquet")
_COLUMNS = {
    "index": "Int64",
    "count": "Int64",
    "archive": "string",
    "dataset": "string",
    "status": "string",
    "reason": "string",
}


def is_table(name: str) -> bool:
    """Tell a table from label images, by its suffix."""
    return Path(name).suffix.lower() in _SUFFIXES


def read_table(name: str) -> pd.DataFrame:
    """Read and check a table of counts.

    Returns
    -------
    DataFrame
        group (the dataset's name, "" where it has none), place (its number, in order
        of appearance), index and count (nullable integers), reason (why there is no
        count), and archive, dataset and status if the table has them.

    Raises
    ------
    RunError
        If the table cannot be read, or lacks what counts are compared by.
    """
    try:
        rows = _load_table(Path(name))
    except (OSError, ValueError, TypeError) as error:
        raise RunError(
            f"{name}: cannot be read as a table ({' '.join(str(error).split())}); "
            "expected CSV in UTF-8 or Parquet, index and count whole numbers"
        ) from error
    _check_numbers(name, rows)
    parts = [rows[c].tolist() for c in ("archive", "dataset") if c in rows]
    names = [*zip(*parts, strict=True)] if parts else [()] * len(rows)
    rows["group"] = [":".join(name) for name in names]
    places = {name: place for place, name in enumerate(dict.fromkeys(names))}
    rows["place"] = [places[name] for name in names]
    if "reason" not in rows:
        rows["reason"] = ""
    rows["reason"] = rows["reason"].replace("", "no count, no reason given")
    if "status" in rows:
        rows["count"] = rows["count"].mask(rows["status"] == "failed")
    _check_indexed(name, rows)
    return rows


def _load_table(path: Path) -> pd.DataFrame:
    """Load the columns of interest, of the dtypes in _COLUMNS; empty text is ""."""
    import pandas as pd

    if path.suffix.lower() == ".parquet":
        rows = pd.read_parquet(path)
    else:
        # An archive may be called "NA": only numbers can be missing.
        rows = pd.read_csv(
            path,
            encoding="utf-8-sig",
            usecols=lambda column: column in _COLUMNS,
            dtype=_COLUMNS,
            keep_default_na=False,
            na_values={"index": [""], "count": [""]},
        )
    dtypes = {c: dtype for c, dtype in _COLUMNS.items() if c in rows}
    texts = [column for column, dtype in dtypes.items() if dtype == "string"]
    return rows[list(dtypes)].astype(dtypes).fillna(dict.fromkeys(texts, ""))


def _check_numbers(name: str, rows: pd.DataFrame) -> None:
    """Refuse a table without index or count, or with negative ones."""
    missing = [column for column in ("index", "count") if column not in rows]
    if missing:
        raise RunError(
            f"{name}: no column {' and '.join(missing)}, expected index and count; "
            "name a table as `nucleiseg count` writes it"
        )
    negative = rows[(rows["count"] < 0) | (rows["index"] < 0)]
    if len(negative):
        raise RunError(
            f"{name}: {len(negative)} rows with a negative index or count, the first "
            f"in row {negative.index[0]}; expected 0 or more"
        )


def _check_indexed(name: str, rows: pd.DataFrame) -> None:
    """Refuse counts of which nobody can tell the image."""
    unnamed = rows["index"].isna() & rows["count"].notna()
    if unnamed.any():
        raise RunError(
            f"{name}: {int(unnamed.sum())} counts without an index, the first in row "
            f"{rows.index[unnamed][0]}; expected the image's position in its dataset"
        )
