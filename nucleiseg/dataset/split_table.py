"""The table that says which image is in which part of the split."""

import csv
import logging
from array import array
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nucleiseg.dataset.sources import LabelledShapes
from nucleiseg.errors import ConfigError

logger = logging.getLogger(__name__)

PARTS = ("training", "validation", "left out")

Indices = NDArray[np.intp]


@dataclass(frozen=True)
class Split:
    """Numbers of images (over all sources), in the order they are taken in."""

    training: Indices
    validation: Indices
    left_out: Indices


def write_split(path: Path, split: Split, shapes: LabelledShapes) -> None:
    """Write the part of each image; the caller makes that atomic."""
    places = (split.training, split.validation, split.left_out)
    # Row by row, so that no text grows with the archive.
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(["archive", "dataset", "index", "part"])
        for part, images in zip(PARTS, places, strict=True):
            owners = np.searchsorted(shapes.starts, images, side="right") - 1
            for image, owner in zip(images, owners, strict=True):
                source = shapes.sources[owner]
                index = int(image) - shapes.starts[owner]
                writer.writerow([source.path, source.images.key, index, part])


def read_split(path: Path, shapes: LabelledShapes) -> Split:
    """Read a table of parts; images that it does not name are left out.

    Raises
    ------
    ConfigError
        It cannot be read, or does not fit the archives.
    """
    places = {part: array("q") for part in PARTS}
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
    found = [np.array(places[part], dtype=np.intp) for part in PARTS]
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
        if row["part"] not in PARTS:
            raise ValueError(f"part is {row['part']!r}, and parts are {PARTS}")
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
