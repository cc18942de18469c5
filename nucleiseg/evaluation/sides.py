"""What is compared: two sides, each a table of counts or label images."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from nucleiseg.archives import find_images, split_name
from nucleiseg.errors import RunError
from nucleiseg.evaluation.labels import (
    LabelDataset,
    describe_instances,
    name_apart,
    open_labels,
)
from nucleiseg.evaluation.tables import is_table
from nucleiseg.evaluation.wording import list_first

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from nucleiseg.archives import DatasetInfo


@dataclass(frozen=True)
class Side:
    """One side of a comparison."""

    name: str
    """As the user named it."""
    table: str | None = None
    """Path of a table of counts; None: label images."""
    datasets: list[LabelDataset] = field(default_factory=list)
    """Of label images, in the order in which those of both sides pair up."""
    unread: tuple[str, ...] = ()
    """What a run could not read of what it was to segment, and why, one each."""
    notes: tuple[str, ...] = ()

    def describe(self) -> list[str]:
        """Tell what a reader of the scores must know of this side."""
        return [*self.notes, *describe_instances(self.datasets)]


def open_side(names: Sequence[str], min_area_px: int = 0) -> Side:
    """Open a table, or the label images of one name or several, in their order."""
    words = ", ".join(names)
    tables = [name for name in names if is_table(name)]
    if tables and len(names) > 1:
        raise RunError(
            f"{tables[0]}: one of {len(names)} names, expected one table or label "
            "images only; name ARCHIVE:KEY each"
        )
    if tables:
        return Side(words, table=tables[0])
    found = [dataset for name in names for dataset in open_labels(name, min_area_px)]
    return Side(words, datasets=name_apart(found))


def add_images(side: Side, names: Sequence[str]) -> Side:
    """Say which images the label images of a side belong to, in their order.

    Raises
    ------
    RunError
        If they are not as many, or not of the same numbers and sizes.
    """
    images: list[tuple[Path, DatasetInfo]] = []
    for name in names:
        path, key = split_name(name)
        images += [(path, info) for info in find_images(path, key)]
    if len(images) != len(side.datasets):
        titles = [f"{path.name}:{info.key}" for path, info in images]
        groups = [dataset.group for dataset in side.datasets]
        raise RunError(
            f"{', '.join(names)}: {len(images)} datasets of images "
            f"({list_first(titles)}), expected one for each of the {len(groups)} of "
            f"{side.name} ({list_first(groups)}); name them in this order"
        )
    placed = []
    for (path, info), dataset in zip(images, side.datasets, strict=True):
        _check_shape(path, info, dataset)
        placed.append(replace(dataset, images=(path, info.key)))
    return replace(side, datasets=placed)


def check_images(side: Side) -> None:
    """Refuse images that are not where the label images of a side say they are.

    Raises
    ------
    RunError
        If their archive is gone, or they have other numbers or sizes.
    """
    for dataset in side.datasets:
        if dataset.images is None:
            continue
        path, key = dataset.images
        if not path.is_file():
            raise RunError(
                f"{path}: not found, expected the images of {dataset.group}, to draw "
                "on; name them where they are now by --images"
            )
        (info,) = find_images(path, key)
        _check_shape(path, info, dataset)


def _check_shape(path: Path, info: DatasetInfo, dataset: LabelDataset) -> None:
    shape, expected = ((one.n_images, *one.image_shape) for one in (info, dataset.info))
    if shape != expected:
        raise RunError(
            f"{path}:{info.key}: images of shape {shape}, expected {expected} as "
            f"{dataset.group} has it; name the images of these label images"
        )
