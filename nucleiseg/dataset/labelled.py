"""Labelled images that are ready to train on, held or read while training."""

import contextlib
import functools
import itertools
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from nucleiseg.config import Config, DataConfig, PreprocessConfig
from nucleiseg.dataset.blocks import Blocks, Pixels, load_block
from nucleiseg.dataset.label_values import LabelValues
from nucleiseg.dataset.parts import Part
from nucleiseg.dataset.readers import Readers
from nucleiseg.dataset.sources import LabelledShapes
from nucleiseg.dataset.splitting import fix_split, resolve_overlap, split_images
from nucleiseg.dataset.stores import HeldBlocks, Store, StreamedBlocks
from nucleiseg.dataset.survey import Survey, survey
from nucleiseg.errors import ConfigError, NucleisegError
from nucleiseg.runs import TrainRun

if TYPE_CHECKING:
    from nucleiseg.dataset.order import BatchOrder

logger = logging.getLogger(__name__)

_MOST_SCALE = 8.0
# Of the memory allowed, for training and for validation: their streams live together.
_SHARES = {True: 3 / 4, False: 1 / 4}


@dataclass(frozen=True, eq=False)
class Labelled:
    """All labelled images: what is known of them, and how their pixels are come by."""

    shapes: LabelledShapes
    data: DataConfig
    preprocess: PreprocessConfig
    survey: Survey
    readers: Readers
    blocks: Blocks
    training: Part
    validation: Part
    head: str = "mask"
    """Of the network, for the targets."""
    failures: list[NucleisegError] = field(default_factory=list)
    """What went wrong while batches were made, in other threads."""

    @contextlib.contextmanager
    def name_failures(self) -> Iterator[None]:
        """Raise what went wrong in a pipeline, and not TensorFlow's error about it."""
        try:
            yield
        except Exception as error:
            if self.failures:
                raise self.failures[0] from error
            raise

    @property
    def image_shape(self) -> tuple[int, int]:
        """Of what the network sees."""
        return self.shapes.image_shape

    def is_mask(self, image: int) -> bool:
        """Whether an image's labels are a mask: as those of its whole source.

        By image, a single nucleus with a label would be taken for a mask.
        """
        return self._are_masks[self.shapes.find_source(image)]

    @functools.cached_property
    def _are_masks(self) -> list[bool]:
        values = _find_label_values(self.shapes, self.survey)
        return [found.may_be_mask for found in values]

    @property
    def is_held(self) -> bool:
        """Whether all of them fit into the memory allowed."""
        return bool(self.blocks.n_bytes.sum() <= _memory_bytes(self.data))

    @functools.cached_property
    def held(self) -> HeldBlocks:
        """All blocks, each read when it is first needed, and never again."""
        return HeldBlocks(self.load, len(self.blocks.all))

    def close(self) -> None:
        """Close the archives, once training is over or has failed."""
        self.readers.close()

    def load(self, block: int) -> Pixels:
        """Read a block."""
        return load_block(self.blocks.all[block], self.readers)

    def stream(
        self, part: Part, order: "BatchOrder", *, first_batch: int, n_batches: int
    ) -> StreamedBlocks:
        """Make a store that reads ahead of a range of batches."""
        return StreamedBlocks(
            part,
            order,
            self.blocks,
            self.load,
            memory_bytes=int(_memory_bytes(self.data) * _SHARES[part.is_random]),
            first_batch=first_batch,
            n_batches=n_batches,
        )

    def make_store(
        self, part: Part, order: "BatchOrder", *, first_batch: int, n_batches: int
    ) -> Store:
        """Make the store for a range of batches: as configured, held or streamed."""
        if self.is_held:
            return self.held
        return self.stream(part, order, first_batch=first_batch, n_batches=n_batches)


def _memory_bytes(data: DataConfig) -> int:
    return data.memory_mb * 10**6


