"""Predictions against truth: read both, pair their images, score them.

Either side is a table of counts (CSV or Parquet) or label images (`ARCHIVE:KEY`). How
images are paired:

- table and table: on `index`, and on `archive` and `dataset` where both have them;
- otherwise: datasets in their order (in a table, of first appearance), then `index`.

Every image must find its partner; what has one but no count (a failed image) is left
out of the scores and reported. Label images are read in pieces of bounded memory.
"""

import dataclasses
import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from nucleiseg.archives import DatasetInfo, find_labels, open_reader, split_name
from nucleiseg.errors import ArchiveError, RunError
from nucleiseg.metrics import (
    CountScores,
    Estimate,
    InstanceMatches,
    InstanceScores,
    concatenate_matches,
    count_instances,
    count_scores,
    instance_scores,
    match_instances,
    remove_small_instances,
)

Labels = NDArray[np.integer]

# As int64, which is what matching works in; one image is always read whole.
_PIECE_BYTES = 32 * 2**20
_TABLE_SUFFIXES = (".csv", ".parquet")
_COLUMNS = {
    "index": "Int64",
    "count": "Int64",
    "archive": "string",
    "dataset": "string",
    "status": "string",
    "reason": "string",
}


@dataclass(frozen=True)
class DatasetScores:
    """Counts of one dataset; relative errors as fractions, NaN without true nuclei."""

    name: str
    n_images: int
    true_total: int
    predicted_total: int
    count_error: float
    bias: float


@dataclass(frozen=True)
class Evaluation:
    """The scores of one prediction against one truth."""

    predicted: str
    truth: str
    n_images: int
    """Images compared."""
    n_failed: int
    """Images, and archives that could not be read, without a predicted count."""
    left_out: dict[str, int]
    """Why images were not compared, and how many of each (the failed ones too)."""
    counts: CountScores
    instances: InstanceScores | None
    """None unless both sides are label images."""
    datasets: tuple[DatasetScores, ...]
    """One each where there are several, else empty."""
    notes: tuple[str, ...]
    """What a reader must know of how instances were made."""

    def to_dict(self) -> dict[str, Any]:
        """Give everything as dicts, lists, strings and numbers, NaN as None."""
        content = _to_plain(dataclasses.asdict(self))
        assert isinstance(content, dict)
        return content

    def to_text(self) -> str:
        """Give an aligned table for the terminal, without a newline at its end."""
        sections = [_head_lines(self), _count_lines(self.counts)]
        if self.instances is not None:
            sections.append(_instance_lines(self.instances))
        if self.datasets:
            sections.append(_dataset_lines(self.datasets))
        if self.notes:
            sections.append([f"note: {note}" for note in self.notes])
        return "\n\n".join("\n".join(lines) for lines in sections)


@dataclass(frozen=True)
class _LabelDataset:
    """Label images of one dataset, and how they become instances."""

    path: Path
    info: DatasetInfo
    is_mask: bool
    min_area_px: int

    @property
    def group(self) -> str:
        return f"{self.path.name}:{self.info.key}"


@dataclass(frozen=True)
class _Paired:
    """One row an image compared, and what was left out."""

    rows: pd.DataFrame  # group (str), predicted, true (both int64)
    left_out: Counter[str]
    n_failed: int
    matches: InstanceMatches | None
    notes: list[str]


