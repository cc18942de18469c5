"""The one file of label images that those of the partial tables are merged into."""

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from nucleiseg.atomic import atomic_path
from nucleiseg.labels import LabelDataset, LabelFile, decode, name_dataset
from nucleiseg.shards import Entry, Plan
from nucleiseg.tables.blocks import number_partials
from nucleiseg.tables.reading import Group, PartReader
from nucleiseg.tables.rows import LABELS

Place = tuple[int, str]
"""Archive number and key of a dataset."""


def write_label_images(path: Path, parts: PartReader, *, highest: int) -> None:
    """Write the label images of all datasets into one HDF5 file, atomically.

    Each dataset lies at the archive's name, as the table shows it, and its own path.
    Failed and missing images are 0, and attributes tell them. The same partial tables
    give the same bytes.

    Parameters
    ----------
    path : Path
    parts : PartReader
        Of a plan with labels.
    highest : int
        Highest count of all images.

    Raises
    ------
    RunError
        A partial table is missing, damaged or foreign; it is named.
    """
    plan = parts.plan
    tiled = _list_tiled(plan)
    pieces = (
        _make_piece(parts, group)
        for group in parts.read_groups(plan.shards, labels=True)
    )
    by_dataset = itertools.groupby(pieces, key=lambda piece: piece.place)
    with atomic_path(path) as temporary, LabelFile(temporary, highest) as file:
        following, its_pieces = _next(by_dataset)
        for place, shape in plan.label_shapes.items():
            dataset = file.add_dataset(
                name_dataset(plan.archives[place[0]].name, place[1]),
                shape,
                is_tiled=place in tiled,
            )
            writer = _DatasetWriter(parts, dataset)
            if place == following:
                writer.write(its_pieces)
                following, its_pieces = _next(by_dataset)
            writer.note()


@dataclass(frozen=True)
class _Piece:
    """A shard of whole images, or an image in blocks."""

    group: Sequence[Entry]
    """The shard, or all blocks of the image."""
    is_missing: bool = False
    partial: pa.Table | None = None
    """Of the shard."""
    numbers: Sequence[NDArray[np.uint32]] | None = None
    """For each block, from its own labels to those of the image; None: it failed."""

    @property
    def place(self) -> Place:
        return self.group[0].archive, str(self.group[0].dataset)


def _next(by_dataset: Any) -> tuple[Place | None, Iterable[_Piece]]:
    place, pieces = next(by_dataset, (None, ()))
    return place, pieces


def _list_tiled(plan: Plan) -> set[Place]:
    """List the datasets whose images are labelled in blocks."""
    blocks = plan.shards.select(plan.shards.is_block)
    places = np.unique(blocks.rows[["archive", "dataset"]])
    return {(archive, blocks.datasets[key]) for archive, key in places.tolist()}


def _make_piece(parts: PartReader, group: Group) -> _Piece:
    """Take the labels of a shard, or find out how those of blocks are joined."""
    if group.is_missing:
        return _Piece(group.entries, is_missing=True)
    if group.entries[0].block is None:
        return _Piece(group.entries, partial=group.partials[0])
    numbers = parts.join(group.entries, group.partials, number_partials)
    return _Piece(group.entries, numbers=numbers)


class _DatasetWriter:
    """Writes the label images of one dataset."""

    def __init__(self, parts: PartReader, dataset: LabelDataset) -> None:
        self._parts = parts
        self._dataset = dataset
        self._failed: list[int] = []
        self._n_missing = 0

    def write(self, pieces: Iterable[_Piece]) -> None:
        for piece in pieces:
            first = piece.group[0]
            if piece.is_missing:
                self._n_missing += first.n_images
            elif piece.partial is not None:
                self._write_images(first, piece.partial)
            elif piece.numbers is None:
                self._failed.append(first.start)
            else:
                self._write_blocks(piece.group, piece.numbers)

    def note(self) -> None:
        self._dataset.note(failed=self._failed, n_missing=self._n_missing)

    def _write_images(self, shard: Entry, partial: pa.Table) -> None:
        names = ["index", "count", "status", LABELS.name]
        columns = (partial.column(name).to_pylist() for name in names)
        for index, count, status, labels in zip(*columns, strict=True):
            if status != "ok":
                self._failed.append(index)
            elif count:
                try:
                    if labels is None:
                        raise ValueError(f"image {index} has no labels")
                    self._dataset.write_image(index, labels, count)
                except ValueError as error:
                    raise self._parts.explain_damage(shard, "labels", error) from error

    def _write_blocks(
        self, blocks: Sequence[Entry], numbers: Sequence[NDArray[np.uint32]]
    ) -> None:
        # One after the other: the labels of a block take tens of megabytes.
        for shard, its_numbers in zip(blocks, numbers, strict=True):
            partial = self._parts.read(shard)
            if partial is None or len(its_numbers) == 1:
                continue
            assert shard.block is not None
            block = shard.block
            shape = (block.bottom - block.top, block.right - block.left)
            (data,) = partial.column(LABELS.name).to_pylist()
            try:
                if data is None:
                    raise ValueError("it has no labels")
                renumbered = its_numbers[decode(data, shape)]
            except (ValueError, IndexError) as error:
                raise self._parts.explain_damage(shard, "labels", error) from error
            self._dataset.write_region(shard.start, block.core, renumbered)
