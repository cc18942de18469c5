"""The plan: every shard of a run, written down before any work starts.

A shard is a range of images of one dataset. The plan also holds the inputs that could
not be read, in their place, so that the table is made from the plan alone.
"""

import dataclasses
import hashlib
import itertools
import json
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

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
from nucleiseg.errors import ArchiveError, RunError
from nucleiseg.runs import atomic_path

logger = logging.getLogger(__name__)

_SCHEMA = pa.schema(
    [
        ("shard", pa.int32()),
        ("archive", pa.int32()),
        ("dataset", pa.string()),
        ("start", pa.int64()),
        ("stop", pa.int64()),
        ("height", pa.int64()),
        ("width", pa.int64()),
        ("reason", pa.string()),
    ]
)


@dataclass(frozen=True)
class ArchiveRef:
    """An archive of a run."""

    path: str
    """Absolute."""
    name: str
    """Shortest path suffix that is unique in the run, as the table shows it."""
    fingerprint: str | None
    """None where the archive could not be read."""


@dataclass(frozen=True)
class Entry:
    """One row of the plan: a shard, or an input that cannot be read."""

    archive: int
    """Which of the plan's archives."""
    shard: int | None = None
    """Number of the shard, from 0; None for an unreadable input."""
    dataset: str | None = None
    start: int = 0
    stop: int = 0
    height: int = 0
    width: int = 0
    reason: str | None = None
    """Why the input cannot be read; None for a shard."""

    @property
    def n_images(self) -> int:
        """Images in the range."""
        return self.stop - self.start

    @property
    def image_shape(self) -> tuple[int, int]:
        """Height and width of each image."""
        return self.height, self.width


@dataclass(frozen=True)
class Plan:
    """All archives and shards of a run, in the order of the table."""

    archives: tuple[ArchiveRef, ...]
    entries: tuple[Entry, ...]
    settings: dict[str, Any]
    """What else a partial table depends on: model, thresholds, compute settings."""

    @cached_property
    def identity(self) -> str:
        """SHA-256 over everything; a partial table carries it."""
        content = {
            "archives": [asdict(archive) for archive in self.archives],
            "entries": [list(asdict(entry).values()) for entry in self.entries],
            "settings": self.settings,
        }
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()

    @cached_property
    def shards(self) -> tuple[Entry, ...]:
        """Entries that are work, by shard number."""
        return tuple(entry for entry in self.entries if entry.shard is not None)

    @property
    def unreadable(self) -> list[Entry]:
        """Inputs that cannot be read."""
        return [entry for entry in self.entries if entry.shard is None]

    @property
    def n_images(self) -> int:
        """Images in all shards."""
        return sum(shard.n_images for shard in self.shards)

    @property
    def datasets(self) -> list[tuple[int, str]]:
        """Archive number and key of each dataset, once each, in order."""
        return list(
            dict.fromkeys((shard.archive, str(shard.dataset)) for shard in self.shards)
        )

    def describe(self, entry: Entry) -> str:
        """Name an entry as people do: `plate7.h5:/wells/A1/images[100:200]`."""
        name = self.archives[entry.archive].name
        if entry.dataset is None:
            return name
        if entry.shard is None:
            return f"{name}:{entry.dataset}"
        return f"{name}:{entry.dataset}[{entry.start}:{entry.stop}]"


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
        "inference": config.inference.model_dump(mode="json"),
    }


def write_plan(path: Path, plan: Plan) -> None:
    """Write a plan as Parquet, atomically."""
    rows = [asdict(entry) for entry in plan.entries]
    metadata = {
        "archives": json.dumps([asdict(archive) for archive in plan.archives]),
        "settings": json.dumps(plan.settings),
        "identity": plan.identity,
    }
    table = pa.Table.from_pylist(rows, schema=_SCHEMA.with_metadata(metadata))
    with atomic_path(path) as temporary:
        pq.write_table(table, temporary)


def read_plan(path: Path) -> Plan:
    """Read a plan back.

    Raises
    ------
    RunError
        It is missing or damaged.
    """
    try:
        table = pq.read_table(path)
        metadata = table.schema.metadata
        archives = json.loads(metadata[b"archives"])
        plan = Plan(
            tuple(ArchiveRef(**archive) for archive in archives),
            tuple(Entry(**row) for row in table.to_pylist()),
            json.loads(metadata[b"settings"]),
        )
        identity = metadata[b"identity"].decode()
    except (OSError, pa.ArrowException, KeyError, TypeError, ValueError) as error:
        raise RunError(
            f"plan {path} cannot be read ({' '.join(str(error).split())}); is this a "
            "count run's directory?"
        ) from error
    if plan.identity != identity:
        raise RunError(
            f"plan {path} was changed after it was written; use another --run"
        )
    return plan


def explain_difference(before: Plan, now: Plan) -> str:
    """Say in one line why two plans are not the same run."""
    old = {archive.path: archive.fingerprint for archive in before.archives}
    new = {archive.path: archive.fingerprint for archive in now.archives}
    if list(old) != list(new):
        gone = [path for path in old if path not in new]
        added = [path for path in new if path not in old]
        return f"archives {gone or list(old)} were planned, now {added or list(new)}"
    changed = [path for path in old if old[path] != new[path]]
    if changed:
        return f"archive {changed[0]} has changed since the run was planned"
    for group, value in before.settings.items():
        if value != now.settings[group]:
            return f"{group} was {value} and is now {now.settings[group]}"
    return "other datasets or shard sizes were planned"