def evaluate(
    predicted: str,
    truth: str,
    *,
    min_true_area_px: int = 0,
    rng: np.random.Generator | None = None,
) -> Evaluation:
    """Score predicted counts or label images against true ones.

    A dataset of bool or float, or one whose only value above 0 is 1 (or 255), holds
    masks: its instances are the 8-connected components of what is above 0.5, and the
    result's notes say so. Any other dataset of integers holds instance labels.

    Parameters
    ----------
    predicted, truth : str
        A table (`.csv` or `.parquet`) with columns index and count, or `ARCHIVE:KEY`,
        label images in an npz or HDF5 archive; KEY may be a glob over datasets.
    min_true_area_px : int
        True nuclei of a smaller area become background (truth of label images only).
    rng : numpy.random.Generator, optional
        Source of the bootstrap; by default one of seed 0, so that equal input gives
        equal intervals.

    Returns
    -------
    Evaluation
        Intervals are 95 % bootstrap intervals over images.

    Raises
    ------
    RunError
        If a table is not usable or the images of the two sides do not pair up.
    ArchiveError
        If label images cannot be found or read.
    """
    if _is_table(truth) and min_true_area_px > 0:
        raise RunError(
            f"{truth}: a least area of {min_true_area_px} px needs label images as "
            "truth, found a table; leave it at 0 or name ARCHIVE:KEY"
        )
    if _is_table(predicted) or _is_table(truth):
        paired = _pair_counts(predicted, truth, min_true_area_px)
    else:
        paired = _pair_labels(predicted, truth, min_true_area_px)
    if paired.rows.empty:
        raise RunError(
            f"{predicted}: no image is left to compare with {truth}, expected one at "
            f"least ({_describe(paired.left_out)}); mend the failed images first"
        )
    return _score(predicted, truth, paired, rng or np.random.default_rng(0))


def _score(
    predicted: str, truth: str, paired: _Paired, rng: np.random.Generator
) -> Evaluation:
    rows = paired.rows
    groups = list(rows.groupby("group", sort=False))
    datasets = [_score_dataset(str(name), part) for name, part in groups]
    matches = paired.matches
    return Evaluation(
        predicted=predicted,
        truth=truth,
        n_images=len(rows),
        n_failed=paired.n_failed,
        left_out=dict(paired.left_out.most_common()),
        counts=count_scores(
            rows["predicted"].to_numpy(), rows["true"].to_numpy(), rng=rng
        ),
        instances=None if matches is None else instance_scores(matches, rng=rng),
        datasets=tuple(datasets) if len(datasets) > 1 else (),
        notes=tuple(paired.notes),
    )


def _score_dataset(name: str, rows: pd.DataFrame) -> DatasetScores:
    scores = count_scores(rows["predicted"].to_numpy(), rows["true"].to_numpy())
    return DatasetScores(
        name=name,
        n_images=scores.n_images,
        true_total=scores.true_total,
        predicted_total=scores.predicted_total,
        count_error=scores.count_error.value,
        bias=scores.bias.value,
    )


# ---- pairing


def _pair_labels(predicted: str, truth: str, min_true_area_px: int) -> _Paired:
    """Match label images with label images, dataset by dataset, piece by piece."""
    sides = _open_labels(predicted), _open_labels(truth, min_true_area_px)
    _check_shapes(predicted, truth, *sides)
    nothing = np.zeros((0, 1, 1), np.uint8)
    matches = [match_instances(nothing, nothing)]
    groups: list[str] = []
    for one, other in zip(*sides, strict=True):
        for pair in zip(_read_pieces(one), _read_pieces(other), strict=True):
            matches.append(match_instances(*pair))
            groups += [one.group] * len(pair[0])
    joined = concatenate_matches(matches)
    rows = pd.DataFrame(
        {"group": groups, "predicted": joined.n_predicted, "true": joined.n_true}
    )
    notes = _note_masks(sides[0]) + _note_masks(sides[1])
    return _Paired(rows, Counter(), 0, joined, notes)


def _pair_counts(predicted: str, truth: str, min_true_area_px: int) -> _Paired:
    """Join the counts of two sides, one of which is a table at least."""
    found, p_notes = _read_counts(predicted)
    expected, t_notes = _read_counts(truth, min_true_area_px)
    both_tables = _is_table(predicted) and _is_table(truth)
    keys = _shared_names(found, expected) if both_tables else []
    found, expected, left_out = _drop_unreadable(found, expected, keys)
    if both_tables:
        _check_names_suffice(predicted, truth, found, expected, keys)
    else:
        found, expected = _number_datasets(predicted, truth, found, expected)
        keys = ["place"]
    _check_partners(predicted, truth, found, expected, [*keys, "index"])
    joined = found.merge(expected, on=[*keys, "index"], suffixes=("", "_true"))
    failed = joined["count"].isna()
    left_out.update(joined.loc[failed, "reason"])
    n_failed = left_out.total()
    uncounted = joined["count_true"].isna() & ~failed
    left_out.update(["the truth has no count"] * int(uncounted.sum()))
    kept = joined[~failed & ~uncounted]
    rows = pd.DataFrame(
        {
            "group": kept["group"],
            "predicted": kept["count"].astype("int64"),
            "true": kept["count_true"].astype("int64"),
        }
    )
    return _Paired(rows, left_out, n_failed, None, p_notes + t_notes)


