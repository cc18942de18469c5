"""Label images of one side, read in pieces of bounded memory."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from nucleiseg.archives import (
    DatasetInfo,
    find_labels,
    list_datasets,
    open_reader,
    split_name,
)
from nucleiseg.errors import ArchiveError, RunError
from nucleiseg.labels import MASK_VALUES, read_gaps
from nucleiseg.metrics import remove_small_instances
from nucleiseg.shards import shortest_names

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

# As int64, which is what matching works in; one image is always read whole.
_PIECE_BYTES = 32 * 2**20


@dataclass(frozen=True)
class LabelDataset:
    """Label images of one dataset, and how they become instances."""

    path: Path
    info: DatasetInfo
    is_mask: bool
    min_area_px: int
    failed: tuple[int, ...] = ()
    """Positions of images of which nothing is known: their labels are all 0."""
    title: str = ""
    """What to call it, if not by file and key: labels of a run, by their images; others
    by as much of the path as tells them apart."""
    images: tuple[Path, str] | None = None
    """Archive and key of the images it belongs to, where they are known."""

    @property
    def group(self) -> str:
        """The dataset's name in scores and messages."""
        return self.title or f"{self.path.name}:{self.info.key}"


def open_labels(name: str, min_area_px: int = 0) -> list[LabelDataset]:
    """Find the label datasets of `ARCHIVE:KEY`, and which of them hold masks.

    The key `*` alone means every dataset, in whatever folders they are, where none lies
    outside of folders: as in the label images of a run.
    """
    path, key = split_name(name)
    if path.is_dir():
        raise RunError(
            f"{name}: a folder, expected a table or label images; name a file, or the "
            "folder of a run of nucleiseg count or segment"
        )
    if key == "*" and all("/" in info.key.strip("/") for info in list_datasets(path)):
        key = "**"
    return [_open_dataset(path, info, min_area_px) for info in find_labels(path, key)]


def name_apart(datasets: Sequence[LabelDataset]) -> list[LabelDataset]:
    """Name datasets that are compared together so that their archives differ."""
    names = shortest_names([dataset.path.absolute() for dataset in datasets])
    return [
        replace(dataset, title=f"{name}:{dataset.info.key}")
        for name, dataset in zip(names, datasets, strict=True)
    ]


def _open_dataset(path: Path, info: DatasetInfo, min_area_px: int) -> LabelDataset:
    gaps = read_gaps(path, info.key)
    if gaps is None:
        return LabelDataset(path, info, _holds_masks(path, info), min_area_px)
    if gaps.n_missing:
        raise RunError(
            f"{path}:{info.key}: {gaps.n_missing} images are not segmented yet, "
            "expected all of them; run nucleiseg segment with the same run to its end"
        )
    if gaps.n_failed > len(gaps.failed):
        raise RunError(
            f"{path}:{info.key}: {gaps.n_failed} images failed, of which the file "
            f"names {len(gaps.failed)}, expected all of them to be named; mend the "
            "images and call nucleiseg retry, or compare the run's table of counts"
        )
    # Whoever notes gaps labels nuclei: a dataset of single nuclei is no mask.
    return LabelDataset(path, info, False, min_area_px, gaps.failed)


def describe_instances(datasets: list[LabelDataset]) -> list[str]:
    """Tell how the instances of datasets were made, where a reader must know."""
    notes = [
        f"{dataset.group} holds masks: its nuclei are their 8-connected components"
        for dataset in datasets
        if dataset.is_mask
    ]
    least_px = datasets[0].min_area_px if datasets else 0
    if least_px > 0:
        notes.append(f"true nuclei under {least_px} px are taken for background")
    return notes


def read_pieces(dataset: LabelDataset) -> Iterator[NDArray[np.integer]]:
    """Read a dataset as instance labels, in pieces (n, H, W) of bounded size."""
    for piece in _read_raw(dataset.path, dataset.info):
        yield _make_instances(dataset, piece)


def read_image(dataset: LabelDataset, index: int) -> NDArray[np.integer]:
    """Read one image of a dataset as instance labels, (H, W)."""
    with open_reader(dataset.path, dataset.info.key) as reader:
        piece = reader.read(index, index + 1)
    image: NDArray[np.integer] = _make_instances(dataset, piece)[0]
    return image


def _make_instances(dataset: LabelDataset, piece: NDArray[Any]) -> NDArray[np.integer]:
    """Turn what was read into instance labels, or refuse it."""
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
    return remove_small_instances(labels, dataset.min_area_px)


def _read_raw(path: Path, info: DatasetInfo) -> Iterator[NDArray[Any]]:
    """Read a dataset in pieces (n, H, W) of bounded size."""
    height, width = info.image_shape
    step = max(1, _PIECE_BYTES // max(1, 8 * height * width))
    with open_reader(path, info.key) as reader:
        for start in range(0, info.n_images, step):
            yield reader.read(start, min(start + step, info.n_images))


def _holds_masks(path: Path, info: DatasetInfo) -> bool:
    """Tell masks from instance labels; integers by their values, to the first two."""
    if np.dtype(info.dtype).kind in "bf":
        return True
    value = 0
    for piece in _read_raw(path, info):
        highest = int(piece.max(initial=0))
        value = value or highest
        if value not in (0, *MASK_VALUES) or ((piece != 0) & (piece != value)).any():
            return False
    return value != 0


def _label_components(masks: NDArray[Any]) -> NDArray[np.int32]:
    """Label the 8-connected components of each mask, (n, H, W), above 0.5."""
    labels = np.zeros(masks.shape, np.int32)
    for image, mask in zip(labels, masks, strict=True):
        foreground = (mask > 0.5).astype(np.uint8)
        image[...] = cv2.connectedComponents(foreground, connectivity=8)[1]
    return labels
