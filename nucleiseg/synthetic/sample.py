"""A sample data set on disk: archives to train and to test on, with the truth."""

import filecmp
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nucleiseg.atomic import atomic_path, write_text
from nucleiseg.synthetic.field import draw_stack
from nucleiseg.synthetic.settings import DEFAULT_SETTINGS, FieldSettings

# Test images follow the training images of a seed at a distance that no training
# set reaches, so the test set does not depend on how many there are to train on.
_FIRST_TEST_IMAGE = 1 << 30


@dataclass(frozen=True)
class SampleFiles:
    """The files that `write_sample` wrote."""

    train: Path
    """`X` (N, H, W) float32, 0–255, and `y` (N, H, W) float32, 0 or 1."""
    train_labels: Path
    """`X` (N, H, W) uint8, the training images, and `y` (N, H, W) uint16, their
    instance labels."""
    test_images: Path
    """`X` (M, H, W) float32, 0–255."""
    test_labels: Path
    """`y` (M, H, W) uint16, instance labels of the test images."""
    test_counts: Path
    """CSV, columns `index` and `count`."""


def write_sample(
    folder: Path,
    *,
    n_train: int = 240,
    n_test: int = 60,
    shape: tuple[int, int] = (128, 128),
    seed: int = 0,
    settings: FieldSettings = DEFAULT_SETTINGS,
) -> SampleFiles:
    """Write a training and a test archive with truth, in the notebook's format.

    The training images are those of `draw_fields`; no test image is among them.
    Each file is written beside its final name and renamed, so one that exists is
    complete; existing files are replaced, by archives of their age where they hold the
    same.

    Returns
    -------
    SampleFiles
        Where each file is and what it holds.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files = SampleFiles(
        train=folder / "train.npz",
        train_labels=folder / "train_labels.npz",
        test_images=folder / "test_images.npz",
        test_labels=folder / "test_labels.npz",
        test_counts=folder / "test_counts.csv",
    )
    images, labels = draw_stack(range(n_train), shape, seed, settings)
    mask = (labels > 0).astype(np.float32)
    _write_npz(files.train, X=images.astype(np.float32), y=mask)
    _write_npz(files.train_labels, X=images, y=labels)

    test_range = range(_FIRST_TEST_IMAGE, _FIRST_TEST_IMAGE + n_test)
    images, labels = draw_stack(test_range, shape, seed, settings)
    _write_npz(files.test_images, X=images.astype(np.float32))
    _write_npz(files.test_labels, y=labels)
    rows = [f"{index},{image.max()}" for index, image in enumerate(labels)]
    write_text(files.test_counts, "\n".join(["index,count", *rows, ""]))
    return files


def _write_npz(path: Path, **arrays: NDArray[np.generic]) -> None:
    with atomic_path(path) as temporary:
        with temporary.open("wb") as file:
            np.savez_compressed(file, allow_pickle=False, **arrays)
        if path.exists() and filecmp.cmp(path, temporary, shallow=False):
            # Archives are known by their time, too: what has begun with this one must
            # be able to go on when it is drawn again.
            before = path.stat()
            os.utime(temporary, ns=(before.st_atime_ns, before.st_mtime_ns))