def _shared_names(found: pd.DataFrame, expected: pd.DataFrame) -> list[str]:
    """Give the columns, of archive and dataset, that both tables have."""
    return [c for c in ("archive", "dataset") if c in found and c in expected]


def _drop_unreadable(
    found: pd.DataFrame, expected: pd.DataFrame, keys: list[str]
) -> tuple[pd.DataFrame, pd.DataFrame, Counter[str]]:
    """Set aside archives of which no image was read, one row without an index each.

    Where archives are named on both sides their images are set aside in the truth too,
    and counted; else such an archive counts as one.
    """
    left_out: Counter[str] = Counter()
    for row in found[found["index"].isna()].itertuples():
        n_images = 1
        if "archive" in keys:
            is_lost = expected["archive"] == row.archive
            n_images = max(1, int((is_lost & expected["index"].notna()).sum()))
            expected = expected[~is_lost]
        left_out[f"archive not read: {row.reason}"] += n_images
    return found[found["index"].notna()], expected[expected["index"].notna()], left_out


def _check_names_suffice(
    predicted: str,
    truth: str,
    found: pd.DataFrame,
    expected: pd.DataFrame,
    keys: list[str],
) -> None:
    """Refuse to join on less than what tells the datasets of either table apart."""
    for name, rows, other in ((predicted, found, truth), (truth, expected, predicted)):
        n_datasets = rows["group"].nunique()
        n_known = len(rows[keys].drop_duplicates()) if keys else 1
        if n_datasets > max(1, n_known):
            raise RunError(
                f"{name}: {n_datasets} datasets, which {other} does not tell apart "
                f"(shared columns: {', '.join([*keys, 'index'])}); give both tables "
                "the columns archive and dataset"
            )


