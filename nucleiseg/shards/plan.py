"""What a plan is: archives and shards in the order of the table."""

import hashlib
import json
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any


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
