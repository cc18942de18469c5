"""The files of an evaluation: scores, tables, pictures of errors."""

from __future__ import annotations

import dataclasses
import re
from typing import TYPE_CHECKING, Any

from nucleiseg.archives import open_reader
from nucleiseg.atomic import atomic_path, write_json, write_text
from nucleiseg.evaluation.image_table import list_images, rank_worst
from nucleiseg.evaluation.labels import read_image
from nucleiseg.metrics import Estimate
from nucleiseg.report import save_errors

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd

    from nucleiseg.evaluation.comparison import Comparison
    from nucleiseg.evaluation.labels import LabelDataset
    from nucleiseg.evaluation.results import Evaluation

_ALL = "all"
_PICTURE = re.compile(r"\d{3,}-.*-\d{6,}\.png")


def write_results(
    folder: Path,
    comparison: Comparison,
    evaluation: Evaluation,
    *,
    n_pictures: int = 0,
) -> list[Path]:
    """Write everything that an evaluation found, each file atomically.

    Parameters
    ----------
    folder : Path
        Made if it is not there; results of an earlier evaluation are replaced.
    comparison : Comparison
        Of label images, if there are to be pictures.
    evaluation : Evaluation
        Of the comparison.
    n_pictures : int
        Worst images to draw; images without errors are not drawn.

    Returns
    -------
    list of Path
        `scores.json` (everything), `scores.txt` (the table for the terminal),
        `scores.csv` (one row for all images and one a dataset), `images.csv` (one row
        an image), and pictures in `worst`, of which the worst is number 1.
    """
    folder.mkdir(parents=True, exist_ok=True)
    images = list_images(comparison.paired)
    paths = [folder / f"scores.{kind}" for kind in ("json", "txt", "csv")]
    write_json(paths[0], evaluation.to_dict())
    write_text(paths[1], evaluation.to_text() + "\n")
    _write_csv(paths[2], _tabulate(evaluation))
    paths.append(folder / "images.csv")
    _write_csv(paths[-1], images.round(5))
    worst = folder / "worst"
    # Those of an earlier evaluation would be taken for some of this one.
    for path in worst.glob("*.png"):
        if _PICTURE.fullmatch(path.name):
            path.unlink()
    ranks = rank_worst(images)[:n_pictures] if n_pictures else []
    for number, position in enumerate(ranks, start=1):
        row = comparison.paired.rows.iloc[position]
        name = f"{number:03d}-{row['group']}-{row['index']:06d}"
        path = (
            worst / f"{name.replace(':/', '-').replace(':', '-').replace('/', '_')}.png"
        )
        paths.append(_draw(path, comparison, int(row["place"]), int(row["index"])))
    return paths


def _write_csv(path: Path, table: pd.DataFrame) -> None:
    with atomic_path(path) as temporary:
        table.to_csv(temporary, index=False, encoding="utf-8")


def _tabulate(evaluation: Evaluation) -> pd.DataFrame:
    """Make one row for all images and one a dataset, intervals beside figures."""
    import pandas as pd

    parts = [(_ALL, evaluation.counts, evaluation.instances)]
    parts += [(d.name, d.counts, d.instances) for d in evaluation.datasets]
    return pd.DataFrame(
        [
            {"dataset": name, **_flatten(counts), **_flatten(instances)}
            for name, counts, instances in parts
        ]
    ).round(5)


def _flatten(scores: Any) -> dict[str, float]:
    """Give the single figures of scores by name, and those at IoU 0.50 with `_50`."""
    row: dict[str, float] = {}
    for field in dataclasses.fields(scores) if scores is not None else ():
        name, value = field.name, getattr(scores, field.name)
        if isinstance(value, tuple) and isinstance(value[0], Estimate):
            name, value = f"{name}_50", value[0]
        if isinstance(value, Estimate):
            row[name] = value.value
            row[f"{name}_low"], row[f"{name}_high"] = value.low, value.high
        elif not isinstance(value, tuple):
            row[name] = value
    return row


def _draw(path: Path, comparison: Comparison, place: int, index: int) -> Path:
    """Draw the errors of one image of a dataset over it."""
    found = comparison.found.datasets[place]
    return save_errors(
        path,
        _read_pixels(found, index),
        read_image(found, index),
        read_image(comparison.expected.datasets[place], index),
        title=f"{found.group} · {index}",
    )


def _read_pixels(dataset: LabelDataset, index: int) -> Any:
    if dataset.images is None:
        return None
    with open_reader(*dataset.images) as reader:
        return reader.read(index, index + 1)[0]
