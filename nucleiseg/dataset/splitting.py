"""Which images are for training and which for validation."""

import hashlib
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from nucleiseg.atomic import atomic_path, read_json, write_json
from nucleiseg.config import DataConfig
from nucleiseg.dataset.sources import LabelledShapes
from nucleiseg.dataset.split_table import (
    PARTS,
    Indices,
    Split,
    read_split,
    write_split,
)
from nucleiseg.errors import ArchiveError, RunError
from nucleiseg.runs import TrainRun

logger = logging.getLogger(__name__)

_NAMED = 3
_FREE = {"test_archive"}


def split_images(shapes: LabelledShapes, data: DataConfig) -> Split:
    """Split by what is configured: a dataset, a file, or at random.

    Raises
    ------
    ConfigError, ArchiveError
        The file cannot be read or does not fit, or a part has no image.
    """
    nothing = np.zeros(0, dtype=np.intp)
    if data.split_file is not None:
        split = read_split(Path(data.split_file), shapes)
    elif data.validation_images is not None:
        apart = np.concatenate(
            [np.full(one.n_images, one.is_validation) for one in shapes.sources]
        )
        split = Split(np.flatnonzero(~apart), np.flatnonzero(apart), nothing)
    else:
        split = Split(*split_indices(shapes.n_images, data), nothing)
    for name, images in zip(PARTS[:2], (split.training, split.validation), strict=True):
        if not images.size:
            raise ArchiveError(f"no image of {shapes.path} is for {name}")
    return split


def split_indices(n_images: int, data: DataConfig) -> tuple[Indices, Indices]:
    """Split images into training and validation as scikit-learn does (N3).

    Returns
    -------
    training, validation : (n,) intp ndarray
        Indices in the split's order: indexing with them gives the same arrays as
        passing the images to `train_test_split`.

    Raises
    ------
    ArchiveError
        Too few images for both parts.
    """
    from sklearn.model_selection import train_test_split

    try:
        training, validation = train_test_split(
            np.arange(n_images),
            test_size=data.validation_share,
            random_state=data.split_seed,
        )
    except ValueError as error:
        raise ArchiveError(
            f"{data.archive} holds {n_images} images, too few to split into training "
            "and validation; add images or change data.validation_share"
        ) from error
    return training, validation


def resolve_overlap(
    split: Split,
    hashes: NDArray[np.void],
    name_image: Callable[[int], str],
    *,
    overlap: Literal["leave_out", "refuse", "keep"],
) -> Split:
    """Find training images that validation has, too, by their content.

    Parameters
    ----------
    split : Split
    hashes : (N,) ndarray
        Equal for images of equal values.
    name_image : callable
    overlap : {"leave_out", "refuse", "keep"}
        What becomes of them; whatever it is, they are named.

    Raises
    ------
    ArchiveError
        They are refused, or no other image is left to train on.
    """
    is_in_both = np.isin(hashes[split.training], hashes[split.validation])
    if not is_in_both.any():
        return split
    found = split.training[is_in_both]
    first = ", ".join(name_image(int(image)) for image in found[:_NAMED])
    words = (
        f"{found.size} training images hold the same pixels as validation images "
        f"({first}{', …' if found.size > _NAMED else ''})"
    )
    if overlap == "refuse":
        raise ArchiveError(
            f"{words}, and data.overlap is refuse; split otherwise, or set it to "
            "leave_out"
        )
    if overlap == "keep":
        logger.warning("%s; they are kept, and validation scores too well", words)
        return split
    if is_in_both.all():
        raise ArchiveError(f"{words}, and none is left to train on; split otherwise")
    logger.warning("%s; they are left out of training", words)
    return Split(
        split.training[~is_in_both],
        split.validation,
        np.concatenate([split.left_out, found]),
    )


def fix_split(
    run: TrainRun, shapes: LabelledShapes, data: DataConfig, make: Callable[[], Split]
) -> Split:
    """Store a training's split in its run, or give the one that is stored.

    What is stored counts: another version of scikit-learn may split otherwise.

    Raises
    ------
    RunError
        The stored one was changed.
    """
    settings = data.model_dump(mode="json", exclude=_FREE)
    text = json.dumps([settings, shapes.fingerprint()], sort_keys=True)
    identity = hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()
    note = _read_note(run)
    is_kept = note.get("identity") == identity and run.split.exists()
    if is_kept and not _is_edited(note, data):
        if _sha256(run.split) != note.get("sha256"):
            raise RunError(
                f"{run.split} was changed since training began; restore it, or use it "
                "as data.split_file of another --run"
            )
        return read_split(run.split, shapes)
    split = make()
    with atomic_path(run.split) as temporary:
        write_split(temporary, split, shapes)
    note = {"identity": identity, "sha256": _sha256(run.split)}
    write_json(run.split_note, {**note, "split_file": _find_sha256(data)})
    return split


def refuse_edited_split(run: TrainRun, data: DataConfig) -> None:
    """Refuse where the split file is not the one that training began with.

    One that is gone is none that was edited: the run has its own copy.

    Raises
    ------
    RunError
        It has other content under the same name.
    """
    if _is_edited(_read_note(run), data):
        raise RunError(
            f"split file {data.split_file} has changed since training {run.root} "
            "began; restore it, or use another --run for the new split"
        )


def _read_note(run: TrainRun) -> dict[str, Any]:
    return read_json(run.split_note) if run.split_note.exists() else {}


def _is_edited(note: dict[str, Any], data: DataConfig) -> bool:
    # Notes of before do not say which content they are about.
    before, now = note.get("split_file"), _find_sha256(data)
    return None not in (before, now) and before != now


def _find_sha256(data: DataConfig) -> str | None:
    """Hash the split file; None where there is none (any more)."""
    if data.split_file is None:
        return None
    try:
        return _sha256(Path(data.split_file))
    except OSError:
        return None


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
