"""What a plan is: archives and shards in the order of the table."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np

from nucleiseg.quality import Calibration
from nucleiseg.shards.entries import NONE, Entries
from nucleiseg.shards.entry import Entry

# Bumped where the same run would get other shards, or a plan is written otherwise.
_VERSION = b"nucleiseg plan 2\n"

_LABELS = "labels"

_NUCLEI = "nuclei"


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
class DatasetShare:
    """What a plan holds of one dataset."""

    archive: int
    dataset: str
    n_images: int
    n_shards: int
    image_shape: tuple[int, int]


@dataclass(frozen=True)
class Plan:
    """All archives and shards of a run, in the order of the table."""

    archives: tuple[ArchiveRef, ...]
    entries: Sequence[Entry]
    """Kept as :class:`Entries`: columns, whatever sequence it was made from."""
    settings: dict[str, Any]
    """What else a partial table depends on: model, thresholds, calibration, compute
    settings; and, where label images are made, too, `labels`: :attr:`label_shapes` as
    JSON, and `nuclei`: the version of what is kept of each nucleus."""
    shard_pixels: int | None = None
    """Pixels a shard, about, that were set or chosen; None: images a shard were set.
    Not in the identity: the shards themselves are."""

    def __post_init__(self) -> None:
        if not isinstance(self.entries, Entries):
            object.__setattr__(self, "entries", Entries.collect(self.entries))

    @cached_property
    def identity(self) -> str:
        """SHA-256 over everything; a partial table carries it."""
        entries = self.columns
        texts = {
            "archives": [asdict(archive) for archive in self.archives],
            "datasets": entries.datasets,
            "reasons": entries.reasons,
            "settings": self.settings,
        }
        digest = hashlib.sha256(_VERSION)
        # JSON holds no line break: where the texts end and the rows begin is clear.
        digest.update(json.dumps(texts).encode() + b"\n")
        digest.update(np.ascontiguousarray(entries.rows).tobytes())
        return digest.hexdigest()

    @property
    def columns(self) -> Entries:
        """The entries, as what they are kept in."""
        assert isinstance(self.entries, Entries)
        return self.entries

    @cached_property
    def shards(self) -> Entries:
        """Entries that are work, by shard number."""
        is_shard = self.columns.rows["shard"] != NONE
        return self.columns if is_shard.all() else self.columns.select(is_shard)

    @property
    def unreadable(self) -> list[Entry]:
        """Inputs that cannot be read."""
        return list(self.columns.select(self.columns.rows["shard"] == NONE))

    @property
    def n_images(self) -> int:
        """Images in all shards; a large one once, however many blocks it has."""
        return self.shards.n_images

    @property
    def datasets(self) -> list[tuple[int, str]]:
        """Archive number and key of each dataset, once each, in order."""
        return [(share.archive, share.dataset) for share in self.dataset_shares]

    @cached_property
    def dataset_shares(self) -> list[DatasetShare]:
        """What the plan holds of each dataset, once each, in order."""
        shards = self.shards
        rows = shards.rows
        keys = rows["archive"].astype(np.int64) * len(shards.datasets)
        keys += rows["dataset"]
        _, firsts, groups = np.unique(keys, return_index=True, return_inverse=True)
        n_shards = np.bincount(groups, minlength=len(firsts))
        n_images = np.zeros(len(firsts), dtype=np.int64)
        np.add.at(n_images, groups, shards.n_new_images)
        return [
            DatasetShare(
                int(rows["archive"][firsts[group]]),
                shards.datasets[rows["dataset"][firsts[group]]],
                int(n_images[group]),
                int(n_shards[group]),
                shards[int(firsts[group])].image_shape,
            )
            for group in np.argsort(firsts).tolist()
        ]

    @cached_property
    def calibration(self) -> Calibration | None:
        """What the model's validation images say of its nuclei, where it was asked."""
        values = self.settings.get("calibration")
        return None if values is None else Calibration.from_dict(values)

    @property
    def maps_version(self) -> int:
        """Of the maps it is for, see :class:`nucleiseg.config.ModelConfig`."""
        return int(self.settings.get("maps", 1))

    @property
    def has_labels(self) -> bool:
        """Whether label images are made, too."""
        return _LABELS in self.settings

    @property
    def has_nuclei(self) -> bool:
        """Whether each nucleus has a row: with labels, but in no plan of before."""
        return _NUCLEI in self.settings

    @cached_property
    def label_shapes(self) -> dict[tuple[int, str], tuple[int, ...]]:
        """Shape of each dataset, by archive number and key, in order.

        Without label images there are none. Those of datasets without images are among
        them, of which the plan has no shards.
        """
        found = self.settings.get(_LABELS, [])
        return {(archive, key): tuple(shape) for archive, key, shape in found}

    def describe(self, entry: Entry) -> str:
        """Name an entry as people do: `plate7.h5:/wells/A1/images[100:200]`."""
        name = self.archives[entry.archive].name
        if entry.dataset is None:
            return name
        if entry.shard is None:
            return f"{name}:{entry.dataset}"
        if entry.block is not None:
            return f"{name}:{entry.dataset}[{entry.start}] {entry.block}"
        return f"{name}:{entry.dataset}[{entry.start}:{entry.stop}]"


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
    if before.has_labels != now.has_labels:
        made, asked = ("with", "without") if before.has_labels else ("without", "with")
        return f"it was planned {made} label images, and is now to be {asked} them"
    if before.has_nuclei != now.has_nuclei:
        return (
            "it was planned by a version that made no table of nuclei (nucleiseg retry "
            "goes on with it)"
        )
    if before.maps_version != now.maps_version:
        return "another version planned it, which makes other maps of this network"
    for group, value in before.settings.items():
        if value != now.settings[group] and group != _LABELS:
            return f"{group} was {value} and is now {now.settings[group]}"
    return "other datasets or shard sizes were planned"