def _number_datasets(
    predicted: str, truth: str, found: pd.DataFrame, expected: pd.DataFrame
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Add the column `place`, a dataset's place in order of appearance.

    Raises
    ------
    RunError
        If the sides differ in their number of datasets, or in the length of one.
    """
    sizes = [rows.groupby("group", sort=False).size() for rows in (found, expected)]
    n_found, n_expected = map(len, sizes)
    if n_found != n_expected:
        raise RunError(
            f"{predicted}: {n_found} datasets ({_first(sizes[0].index)}), but {truth} "
            f"has {n_expected} ({_first(sizes[1].index)}); name as many on both sides"
        )
    for (one, n_one), (other, n_other) in zip(
        sizes[0].items(), sizes[1].items(), strict=True
    ):
        if n_one != n_other:
            raise RunError(
                f"{predicted}: {n_one} images{_of(one)}, but {truth} has "
                f"{n_other}{_of(other)}; name datasets of the same images, in the "
                "same order"
            )
    return (
        found.assign(place=pd.factorize(found["group"])[0]),
        expected.assign(place=pd.factorize(expected["group"])[0]),
    )


def _check_partners(
    predicted: str,
    truth: str,
    found: pd.DataFrame,
    expected: pd.DataFrame,
    keys: list[str],
) -> None:
    """Refuse doubled rows, and rows without a partner on the other side."""
    for name, rows in ((predicted, found), (truth, expected)):
        doubled = rows[rows.duplicated(keys)]
        if len(doubled):
            raise RunError(
                f"{name}: more than one row for {_first_rows(doubled)}, expected one "
                "row an image; remove the doubled rows"
            )
    for name, rows, other, other_rows in (
        (predicted, found, truth, expected),
        (truth, expected, predicted, found),
    ):
        sought = other_rows.merge(rows[keys], on=keys, how="left", indicator=True)
        lacking = sought[sought["_merge"] == "left_only"]
        if len(lacking):
            raise RunError(
                f"{name}: no row for {_first_rows(lacking)}, expected one for every "
                f"image of {other} (paired by {', '.join(keys)}); give both sides the "
                "same images and names, or leave archive and dataset out of one table"
            )


def _check_shapes(
    predicted: str,
    truth: str,
    found: list[_LabelDataset],
    expected: list[_LabelDataset],
) -> None:
    """Refuse label images that do not lie over each other."""
    if len(found) != len(expected):
        keys = [_first([d.info.key for d in side]) for side in (found, expected)]
        raise RunError(
            f"{predicted}: {len(found)} datasets ({keys[0]}), but {truth} has "
            f"{len(expected)} ({keys[1]}); name as many on both sides"
        )
    for one, other in zip(found, expected, strict=True):
        shapes = [(d.info.n_images, *d.info.image_shape) for d in (one, other)]
        if shapes[0] != shapes[1]:
            raise RunError(
                f"{one.group}: shape {shapes[0]}, but {other.group} has {shapes[1]}; "
                "name label images of the same images, in the same order"
            )


# ---- reading


def _is_table(name: str) -> bool:
    return Path(name).suffix.lower() in _TABLE_SUFFIXES


def _read_counts(name: str, min_area_px: int = 0) -> tuple[pd.DataFrame, list[str]]:
    """Read or make a table of counts, one row an image, and notes on how.

    Returns
    -------
    DataFrame
        group (the dataset's name, "" where it has none), index and count (nullable
        integers; no count: reason says why), and archive, dataset if the table has
        them.
    list of str
        Notes for the reader of the scores.
    """
    if _is_table(name):
        return _read_table(name), []
    datasets = _open_labels(name, min_area_px)
    parts = []
    for dataset in datasets:
        pieces = [count_instances(piece) for piece in _read_pieces(dataset)]
        counts = np.concatenate([np.zeros(0, np.int64), *pieces])
        part = {"group": dataset.group, "index": range(len(counts)), "count": counts}
        parts.append(pd.DataFrame(part).astype({"index": "Int64", "count": "Int64"}))
    return pd.concat(parts, ignore_index=True).assign(reason=""), _note_masks(datasets)


def _read_table(name: str) -> pd.DataFrame:
    """Read and check a table of counts; see `_read_counts` for its columns."""
    try:
        rows = _load_table(Path(name))
    except (OSError, ValueError, TypeError) as error:
        raise RunError(
            f"{name}: cannot be read as a table ({' '.join(str(error).split())}); "
            "expected CSV in UTF-8 or Parquet, index and count whole numbers"
        ) from error
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
    parts = [rows[c].tolist() for c in ("archive", "dataset") if c in rows]
    names = zip(*parts, strict=True) if parts else [()] * len(rows)
    rows["group"] = [":".join(name) for name in names]
    if "reason" not in rows:
        rows["reason"] = ""
    if "status" in rows:
        rows.loc[rows["status"] == "failed", "count"] = pd.NA
    unnamed = rows["index"].isna() & rows["count"].notna()
    if unnamed.any():
        raise RunError(
            f"{name}: {int(unnamed.sum())} counts without an index, the first in row "
            f"{rows.index[unnamed][0]}; expected the image's position in its dataset"
        )
    rows["reason"] = rows["reason"].replace("", "no count, no reason given")
    return rows


def _load_table(path: Path) -> pd.DataFrame:
    """Load the columns of interest, of the dtypes in _COLUMNS; empty text is ""."""
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


def _open_labels(name: str, min_area_px: int = 0) -> list[_LabelDataset]:
    """Find the label datasets of `ARCHIVE:KEY`, and which of them hold masks."""
    path, key = split_name(name)
    if path.is_dir():
        raise RunError(
            f"{name}: a folder, expected a table or label images; name a file, for "
            "a run its counts.csv"
        )
    return [
        _LabelDataset(path, info, _holds_masks(path, info), min_area_px)
        for info in find_labels(path, key)
    ]


def _holds_masks(path: Path, info: DatasetInfo) -> bool:
    """Tell masks from instance labels; integers by their values, to the first two."""
    if np.dtype(info.dtype).kind in "bf":
        return True
    value = 0
    for piece in _read_raw(path, info):
        highest = int(piece.max(initial=0))
        value = value or highest
        if value not in (0, 1, 255) or ((piece != 0) & (piece != value)).any():
            return False
    return value != 0


def _read_raw(path: Path, info: DatasetInfo) -> Iterator[NDArray[Any]]:
    """Read a dataset in pieces (n, H, W) of bounded size."""
    height, width = info.image_shape
    step = max(1, _PIECE_BYTES // max(1, 8 * height * width))
    with open_reader(path, info.key) as reader:
        for start in range(0, info.n_images, step):
            yield reader.read(start, min(start + step, info.n_images))


def _read_pieces(dataset: _LabelDataset) -> Iterator[Labels]:
    """Read a dataset as instance labels, in pieces (n, H, W) of bounded size."""
    for piece in _read_raw(dataset.path, dataset.info):
        kind = piece.dtype.kind
        is_allowed = kind in "bu" or (kind == "i" and piece.min(initial=0) >= 0)
        if kind == "f":
            is_allowed = bool(((piece >= 0) & (piece <= 1)).all())
        if not is_allowed:
            raise ArchiveError(
                f"{dataset.group}: {piece.dtype} from {piece.min()} to {piece.max()} "
                "is neither label image nor mask; expected integers of 0 or more, or "
                "floats in 0–1"
            )
        labels = _label_components(piece) if dataset.is_mask else piece
        yield remove_small_instances(labels, dataset.min_area_px)


def _label_components(masks: NDArray[Any]) -> NDArray[np.int32]:
    """Label the 8-connected components of each mask, (n, H, W), above 0.5."""
    labels = np.zeros(masks.shape, np.int32)
    for image, mask in zip(labels, masks, strict=True):
        foreground = (mask > 0.5).astype(np.uint8)
        image[...] = cv2.connectedComponents(foreground, connectivity=8)[1]
    return labels


# ---- words


def _note_masks(datasets: list[_LabelDataset]) -> list[str]:
    notes = [
        f"{dataset.group} holds masks: its nuclei are their 8-connected components"
        for dataset in datasets
        if dataset.is_mask
    ]
    least_px = datasets[0].min_area_px if datasets else 0
    if least_px > 0:
        notes.append(f"true nuclei under {least_px} px are taken for background")
    return notes


def _first(values: Any, n: int = 5) -> str:
    """Write the first few values, and how many there are where they are more."""
    words = [str(value) or "unnamed" for value in values]
    rest = f" … ({len(words)} in all)" if len(words) > n else ""
    return ", ".join(words[:n]) + rest


def _first_rows(rows: pd.DataFrame) -> str:
    """Write the first few images, each with its dataset where that has a name."""
    pairs = zip(rows["group"], rows["index"], strict=True)
    return "index " + _first([f"{index}{_of(group)}" for group, index in pairs])


def _of(group: object) -> str:
    return f" of {group}" if group else ""


def _describe(left_out: dict[str, int]) -> str:
    """Write why images were left out, the commonest reasons first."""
    ranked = sorted(left_out.items(), key=lambda item: -item[1])
    return _first([f"{n} × {reason}" for reason, n in ranked]) or "none was left out"


def _to_plain(value: object) -> object:
    """Turn nested results into what JSON can hold; NaN and infinities into None."""
    if isinstance(value, dict):
        return {key: _to_plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_to_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _head_lines(evaluation: Evaluation) -> list[str]:
    n_all = evaluation.n_images + sum(evaluation.left_out.values())
    counts = evaluation.counts
    lines = [
        f"predicted  {evaluation.predicted}",
        f"truth      {evaluation.truth}",
        f"compared   {evaluation.n_images} of {n_all} images: "
        f"{counts.true_total} true, {counts.predicted_total} predicted nuclei",
    ]
    if evaluation.left_out:
        lines.append(
            f"left out   {n_all - evaluation.n_images} images, {evaluation.n_failed} "
            f"of them failed: {_describe(evaluation.left_out)}"
        )
    return lines


def _line(name: str, estimate: Estimate, unit: str = "", remark: str = "") -> str:
    """Write one figure: name, value, unit, interval; fractions as percent."""
    scale, digits = (100, 2) if unit == "%" else (1, 3)
    value, low, high = (
        "–" if math.isnan(number) else f"{scale * number:.{digits}f}"
        for number in dataclasses.astuple(estimate)
    )
    return f"{name:<30}{value:>9} {unit:<16}[{low}, {high}]  {remark}".rstrip()


def _count_lines(scores: CountScores) -> list[str]:
    skipped = f"{scores.n_without_nuclei} images without true nuclei left out"
    return [
        f"{'counts':<30}{'value':>9} {'':<16}95 % interval over images",
        _line("MAE", scores.mae, "nuclei an image"),
        _line("MAPE", scores.mape, "%", skipped if scores.n_without_nuclei else ""),
        _line("count error Σ|e|/Σtrue", scores.count_error, "%"),
        _line("bias Σe/Σtrue", scores.bias, "%"),
        _line("R²", scores.r2),
        _line("exact", scores.exact, "%"),
        _line("within ±5 %", scores.within_5_percent, "%"),
        _line("within ±10 %", scores.within_10_percent, "%"),
    ]


def _instance_lines(scores: InstanceScores) -> list[str]:
    lines = [
        f"{'instances':<30}{'value':>9} {'':<16}95 % interval over images",
        _line("AP(.50) pooled", scores.ap_pooled[0]),
        _line("F1(.50) pooled", scores.f1_pooled[0]),
        _line("mean AP .50–.95 pooled", scores.mean_ap_pooled),
        _line("mean AP .50–.90 pooled", scores.mean_ap_pooled_50_90),
        _line("mean AP .50–.95 per image", scores.mean_ap_per_image),
        _line("mean AP .50–.90 per image", scores.mean_ap_per_image_50_90),
        f"{'splits':<30}{scores.splits:>9} of {scores.n_true} true nuclei",
        f"{'merges':<30}{scores.merges:>9} of {scores.n_predicted} predicted nuclei",
        f"{'empty on both sides':<30}{scores.n_empty:>9} images, 1 each in per image",
        "",
        "IoU ≥   AP pooled   F1 pooled   AP per image   F1 per image",
    ]
    columns = (
        scores.ap_pooled,
        scores.f1_pooled,
        scores.ap_per_image,
        scores.f1_per_image,
    )
    for threshold, *estimates in zip(scores.thresholds, *columns, strict=True):
        a, b, c, d = (
            "–" if math.isnan(e.value) else f"{e.value:.3f}" for e in estimates
        )
        lines.append(f"{threshold:<5.2f}{a:>12}{b:>12}{c:>15}{d:>15}")
    return lines


def _dataset_lines(datasets: tuple[DatasetScores, ...]) -> list[str]:
    width = max(len("dataset"), *(len(dataset.name) for dataset in datasets))
    lines = [
        f"{'dataset':<{width}}{'images':>9}{'true':>11}{'predicted':>11}"
        f"{'count error %':>15}{'bias %':>9}"
    ]
    for d in datasets:
        error, bias = (
            "–" if math.isnan(number) else f"{100 * number:.2f}"
            for number in (d.count_error, d.bias)
        )
        lines.append(
            f"{d.name:<{width}}{d.n_images:>9}{d.true_total:>11}{d.predicted_total:>11}"
            f"{error:>15}{bias:>9}"
        )
    return lines
