"""One image that is far larger than memory: its range first, then block by block."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nucleiseg.archives import Reader
from nucleiseg.atomic import create_private, publish_json, read_json
from nucleiseg.config import InstancesConfig, PreprocessConfig
from nucleiseg.errors import ArchiveError
from nucleiseg.inference.network import TiledNetwork
from nucleiseg.instances import (
    BlockSummary,
    measure_nuclei,
    saturation_limit,
    summarise_block,
)
from nucleiseg.labels import encode
from nucleiseg.preprocess import Range, RangeFinder, scale
from nucleiseg.quality import Calibration
from nucleiseg.runs import CountRun
from nucleiseg.shards import ArchiveRef, Entry
from nucleiseg.tiling import Block

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
    ArchiveError
        The archive is damaged.
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


@dataclass(frozen=True)
class ComputedBlock:
    """What is kept of a block."""

    summary: BlockSummary
    labels: bytes | None = None
    """Its packed label image, where asked for and it has any nucleus."""
    nuclei: bytes | None = None
    """Its packed nuclei, likewise."""


def summarise_shard(
    network: TiledNetwork,
    reader: Reader,
    shard: Entry,
    facts: ImageFacts,
    settings: InstancesConfig,
    *,
    labels: bool = False,
    calibration: Calibration | None = None,
) -> ComputedBlock:
    """Predict a block of an image and label it.

    Raises
    ------
    ArchiveError
        Its pixels cannot be read, or the image cannot be normalised.
    ValueError
        "not finite": the network's output is.
    """
    assert shard.block is not None
    if facts.value_range is None:
        raise ArchiveError(str(facts.reason))
    block = network.tiling(shard.image_shape).block_of(shard.block.core)
    rows, columns = block.region
    pixels = reader.read_region(
        shard.start, (rows.start, rows.stop), (columns.start, columns.stop)
    )
    maps = _predict(network, block, scale(pixels, facts.value_range))
    core = tuple(
        slice(side.start - start.start, side.stop - start.start)
        for side, start in zip(block.core, block.region, strict=True)
    )
    out = None
    if labels:
        out = np.empty(pixels[core].shape, dtype=np.int32)
    summary = summarise_block(
        pixels[core],
        maps,
        block.core,
        shard.image_shape,
        settings,
        limit=facts.limit,
        calibration=calibration,
        out=out,
    )
    if out is None:
        return ComputedBlock(summary)
    nuclei = measure_nuclei(
        maps,
        out,
        core=block.core,
        image_shape=shard.image_shape,
        calibration=calibration,
    )
    return ComputedBlock(summary, encode(out), nuclei.to_bytes() or None)


def _predict(
    network: TiledNetwork, block: Block, values: NDArray[np.float32]
) -> NDArray[np.float32]:
    tiles = np.stack(block.split(values))
    # What is not needed any more need not stay beside the outputs, which are larger.
    del values
    outputs = list(network.predict_tiles(tiles))
    del tiles
    return block.join(outputs)
