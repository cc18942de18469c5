"""Predictions drawn over their images."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nucleiseg.atomic import create_private
from nucleiseg.errors import ArchiveError, IncompleteError
from nucleiseg.inference.process import get_engine
from nucleiseg.report import (
    name_files,
    save_montage,
    save_prediction,
    save_soft_prediction,
)
from nucleiseg.shards import Plan

logger = logging.getLogger(__name__)

_OVERVIEW_PICTURES = 9


def draw_pictures(
    root: Path, plan: str, picks: Sequence[tuple[int, int]], n_threads: int
) -> int:
    """Draw predictions over their images into the run's pictures.

    Parameters
    ----------
    root : Path
        The run directory.
    plan : str
        Identity of its plan.
    picks : sequence of (shard, index)
        Index of the image in its dataset.
    n_threads : int

    Returns
    -------
    int
        Predictions drawn; an image that cannot be read has none. `overview.png` has
        the first nine of them side by side.
    """
    engine = get_engine(root, plan, n_threads)
    folder = engine.run.pictures
    create_private(folder)
    titles = dict.fromkeys(_name_dataset(engine.plan, number) for number, _ in picks)
    file_names = dict(zip(titles, name_files([*titles]), strict=True))
    n_drawn = 0
    overview: list[tuple[Any, Any, str]] = []
    for number, index in picks:
        shard = engine.plan.shards[number]
        archive = engine.plan.archives[shard.archive]
        name = f"{file_names[_name_dataset(engine.plan, number)]}-{index:06d}"
        try:
            with engine.open_source(shard) as reader:
                pixels = reader.read(index, index + 1)[0]
            maps, labels = engine.predict_image(shard, pixels)
        except (ArchiveError, IncompleteError) as error:
            logger.warning("no picture of image %d: %s", index, error)
            continue
        probability = maps[..., 0]
        save_prediction(
            folder / f"{name}.png",
            pixels,
            probability,
            labels,
            count=int(labels.max(initial=0)),
            title=f"{archive.name} · {shard.dataset} · {index}",
        )
        if engine.config.table.format == "notebook":
            save_soft_prediction(folder, pixels, probability, name=name)
        n_drawn += 1
        if len(overview) < _OVERVIEW_PICTURES:
            overview.append((pixels, labels, f"{shard.dataset} · {index}"))
    if len(overview) > 1:
        save_montage(folder / "overview.png", overview)
    return n_drawn


def _name_dataset(plan: Plan, number: int) -> str:
    """Name the dataset of a shard."""
    shard = plan.shards[number]
    return f"{plan.archives[shard.archive].name}-{shard.dataset}"
