"""What all blocks of a large image must agree on, found in passes over all of it."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nucleiseg.archives import Reader
from nucleiseg.atomic import create_private, publish_json, read_json
from nucleiseg.config import PreprocessConfig
from nucleiseg.errors import ArchiveError
from nucleiseg.inference.outages import refuse_outage
from nucleiseg.instances import saturation_limit
from nucleiseg.preprocess import Range, RangeFinder
from nucleiseg.runs import CountRun
from nucleiseg.shards import ArchiveRef, Entry

# Pixels read at once while looking for an image's range.
_STRIP_PIXELS = 2**22


@dataclass(frozen=True)
class ImageFacts:
    """What all blocks of an image must agree on."""

    value_range: Range | None
    """None where the image cannot be normalised."""
    limit: float
    """Value of a saturated pixel."""
    reason: str | None = None
    """Why the image cannot be normalised."""


def find_facts(
    run: CountRun,
    archive: ArchiveRef,
    shard: Entry,
    reader: Reader,
    settings: PreprocessConfig,
) -> ImageFacts:
    """Take an image's range from the run, or find it in a pass over the whole image.

    Of workers that look for it at once, the first leaves it for all.

    Raises
    ------
    IncompleteError
        The file system is away: nothing is found for now.
    """
    path = _facts_path(run, archive, shard)
    if not path.exists():
        create_private(path.parent)
        publish_json(path, _measure(reader, shard.start, settings))
    values = read_json(path)
    found = values["range"]
    return ImageFacts(
        None if found is None else Range.from_dict(found),
        float.fromhex(values["limit"]),
        values["reason"],
    )


def forget_failed_facts(run: CountRun) -> None:
    """Delete what was found of large images that could not be read or normalised."""
    for path in run.ranges.glob("[!.]*.json"):
        if read_json(path)["range"] is None:
            path.unlink(missing_ok=True)


def _facts_path(run: CountRun, archive: ArchiveRef, shard: Entry) -> Path:
    """File of an image's facts; of a changed archive it is another one."""
    name = f"{archive.fingerprint}\n{shard.dataset}\n{shard.start}"
    digest = hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()
    return run.ranges / f"{digest[:32]}.json"


def _measure(reader: Reader, image: int, settings: PreprocessConfig) -> dict[str, Any]:
    dtype = np.dtype(reader.info.dtype)
    finder = RangeFinder(dtype, settings)
    try:
        for strip in _strips(reader, image):
            finder.add(strip)
        if finder.needs_second_pass:
            finder.second_pass()
            for strip in _strips(reader, image):
                finder.add(strip)
        value_range = finder.find().as_dict()
    except ArchiveError as error:
        refuse_outage(error)
        # For good, and all of the image: an image with a NaN has no range.
        return {"range": None, "limit": (0.0).hex(), "reason": error.reason}
    limit = saturation_limit(dtype, finder.highest)
    return {"range": value_range, "limit": limit.hex(), "reason": None}


def _strips(reader: Reader, image: int) -> Iterator[NDArray[Any]]:
    """All of an image, in strips of whole rows, or in parts of rows."""
    height, width = reader.info.image_shape
    n_columns = min(width, _STRIP_PIXELS)
    n_rows = max(1, _STRIP_PIXELS // n_columns)
    for top in range(0, height, n_rows):
        rows = (top, min(top + n_rows, height))
        for left in range(0, width, n_columns):
            columns = (left, min(left + n_columns, width))
            yield reader.read_region(image, rows, columns)
