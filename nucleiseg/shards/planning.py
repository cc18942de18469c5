"""Making a plan from the headers of the archives."""

import dataclasses
import itertools
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nucleiseg.archives import (
    DatasetInfo,
    find_images,
    find_unfit_images,
    fingerprint,
    split_name,
    to_one_line,
)
from nucleiseg.bundle import BundleInfo
from nucleiseg.config import Config, ShardsConfig
from nucleiseg.errors import ArchiveError
from nucleiseg.shards.plan import ArchiveRef, Entry, Plan

logger = logging.getLogger(__name__)


def make_plan(inputs: Sequence[str], config: Config, model: BundleInfo) -> Plan:
    """Plan a run from the headers of its archives.

    Parameters
    ----------
    inputs : sequence of str
        Each `ARCHIVE` or `ARCHIVE:KEY`, the key a glob.
    config : Config
        Completed by :func:`nucleiseg.bundle.resolve_for_counting`.
    model : BundleInfo

    Returns
    -------
    Plan
        An input that cannot be read is an entry with its reason; a dataset that is
        named twice is counted once.
    """
    names = [split_name(text) for text in inputs]
    # One archive, however its path is written; the first way of writing it is shown.
    paths: dict[Path, Path] = {}
    for path, _ in names:
        paths.setdefault(path.resolve(), path.absolute())
    numbers = {resolved: number for number, resolved in enumerate(paths)}
    references = _refer(list(paths.values()))
    entries: list[Entry] = []
    seen: set[tuple[int, str | None]] = set()
    for path, key in names:
        number = numbers[path.resolve()]
        found = _find(path, key)
        if found.fingerprint is not None:
            references[number] = dataclasses.replace(
                references[number], fingerprint=found.fingerprint
            )
        for info in found.datasets:
            if (number, info.key) in seen:
                logger.warning(
                    "%s:%s is named twice; it is counted once", path, info.key
                )
                continue
            seen.add((number, info.key))
            entries += _cut(info, number, config.shards)
        for dataset, reason in found.failures:
            if (number, dataset) not in seen:
                seen.add((number, dataset))
                entries.append(Entry(number, dataset=dataset, reason=reason))
    return Plan(tuple(references), _number(entries), _settings(config, model))


@dataclass(frozen=True)
class _Found:
    """What an input names."""

    datasets: Sequence[DatasetInfo]
    failures: Sequence[tuple[str | None, str]]
    """Key, where there is one, and reason of what cannot be counted."""
    fingerprint: str | None


def _find(path: Path, key: str | None) -> _Found:
    try:
        datasets = find_images(path, key)
        unfit = find_unfit_images(path, key)
        # Its failure means the archive went away in between.
        identity = fingerprint(path)
    except ArchiveError as error:
        return _Found([], [(key, error.reason)], None)
    for info in datasets:
        if info.n_images == 0:
            logger.warning("%s:%s holds 0 images", path, info.key)
    failures = [(info.key, str(info.problem)) for info in unfit]
    return _Found(datasets, failures, identity)


def _number(entries: Sequence[Entry]) -> tuple[Entry, ...]:
    """Give the shards their numbers, in the order of the table."""
    numbers = itertools.count()
    return tuple(
        entry
        if entry.reason is not None
        else dataclasses.replace(entry, shard=next(numbers))
        for entry in entries
    )


def _refer(paths: Sequence[Path]) -> list[ArchiveRef]:
    names = shortest_names(paths)
    return [
        # A name that no table can hold, with a newline or not UTF-8, is escaped.
        ArchiveRef(str(path), to_one_line(name), None)
        for path, name in zip(paths, names, strict=True)
    ]


def shortest_names(paths: Sequence[Path]) -> list[str]:
    """Shortest suffix of each path that no other path ends with.

    Examples
    --------
    >>> shortest_names([Path("/a/x.npz"), Path("/b/x.npz"), Path("/b/y.npz")])
    ['a/x.npz', 'b/x.npz', 'y.npz']
    """
    names = []
    for path in paths:
        length = 1
        while length < len(path.parts) and any(
            other.parts[-length:] == path.parts[-length:]
            for other in paths
            if other != path
        ):
            length += 1
        names.append(str(Path(*path.parts[-length:])))
    return names


def _cut(info: DatasetInfo, archive: int, settings: ShardsConfig) -> list[Entry]:
    height, width = info.image_shape
    size = settings.images or max(1, settings.pixels // (height * width))
    return [
        Entry(
            archive,
            dataset=info.key,
            start=start,
            stop=min(start + size, info.n_images),
            height=height,
            width=width,
        )
        for start in range(0, info.n_images, size)
    ]


def _settings(config: Config, model: BundleInfo) -> dict[str, Any]:
    return {
        "model": model.identity,
        "instances": config.instances.model_dump(mode="json"),
        # Where it is computed is settled by the first worker, see `compute.json`.
        "inference": config.inference.model_dump(mode="json", exclude={"device"}),
    }
