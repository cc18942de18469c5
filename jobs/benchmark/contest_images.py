"""Labelled images laid out for a contest: to train on, and two halves to score.

One HDF5 file: `/train/GROUP/images` and `labels`, `/half-a/...`, `/half-b/...`, a
group for each dataset that they come from. Everybody reads this file and no other.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from jobs.benchmark.archives import data_folder
from nucleiseg import synthetic
from nucleiseg.archives import find_images, find_labels, open_reader
from nucleiseg.atomic import atomic_path

HALVES = ("half-a", "half-b")
TRAIN = "train"

_DRAWN_SHAPES = ((64, 80),)
_N_DRAWN = 8

Images = NDArray[Any]
Labels = NDArray[np.int32]


@dataclass(frozen=True)
class LabelledStack:
    """Images of one dataset with their labels."""

    group: str
    images: Images
    """(n, H, W), as stored."""
    labels: Labels
    """(n, H, W), 0 = background."""


@dataclass(frozen=True)
class Contest:
    """The file, and where its images are from."""

    path: Path
    origin: str

    def images(self, part: str) -> str:
        """Name the images of a part, as `ARCHIVE:KEY`."""
        return f"{self.path}:/{part}/*/images"

    def labels(self, part: str) -> str:
        """Name their labels."""
        return f"{self.path}:/{part}/*/labels"

    def read(self, part: str) -> Iterator[LabelledStack]:
        """Read the stacks of a part, one by one."""
        with h5py.File(self.path) as file:
            for group, stack in file[part].items():
                labels = stack["labels"][()].astype(np.int32)
                yield LabelledStack(group, stack["images"][()], labels)


def write_contest(
    path: Path,
    archive: Path | None,
    train_glob: str,
    validation_glob: str,
    limit: int | None,
) -> Contest:
    """Write the file; one that is there is replaced by one of the same images.

    Training images whose pixels a validation image has, too, are left out. Validation
    images of each dataset go to the halves by turns: thresholds that are chosen on one
    half are scored on the other.

    Parameters
    ----------
    path : Path
    archive : Path or None
        None: the real images where they are, else drawn ones.
    train_glob, validation_glob : str
        Keys of images; labels are called `labels` where these are called `images`.
    limit : int or None
        Most images of a dataset.
    """
    if archive is None:
        real = data_folder() / "dsb2018_fluo.h5"
        archive = real if real.exists() else None
    if archive is None:
        origin = "drawn"
        train, validation = _draw(seed=1), _draw(seed=2)
    else:
        origin = archive.name
        train = _read_all(archive, train_glob, limit)
        validation = _read_all(archive, validation_glob, limit)
    known = {image.tobytes() for stack in validation for image in stack.images}
    with atomic_path(path) as beside, h5py.File(beside, "w") as file:
        for stack in train:
            is_new = [image.tobytes() not in known for image in stack.images]
            _write(file, TRAIN, stack, np.flatnonzero(is_new))
        for start, half in enumerate(HALVES):
            for stack in validation:
                _write(file, half, stack, np.arange(start, len(stack.images), 2))
    return Contest(path, origin)


def _write(
    file: h5py.File, part: str, stack: LabelledStack, chosen: NDArray[np.intp]
) -> None:
    if not chosen.size:
        return
    for key, values in (("images", stack.images), ("labels", stack.labels)):
        file.create_dataset(
            f"{part}/{stack.group}/{key}",
            data=values[chosen],
            chunks=(1, *values.shape[1:]),
            compression="gzip",
            compression_opts=1,
        )


def _read_all(archive: Path, glob: str, limit: int | None) -> list[LabelledStack]:
    stacks = []
    for number, info in enumerate(find_images(archive, glob)):
        (beside,) = find_labels(archive, info.key.removesuffix("images") + "labels")
        n_images = min(info.n_images, limit or info.n_images)
        with open_reader(archive, info.key) as reader:
            images = reader.read(0, n_images)
        with open_reader(archive, beside.key) as reader:
            labels = reader.read(0, n_images)
        height, width = info.image_shape
        group = f"{number:02d}-{height}x{width}"
        stacks.append(LabelledStack(group, images, labels.astype(np.int32)))
    return stacks


def _draw(seed: int) -> list[LabelledStack]:
    stacks = []
    for number, shape in enumerate(_DRAWN_SHAPES):
        images, labels = synthetic.draw_fields(_N_DRAWN, shape, seed=10 * seed + number)
        group = f"{number:02d}-{shape[0]}x{shape[1]}"
        stacks.append(
            LabelledStack(group, images.astype(np.uint8), labels.astype(np.int32))
        )
    return stacks
