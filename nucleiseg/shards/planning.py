"""Making a plan from the headers of the archives."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from nucleiseg.bundle import BundleInfo
from nucleiseg.config import Config
from nucleiseg.shards.cutting import ShardSize, choose_pixels, cut
from nucleiseg.shards.entries import NONE, Entries, Texts, make_rows
from nucleiseg.shards.plan import Plan
from nucleiseg.shards.survey import Item, survey

# Bumped where a nucleus is kept otherwise in partial tables (`instances.Nuclei`).
_NUCLEI_VERSION = 1


def make_plan(
    inputs: Sequence[str],
    config: Config,
    model: BundleInfo,
    *,
    n_workers: int = 1,
    device: str = "auto",
    shard_pixels: int | None = None,
    labels: bool = False,
) -> Plan:
    """Plan a run from the headers of its archives.

    Parameters
    ----------
    inputs : sequence of str
        Each `ARCHIVE` or `ARCHIVE:KEY`, the key a glob.
    config : Config
        Completed by :func:`nucleiseg.bundle.resolve_for_counting`.
    model : BundleInfo
    n_workers : int
        Workers that are expected.
    device : {"auto", "cpu", "gpu"}
        What they are expected to compute on. Like their number it only matters where
        neither `shards.images` nor `shards.pixels` is set.
    shard_pixels : int or None
        That of an earlier plan of this run, which is kept however many workers there
        are now, unless a size is set.
    labels : bool
        Whether label images are made, too.

    Returns
    -------
    Plan
        An input that cannot be read is an entry with its reason; a dataset that is
        named twice is counted once.
    """
    archives, items = survey(inputs)
    pixels = config.shards.pixels or shard_pixels
    if pixels is None:
        n_pixels = sum(
            item.info.n_images * math.prod(item.info.image_shape)
            for item in items
            if item.info is not None
        )
        pixels = choose_pixels(
            n_pixels,
            n_workers=n_workers,
            device=device,
            base_filters=model.model.full_filters,
            views=config.instances.views,
            labels=labels,
        )
    size = ShardSize(config.shards.images, pixels)
    settings = _settings(config, model)
    if labels:
        settings["labels"] = _list_shapes(items)
        settings["nuclei"] = _NUCLEI_VERSION
    return Plan(
        tuple(archives),
        _list_entries(items, size, config),
        settings,
        None if config.shards.images else pixels,
    )


def _list_entries(items: Sequence[Item], size: ShardSize, config: Config) -> Entries:
    """Cut all datasets and number the shards, in the order of the table."""
    datasets, reasons = Texts(), Texts()
    pieces = [make_rows(0)]
    for item in items:
        rows = make_rows(1) if item.info is None else cut(item.info, size, config)
        if len(rows):
            rows["archive"] = item.archive
            rows["dataset"] = datasets.place(item.dataset)
            rows["reason"] = reasons.place(item.reason)
        pieces.append(rows)
    entries = np.concatenate(pieces)
    is_shard = entries["reason"] == NONE
    entries["shard"] = np.where(is_shard, np.cumsum(is_shard) - 1, NONE)
    return Entries(entries, datasets.texts, reasons.texts)


def _list_shapes(items: Sequence[Item]) -> list[list[Any]]:
    """Archive, key and shape of each dataset, as JSON has them."""
    return [
        [item.archive, item.dataset, list(item.info.shape)]
        for item in items
        if item.info is not None
    ]


def _settings(config: Config, model: BundleInfo) -> dict[str, Any]:
    instances = config.instances.model_dump(mode="json")
    settings: dict[str, Any] = {}
    # As of runs that were begun before there were others.
    if instances["views"] == 1:
        del instances["views"]
    if model.model.maps_version > 1:
        settings["maps"] = model.model.maps_version
    return {
        **settings,
        "model": model.identity,
        "instances": instances,
        "calibration": model.calibration and model.calibration.as_dict(),
        # Where it is computed is settled by the first worker, see `compute.json`.
        "inference": config.inference.model_dump(mode="json", exclude={"device"}),
    }
