"""What is in an archive: every dataset with its range, and a look at the images."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nucleiseg.archives import (
    DatasetInfo,
    find_images,
    find_labels,
    find_unfit_images,
    list_datasets,
    open_reader,
)
from nucleiseg.errors import ArchiveError, ConfigError
from nucleiseg.report import name_files, save_inspection

_FIRST_BYTES = 256 * 2**20
_PIECE_BYTES = 16 * 2**20
_MOST_PICTURES = 8

# Names that labelled archives of this field give to their masks.
_MASK_NAMES = ("y", "mask", "masks", "label", "labels")


@dataclass(frozen=True)
class DatasetFacts:
    """A dataset, and the range of its values."""

    info: DatasetInfo
    lowest: float | None
    """Over the images looked at; None where they cannot be read as numbers."""
    highest: float | None
    n_looked_at: int
    problem: str | None = None
    """Why the range is not known, why it is no image, which images would fail, or of
    which dataset it is a further name."""
    is_damaged: bool = False
    """Whether its values cannot be read although its header can."""


def inspect_archive(
    path: Path, key: str | None = None, *, read_all: bool = False
) -> list[DatasetFacts]:
    """List the datasets of an archive, with ranges (notebook step N2).

    Parameters
    ----------
    path : Path
    key : str, optional
        Key or glob of the datasets to list; all of them by default. Of what a glob
        matches, tables and text are left out.
    read_all : bool
        Take ranges from all images instead of the first 256 MB of each dataset.

    Raises
    ------
    ArchiveError
        The archive cannot be read at all, or the key fits nothing in it.
    """
    infos = list_datasets(path) if key is None else _find(path, key)
    if not infos:
        raise ArchiveError(
            f"{path}: holds no datasets at all; save images in it, (N, H, W) or (H, W)"
        )
    facts = []
    listed = {info.key for info in infos}
    for info in infos:
        if info.alias_of in listed:
            words = f"is {info.alias_of} under another name (a hard link)"
            facts.append(DatasetFacts(info, None, None, 0, words))
            continue
        try:
            facts.append(_measure(path, info, read_all))
        except ArchiveError as error:
            reason = str(error).removeprefix(f"{path}:{info.key}: ")
            facts.append(DatasetFacts(info, None, None, 0, reason, is_damaged=True))
    return facts


def _find(path: Path, key: str) -> list[DatasetInfo]:
    """Find what a key chooses, and behind it what a glob matches but no one can use."""
    try:
        found = find_labels(path, key)
    except ArchiveError:
        # Masks may have any dtype; where there are none, images are what was meant.
        found = find_images(path, key)
    known = {info.key for info in found}
    # Of what is no image, masks are found already.
    unfit = [info for info in find_unfit_images(path, key) if info.key not in known]
    return found + unfit


def _measure(path: Path, info: DatasetInfo, read_all: bool) -> DatasetFacts:
    if info.label_problem is not None:
        return DatasetFacts(info, None, None, 0, info.problem or info.label_problem)
    height, width = info.image_shape
    image_bytes = max(1, height * width * np.dtype(info.dtype).itemsize)
    n_images = info.n_images
    if not read_all:
        n_images = min(n_images, max(1, _FIRST_BYTES // image_bytes))
    step = max(1, _PIECE_BYTES // image_bytes)
    lowest, highest, n_faulty = np.inf, -np.inf, 0
    with open_reader(path, info.key) as reader:
        for start in range(0, n_images, step):
            piece = reader.read(start, min(start + step, n_images))
            is_finite = np.isfinite(piece)
            n_faulty += int((~is_finite.all(axis=(1, 2))).sum())
            values = piece[is_finite]
            if values.size:
                lowest = min(lowest, float(values.min()))
                highest = max(highest, float(values.max()))
    problem = info.problem
    if n_images == 0:
        problem = problem or "holds 0 images; there is nothing to count"
    elif n_faulty:
        problem = problem or (
            f"{n_faulty:,} of {n_images:,} images hold NaN or infinite values and "
            "would fail; mask or clip them"
        )
    if lowest > highest:
        return DatasetFacts(info, None, None, n_images, problem)
    return DatasetFacts(info, lowest, highest, n_images, problem)


def draw_examples(
    path: Path, infos: Sequence[DatasetInfo], folder: Path, *, index: int
) -> list[Path]:
    """Draw one image of each image dataset, with its mask where there is one.

    Raises
    ------
    ConfigError
        `index` is beyond every dataset.
    """
    images = [
        info
        for info in infos
        if info.problem is None and info.has_image_sides and not _is_mask(info, infos)
    ]
    drawn: list[Path] = []
    names = name_files([info.key for info in images])
    for info, name in list(zip(images, names, strict=True))[:_MOST_PICTURES]:
        if not -1 < index < info.n_images:
            continue
        mask_info = _find_mask(info, infos)
        with open_reader(path, info.key) as reader:
            image = reader.read(index, index + 1)[0]
        mask = None
        if mask_info is not None:
            with open_reader(path, mask_info.key) as reader:
                mask = reader.read(index, index + 1)[0]
        folder.mkdir(parents=True, exist_ok=True)
        drawn += save_inspection(folder, image, mask, name=f"{name}-{index:06d}")
    if images and not drawn:
        longest = max(info.n_images for info in images)
        raise ConfigError(f"--index {index}: {path} holds images 0 to {longest - 1}")
    return drawn


def _split(info: DatasetInfo) -> tuple[str, str]:
    group, _, name = info.key.strip("/").rpartition("/")
    return group, name


def _is_mask(info: DatasetInfo, infos: Sequence[DatasetInfo]) -> bool:
    """Whether a dataset is named like a mask and lies beside its images."""
    group, name = _split(info)
    return name.lower() in _MASK_NAMES and any(
        other.problem is None
        and _split(other)[0] == group
        and _split(other)[1].lower() not in _MASK_NAMES
        for other in infos
    )


def _find_mask(info: DatasetInfo, infos: Sequence[DatasetInfo]) -> DatasetInfo | None:
    for other in infos:
        if (
            other is not info
            and other.label_problem is None
            and _split(other)[0] == _split(info)[0]
            and _split(other)[1].lower() in _MASK_NAMES
            and (other.n_images, other.image_shape) == (info.n_images, info.image_shape)
        ):
            return other
    return None
