"""What is in an archive: every dataset with its range, and a look at the images."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nucleiseg.archives import (
    DatasetInfo,
    Reader,
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
# Larger images are read in parts. Up to here HDF5 chunks that span several images are
# inflated once for all of them.
_LARGE_BYTES = 64 * 2**20
_MOST_PICTURES = 8
# Of a larger image the middle is drawn: scaling floats of it takes 50 bytes a pixel.
_MOST_PICTURE_PX = 4096 * 4096
_MIDDLE_PX = 2048

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
    """Whether its values cannot be read, here at least, although its header can."""


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
        except (ArchiveError, MemoryError) as error:
            reason = _explain(error)
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
    n_images = info.n_images
    if not read_all:
        n_images = min(n_images, max(1, _FIRST_BYTES // _find_image_bytes(info)))
    lowest, highest = np.inf, -np.inf
    faulty: set[int] = set()
    with open_reader(path, info.key) as reader:
        for start, piece in _read_pieces(reader, n_images):
            is_finite = np.isfinite(piece)
            is_whole = is_finite.all(axis=(1, 2))
            faulty.update((start + np.flatnonzero(~is_whole)).tolist())
            values = piece[is_finite]
            if values.size:
                lowest = min(lowest, float(values.min()))
                highest = max(highest, float(values.max()))
    n_faulty = len(faulty)
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


def _find_image_bytes(info: DatasetInfo) -> int:
    height, width = info.image_shape
    return max(1, height * width * np.dtype(info.dtype).itemsize)


def _read_pieces(
    reader: Reader, n_images: int
) -> Iterator[tuple[int, NDArray[np.generic]]]:
    """Read images in the order of the file, in pieces of bounded size.

    Yields
    ------
    start : int
        The first image of the piece.
    piece : (n, h, w) ndarray
        Several images, or where one is larger than a piece some of its rows.
    """
    image_bytes = _find_image_bytes(reader.info)
    if image_bytes <= _LARGE_BYTES:
        step = max(1, _PIECE_BYTES // image_bytes)
        for start in range(0, n_images, step):
            yield start, reader.read(start, min(start + step, n_images))
        return
    height, width = reader.info.image_shape
    is_fortran = reader.info.is_fortran
    n_lines = width if is_fortran else height
    step = max(1, _PIECE_BYTES * n_lines // image_bytes)
    for image in range(n_images):
        for start in range(0, n_lines, step):
            lines = (start, min(start + step, n_lines))
            rows, columns = (lines, (0, width))
            if is_fortran:
                rows, columns = (0, height), lines
            yield image, reader.read_region(image, rows, columns)[np.newaxis]


def _explain(error: ArchiveError | MemoryError) -> str:
    if isinstance(error, ArchiveError):
        return error.reason
    return (
        f"takes more memory than there is ({error or 'none left'}); use a machine with "
        "more, or write it in smaller chunks"
    )


@dataclass(frozen=True)
class Examples:
    """What was drawn of an archive."""

    pictures: tuple[Path, ...]
    notes: tuple[str, ...]
    """Which pictures show a part of an image only."""
    problems: tuple[str, ...]
    """Of which datasets there is no picture, and why."""


def draw_examples(
    path: Path, infos: Sequence[DatasetInfo], folder: Path, *, index: int
) -> Examples:
    """Draw one image of each image dataset, with its mask where there is one.

    Of an image of more than 4096 x 4096 pixels the middle is drawn, and a note says so.

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
    longest = max((info.n_images for info in images), default=0)
    if images and not -1 < index < longest:
        raise ConfigError(f"--index {index}: {path} holds images 0 to {longest - 1}")
    drawn: list[Path] = []
    notes, problems = [], []
    names = name_files([info.key for info in images])
    named = [
        (info, name)
        for info, name in zip(images, names, strict=True)
        if index < info.n_images
    ]
    for info, name in named[:_MOST_PICTURES]:
        note = _find_middle(info)[2]
        try:
            image = _read_middle(path, info, index)
            mask_info = _find_mask(info, infos)
            mask = None if mask_info is None else _read_middle(path, mask_info, index)
            folder.mkdir(parents=True, exist_ok=True)
            drawn += save_inspection(
                folder, image, mask, name=f"{name}-{index:06d}", note=note
            )
        except (ArchiveError, MemoryError) as error:
            problems.append(f"{info.key}: no picture: {_explain(error)}")
            continue
        if note:
            notes.append(f"{info.key}: the picture shows {note}")
    return Examples(tuple(drawn), tuple(notes), tuple(problems))


def _find_middle(info: DatasetInfo) -> tuple[tuple[int, int], tuple[int, int], str]:
    """Find the rows and columns to draw, and say so where they are not all."""
    height, width = info.image_shape
    if height * width <= _MOST_PICTURE_PX:
        return (0, height), (0, width), ""
    sides = (min(height, _MIDDLE_PX), min(width, _MIDDLE_PX))
    top, left = (height - sides[0]) // 2, (width - sides[1]) // 2
    note = f"the middle {sides[0]} x {sides[1]} of {height} x {width} px"
    return (top, top + sides[0]), (left, left + sides[1]), note


def _read_middle(path: Path, info: DatasetInfo, index: int) -> NDArray[np.generic]:
    rows, columns, _ = _find_middle(info)
    with open_reader(path, info.key) as reader:
        return reader.read_region(index, rows, columns)


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
