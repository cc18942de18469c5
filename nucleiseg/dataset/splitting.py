"""Which images are for training and which for validation."""

import csv
import hashlib
import json
import logging
from array import array
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from nucleiseg.config import DataConfig
from nucleiseg.dataset.sources import LabelledShapes
from nucleiseg.errors import ArchiveError, ConfigError, RunError
from nucleiseg.runs import TrainRun, atomic_path, read_json, write_json

logger = logging.getLogger(__name__)

_PARTS = ("training", "validation", "left out")
_NAMED = 3
_FREE = {"test_archive"}

Indices = NDArray[np.intp]


@dataclass(frozen=True)
class Split:
    """Numbers of images (over all sources), in the order they are taken in."""

    training: Indices
    validation: Indices
    left_out: Indices


def split_images(shapes: LabelledShapes, data: DataConfig) -> Split:
    """Split by what is configured: a dataset, a file, or at random.

    Raises
    ------
    ConfigError, ArchiveError
        The file cannot be read or does not fit, or a part has no image.
    """
    nothing = np.zeros(0, dtype=np.intp)
    if data.split_file is not None:
        split = _read(Path(data.split_file), shapes)
    elif data.validation_images is not None:
        apart = np.concatenate(
            [np.full(one.n_images, one.is_validation) for one in shapes.sources]
        )
        split = Split(np.flatnonzero(~apart), np.flatnonzero(apart), nothing)
    else:
        split = Split(*split_indices(shapes.n_images, data), nothing)
    for name, images in zip(
        _PARTS[:2], (split.training, split.validation), strict=True
    ):
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
    note = read_json(run.split_note) if run.split_note.exists() else {}
    if note.get("identity") == identity and run.split.exists():
        if _sha256(run.split) != note.get("sha256"):
            raise RunError(
                f"{run.split} was changed since training began; restore it, or use it "
                "as data.split_file of another --run"
            )
        return _read(run.split, shapes)
    split = make()
    with atomic_path(run.split) as temporary:
        _write(temporary, split, shapes)
    write_json(run.split_note, {"identity": identity, "sha256": _sha256(run.split)})
    return split


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _write(path: Path, split: Split, shapes: LabelledShapes) -> None:
    places = (split.training, split.validation, split.left_out)
    # Row by row, so that no text grows with the archive.
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(["archive", "dataset", "index", "part"])
        for part, images in zip(_PARTS, places, strict=True):
            owners = np.searchsorted(shapes.starts, images, side="right") - 1
            for image, owner in zip(images, owners, strict=True):
                source = shapes.sources[owner]
                index = int(image) - shapes.starts[owner]
                writer.writerow([source.path, source.images.key, index, part])


def _read(path: Path, shapes: LabelledShapes) -> Split:
    """Read a table of parts; images that it does not name are left out."""
    places = {part: array("q") for part in _PARTS}
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            rows = csv.DictReader(stream)
            header = rows.fieldnames or []
            if missing := {"part", "index"} - set(header):
                raise ConfigError(
                    f"split file {path} has the columns {', '.join(header)} and lacks "
                    f"{', '.join(sorted(missing))}; its first line names its columns"
                )
            try:
                for part, image in _parse(rows, shapes):
                    places[part].append(image)
            except ValueError as error:
                raise ConfigError(
                    f"split file {path}, line {rows.line_num}: {error}"
                ) from error
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"split file {path} cannot be read ({error})") from error
    found = [np.array(places[part], dtype=np.intp) for part in _PARTS]
    named = np.concatenate(found)
    if np.unique(named).size < named.size:
        counts = np.bincount(named)
        twice = shapes.name_image(int(counts.argmax()))
        raise ConfigError(f"split file {path} names {twice} twice; keep one line")
    rest = np.setdiff1d(np.arange(shapes.n_images), named)
    if rest.size:
        logger.info("%s does not name %d images: they are left out", path, rest.size)
    return Split(found[0], found[1], np.concatenate([found[2], rest]))


def _parse(
    rows: Iterable[dict[str, str]], shapes: LabelledShapes
) -> Iterable[tuple[str, int]]:
    """Give part and image of each row; ValueError says what is wrong with one."""
    known: dict[tuple[str | None, str | None], int] = {}
    for row in rows:
        if row["part"] not in _PARTS:
            raise ValueError(f"part is {row['part']!r}, and parts are {_PARTS}")
        name = (row.get("archive"), row.get("dataset"))
        if name not in known:
            known[name] = _find_source(shapes, *name)
        place = known[name]
        n_images = shapes.sources[place].n_images
        if not (row["index"] or "").isdecimal() or int(row["index"]) >= n_images:
            raise ValueError(
                f"index is {row['index']!r}, and {shapes.sources[place].name} has "
                f"images 0 to {n_images - 1}"
            )
        yield row["part"], shapes.starts[place] + int(row["index"])


def _find_source(shapes: LabelledShapes, archive: str | None, key: str | None) -> int:
    fitting = [
        (source.path != Path(archive or ""), place)
        for place, source in enumerate(shapes.sources)
        if (not archive or _is_named(source.path, archive))
        and (not key or source.images.key.lstrip("/") == key.lstrip("/"))
    ]
    # The path itself comes before paths that only end so.
    fitting = [pair for pair in fitting if pair[0] == min(fitting)[0]]
    if len(fitting) != 1:
        raise ValueError(
            f"archive {archive!r}, dataset {key!r} fit {len(fitting)} of the labelled "
            "datasets; name one with the columns archive and dataset"
        )
    return fitting[0][1]


def _is_named(path: Path, name: str) -> bool:
    """Whether a name is that of an archive: the path, or the end of it."""
    parts = Path(name).parts
    return path == Path(name) or path.parts[-len(parts) :] == parts
