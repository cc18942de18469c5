"""The one pass over labelled images before training: ranges, hashes, diameters.

It is kept in the run directory, 72 bytes an image; a resumed training reads it back.
"""

import contextlib
import hashlib
import itertools
import logging
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nucleiseg.atomic import atomic_path, create_private
from nucleiseg.config import PreprocessConfig
from nucleiseg.dataset.blocks import count_together
from nucleiseg.dataset.facts import HASH_BYTES, Facts, LargeImages, find_facts
from nucleiseg.dataset.label_values import LabelValues, join_label_values
from nucleiseg.dataset.passing import pass_sources
from nucleiseg.dataset.readers import Readers
from nucleiseg.dataset.sources import LabelledShapes, Source
from nucleiseg.errors import ArchiveError, StoppedError
from nucleiseg.preprocess import Range
from nucleiseg.progress import Progress

logger = logging.getLogger(__name__)

_BYTES_AT_ONCE = 4 << 20
_LARGE_BYTES = 64 << 20
# Of what is stored: where it means something else, it is found anew.
_VERSION = 2
_NAMES = (
    "ranges",
    "extremes",
    "hashes",
    "smallest_labels",
    "largest_labels",
    "diameters",
)
_Check = Callable[[], None]

_DAMAGE = (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile)


@dataclass(frozen=True)
class Survey:
    """What every image holds, in the order of the shapes' numbers."""

    ranges: NDArray[np.float64]
    """(N, 2): what becomes 0 and 1."""
    extremes: NDArray[np.float64]
    """(N, 2): smallest and largest value."""
    hashes: NDArray[np.void]
    """(N,), 16 bytes each: equal for images of equal values, whatever their dtype."""
    smallest_labels: NDArray[np.float64]
    """(N,): smallest label above 0; 0 where an image has no nucleus."""
    largest_labels: NDArray[np.float64]
    """(N,): 0 where an image has no nucleus."""
    diameters: NDArray[np.float64]
    """(N,) px: median over the nuclei of each image, of the circle of equal area; NaN
    where there is none. Of an image too large for memory, of its middle."""

    def get_range(self, image: int) -> Range:
        """Get the range to scale an image by."""
        low, high = self.ranges[image]
        return Range(float(low), float(high))

    def get_label_values(self, start: int, stop: int) -> LabelValues:
        """Get which labels some neighbouring images have, altogether."""
        part = np.s_[start:stop]
        return join_label_values(self.smallest_labels[part], self.largest_labels[part])


def survey(
    shapes: LabelledShapes,
    preprocess: PreprocessConfig,
    folder: Path,
    must_stop: Callable[[], bool],
) -> Survey:
    """Pass over all images and labels once, or read what an earlier pass found.

    Parameters
    ----------
    shapes : LabelledShapes
    preprocess : PreprocessConfig
    folder : Path
        Of the run, for what is found and for seek points; made where missing.
    must_stop : callable
        Asked again and again whether to stop.

    Raises
    ------
    StoppedError
        It was asked to stop. Seek points that are whole are kept.
    ArchiveError
        An image or label cannot be read or normalised, or no image has a nucleus.
    """
    create_private(folder)
    # One file for all: there may be thousands of sources, of one image each.
    path = folder / f"survey-{_identify(shapes, preprocess)}.npz"
    found = _load(path, shapes.n_images)
    if found is None:

        def check() -> None:
            if must_stop():
                raise StoppedError(
                    "stopped while passing over the images, as asked; the same "
                    "command begins that anew"
                )

        found = _survey_all(shapes, preprocess, folder, check)
        with atomic_path(path) as temporary:
            np.savez(temporary, allow_pickle=False, **found)
    return Survey(
        found["ranges"],
        found["extremes"],
        found["hashes"].view(f"V{HASH_BYTES}")[:, 0],
        found["smallest_labels"],
        found["largest_labels"],
        found["diameters"],
    )


def _identify(shapes: LabelledShapes, preprocess: PreprocessConfig) -> str:
    keys = [(one.images.key, one.masks.key) for one in shapes.sources]
    text = repr((_VERSION, shapes.fingerprint(), keys, preprocess))
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:32]


def _load(path: Path, n_images: int) -> dict[str, NDArray[Any]] | None:
    if not path.exists():
        return None
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
            found = {name: archive[name] for name in _NAMES}
        if {len(values) for values in found.values()} != {n_images}:
            raise ValueError(f"it is not about {n_images} images")
    except _DAMAGE as error:
        logger.warning("%s is damaged (%s); it is made again", path, error)
        return None
    return found


def _survey_all(
    shapes: LabelledShapes, preprocess: PreprocessConfig, folder: Path, check: _Check
) -> dict[str, NDArray[Any]]:
    readers = Readers(folder)
    n_images = shapes.n_images
    # Once for all: parts to be joined would be there twice.
    found: dict[str, NDArray[Any]] = {
        "ranges": np.empty((n_images, 2)),
        "extremes": np.empty((n_images, 2)),
        "hashes": np.empty((n_images, HASH_BYTES), dtype=np.uint8),
        "smallest_labels": np.empty(n_images),
        "largest_labels": np.empty(n_images),
        "diameters": np.empty(n_images),
    }
    with (
        contextlib.closing(readers),
        Progress(n_images, label="reading", unit="images") as progress,
    ):
        pass_sources(shapes.sources, readers, check)
        spans = itertools.pairwise(shapes.starts)
        for source, (start, stop) in zip(shapes.sources, spans, strict=True):
            part = {name: values[start:stop] for name, values in found.items()}
            _survey_source(source, part, preprocess, readers, progress, check)
    if not (found["largest_labels"] > 0).any():
        names = ", ".join(one.masks_name for one in shapes.sources[:3])
        raise ArchiveError(
            f"{names} holds no nucleus: all values are 0; "
            "training takes masks with 1, or labels from 1 on, where nuclei are"
        )
    return found


def _survey_source(
    source: Source,
    found: dict[str, NDArray[Any]],
    preprocess: PreprocessConfig,
    readers: Readers,
    progress: Progress,
    check: _Check,
) -> None:
    """Write what each image of a source holds into arrays of its own."""
    n_images = source.n_images
    n_together = count_together(source, _BYTES_AT_ONCE)
    is_large = source.image_bytes > _LARGE_BYTES
    with readers.lend(source) as (images, masks):
        large = LargeImages(source, images, masks, _BYTES_AT_ONCE, check)
        for start in range(0, n_images, n_together):
            check()
            stop = min(start + n_together, n_images)
            for index in range(start, stop) if is_large else ():
                _note(found, index, large.find_facts(index, preprocess))
            if not is_large:
                blocks = images.read(start, stop), masks.read(start, stop)
                for index, pair in enumerate(zip(*blocks, strict=True), start):
                    _note(found, index, find_facts(source, index, pair, preprocess))
            progress.update(stop - start)


def _note(found: dict[str, NDArray[Any]], index: int, facts: Facts) -> None:
    found["ranges"][index] = facts.value_range.low, facts.value_range.high
    found["extremes"][index] = facts.extremes
    found["hashes"][index] = np.frombuffer(facts.digest, dtype=np.uint8)
    found["smallest_labels"][index] = facts.labels.smallest
    found["largest_labels"][index] = facts.labels.largest
    found["diameters"][index] = facts.diameter