def _find_label_values(shapes: LabelledShapes, found: Survey) -> list[LabelValues]:
    """Find which labels each source holds."""
    return [
        found.get_label_values(start, stop)
        for start, stop in itertools.pairwise(shapes.starts)
    ]


def _warn_of_masks(shapes: LabelledShapes, found: Survey) -> None:
    archives: dict[str, list[LabelValues]] = {}
    values = _find_label_values(shapes, found)
    for source, one in zip(shapes.sources, values, strict=True):
        # A source may be one image with one nucleus: an archive is looked at whole.
        archives.setdefault(str(source.path), []).append(one)
    masks = []
    for path, parts in archives.items():
        largest = sorted({one.largest for one in parts} - {0})
        if largest and all(one.may_be_mask for one in parts):
            masks.append(f"{path} (0 and {' or '.join(f'{x:g}' for x in largest)})")
    if masks:
        logger.warning(
            "the labels of %s are masks: their connected components are taken for "
            "nuclei, so that nuclei which touch are learnt, and counted, as one; "
            "instance labels (1…n) would part them",
            ", ".join(masks),
        )


def _find_scales(
    shapes: LabelledShapes, preprocess: PreprocessConfig, found: Survey
) -> NDArray[np.float64] | None:
    """Find by how much each image is enlarged, for its nuclei to have one diameter."""
    if preprocess.diameter_px is None:
        return None
    if shapes.crop_px is None:
        raise ConfigError(
            f"preprocess.diameter_px is {preprocess.diameter_px} without data.crop_px: "
            "images that are enlarged or reduced are trained on in crops; set "
            "data.crop_px, too"
        )
    scales = preprocess.diameter_px / found.diameters
    for start, stop in itertools.pairwise(shapes.starts):
        part = scales[start:stop]
        # Without nuclei: as its neighbours.
        known = part[np.isfinite(part)]
        part[~np.isfinite(part)] = np.median(known) if known.size else 1.0
    return np.clip(scales, 1 / _MOST_SCALE, _MOST_SCALE)


def open_labelled(
    shapes: LabelledShapes,
    config: Config,
    run: TrainRun,
    *,
    must_stop: Callable[[], bool] = lambda: False,
) -> Labelled:
    """Pass over the labelled images once, split them, and make them ready.

    What is found is kept in the run, and read back when the training goes on.

    Raises
    ------
    StoppedError
        `must_stop` said so during the pass.
    ArchiveError, ConfigError, RunError
        An image cannot be read or normalised, the split does not fit, or nothing is
        left to train on.
    """
    data = config.data
    found = survey(shapes, config.preprocess, run.data, must_stop)
    split = fix_split(
        run,
        shapes,
        data,
        lambda: resolve_overlap(
            split_images(shapes, data),
            found.hashes,
            shapes.name_image,
            overlap=data.overlap,
        ),
    )
    scales = _find_scales(shapes, config.preprocess, found)
    blocks = Blocks(shapes, _memory_bytes(data))
    n_bytes = int(blocks.n_bytes.sum())
    is_held = n_bytes <= _memory_bytes(data)
    # While one stretch is trained on, the next is read.
    n_windows = 1 if is_held else -(-3 * n_bytes // _memory_bytes(data))
    training, validation = (
        Part(
            shapes,
            blocks,
            images if is_held else np.sort(images),
            is_random=is_random,
            n_windows=n_windows,
            scales=scales,
        )
        for images, is_random in ((split.training, True), (split.validation, False))
    )
    if config.model.head != "mask":
        _warn_of_masks(shapes, found)
    logger.info(
        "%d images (%.0f MB with their labels) are %s",
        shapes.n_images,
        shapes.n_bytes / 1e6,
        "held in memory"
        if is_held
        else f"read while training, {data.memory_mb} MB at a time",
    )
    return Labelled(
        shapes,
        data,
        config.preprocess,
        found,
        Readers(run.data),
        blocks,
        training,
        validation,
        config.model.head,
    )
