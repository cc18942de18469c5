"""A run of count or segment as the predicted side, and the truth in its order."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from nucleiseg.errors import RunError
from nucleiseg.evaluation.labels import LabelDataset, open_labels
from nucleiseg.evaluation.partners import open_partners
from nucleiseg.evaluation.sides import Side, open_side
from nucleiseg.evaluation.tables import is_table
from nucleiseg.evaluation.unread import name_unread
from nucleiseg.labels import name_dataset
from nucleiseg.runs import CountRun
from nucleiseg.shards import read_plan

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nucleiseg.shards import DatasetShare, Plan


def is_run(name: str) -> bool:
    """Tell the directory of a run from other folders, and from files."""
    return CountRun(Path(name)).plan.is_file()


def open_run(
    name: str, truth: Sequence[str], min_true_area_px: int = 0
) -> tuple[Side, Side]:
    """Open a run and its truth: label images if it has them, else its table.

    Parameters
    ----------
    name : str
        Run directory.
    truth : sequence of str
        A table, or label images, which :func:`open_partners` puts in the run's order.

    Raises
    ------
    RunError
        If the run is not finished, or the truth does not fit it.
    """
    run = CountRun(Path(name))
    if any(is_table(one) for one in truth):
        return Side(name, table=_find_table(run)), open_side(truth)
    plan = read_plan(run.plan)
    shares = plan.dataset_shares
    titles = [_title(plan, share) for share in shares]
    expected = Side(
        ", ".join(truth),
        datasets=open_partners(name, titles, truth, min_true_area_px),
    )
    if not run.labels().is_file():
        note = (
            f"{name} has no label images: only counts are compared; nucleiseg segment "
            "makes both"
        )
        return Side(name, table=_find_table(run), notes=(note,)), expected
    found = Side(
        name,
        datasets=[_open_labels(run, plan, share) for share in shares],
        unread=tuple(
            name_unread(entry.dataset, str(entry.reason)) for entry in plan.unreadable
        ),
    )
    return found, expected


def _find_table(run: CountRun) -> str:
    path = run.find_table()
    if path is None:
        raise RunError(
            f"{run.root}: a run without counts.csv or counts.parquet, expected its "
            "table; let it end, or call nucleiseg merge"
        )
    if path == run.table("notebook"):
        raise RunError(
            f"{path}: the table written last names no images, expected counts.csv or "
            f"counts.parquet; call nucleiseg count again, with --run {run.root} "
            "--format csv: what is done is only merged"
        )
    return str(path)


def _title(plan: Plan, share: DatasetShare) -> str:
    return f"{plan.archives[share.archive].name}:{share.dataset}"


def _open_labels(run: CountRun, plan: Plan, share: DatasetShare) -> LabelDataset:
    """Open the label images of one dataset, and name the images they belong to."""
    archive = plan.archives[share.archive]
    key = name_dataset(archive.name, share.dataset)
    (dataset,) = open_labels(f"{run.labels()}:{key}")
    return replace(
        dataset,
        title=_title(plan, share),
        images=(Path(archive.path), share.dataset),
    )
