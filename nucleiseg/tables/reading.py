"""Partial tables read for merging: shard by shard, or all blocks of an image."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import pyarrow as pa

from nucleiseg.config import InstancesConfig
from nucleiseg.errors import RunError
from nucleiseg.runs import CountRun
from nucleiseg.shards import Entry, Plan
from nucleiseg.tables.handfuls import map_by_handfuls
from nucleiseg.tables.partial import fetch_partial, unpack_partial
from nucleiseg.tables.parts import find_done
from nucleiseg.tables.rows import LABELS

Result = TypeVar("Result")
Join = Callable[[Sequence[Entry], Sequence[pa.Table], InstancesConfig], Result]

# Pixels whose labels, packed, take about as much memory as a row of a table.
_LABELLED_PIXELS = 2**13


@dataclass(frozen=True)
class Group:
    """A shard, or all blocks of one image, with the partial tables that are there."""

    entries: list[Entry]
    partials: list[pa.Table]

    @property
    def is_missing(self) -> bool:
        """Whether any partial table is; an input that is no shard has none."""
        n_shards = sum(entry.shard is not None for entry in self.entries)
        return len(self.partials) < n_shards


class PartReader:
    """Reads the partial tables of a run.

    Parameters
    ----------
    run : CountRun
    plan : Plan
    compute : str or None
        Identity of the compute setting that all must have.
    incomplete : bool
        Whether some may be missing: those that are now. What workers add while others
        are read stays out, so that all passes over them find the same.
    """

    def __init__(
        self, run: CountRun, plan: Plan, compute: str | None, *, incomplete: bool
    ) -> None:
        self._run = run
        self.plan = plan
        self._compute = compute
        self._present = find_done(run, plan) if incomplete else None

    @property
    def folder(self) -> Path:
        """Folder of the partial tables."""
        return self._run.parts

    def read(self, shard: Entry) -> pa.Table | None:
        """Read a partial table; None where it is missing, and may be.

        Raises
        ------
        RunError
            It is missing, damaged or another run's.
        """
        return self._unpack(shard, self._fetch(shard)[1])

    def _unpack(self, shard: Entry, content: bytes | None) -> pa.Table | None:
        if content is not None:
            return unpack_partial(
                self._run, self.plan, shard, content, compute=self._compute
            )
        if self._present is not None:
            return None
        assert shard.shard is not None
        raise RunError(
            f"shard {shard.shard} ({self.plan.describe(shard)}) has no partial "
            f"table {self._run.part(shard.shard)}; run the same command again to "
            "compute it"
        )

    def read_groups(
        self, entries: Iterable[Entry], *, labels: bool = False
    ) -> Iterator[Group]:
        """Read partial tables, those of the blocks of one image together.

        Files are read by threads, a handful at once, and made sense of by this one:
        Python runs one at a time, so that several would only wait for each other.

        Parameters
        ----------
        entries : iterable of Entry
            Those that are no shards have no partial tables.
        labels : bool
            Whether label images are wanted, of shards of whole images; those of all
            blocks of an image would not fit into memory.

        Raises
        ------
        RunError
            One is missing, damaged or another run's.
        """
        group = Group([], [])
        for entry, content in map_by_handfuls(self._fetch, entries, size=self._measure):
            if group.entries and (entry.block is None or entry.is_first_block):
                yield group
                group = Group([], [])
            group.entries.append(entry)
            partial = None
            if entry.shard is not None:
                partial = self._unpack(entry, content)
            if partial is None:
                continue
            if self.plan.has_labels and not (labels and entry.block is None):
                partial = partial.drop_columns(LABELS.name)
            group.partials.append(partial)
        if group.entries:
            yield group

    def _fetch(self, entry: Entry) -> tuple[Entry, bytes | None]:
        if entry.shard is None:
            return entry, None
        if self._present is not None and not self._present[entry.shard]:
            return entry, None
        return entry, fetch_partial(self._run, entry)

    def join(
        self, blocks: Sequence[Entry], partials: Sequence[pa.Table], join: Join[Result]
    ) -> Result:
        """Join the blocks of one image.

        Parameters
        ----------
        blocks : sequence of Entry
        partials : sequence of Table
            Of each of them.
        join : callable
            Takes both and the settings that nuclei were made with.

        Raises
        ------
        RunError
            They do not fit together.
        """
        settings = InstancesConfig.model_validate(self.plan.settings["instances"])
        try:
            return join(blocks, partials, settings)
        except ValueError as error:
            numbers = [block.shard for block in blocks]
            raise RunError(
                f"blocks {self.plan.describe(blocks[0])} and following, shards "
                f"{numbers[0]} to {numbers[-1]}, cannot be joined ({error}); delete "
                f"their partial tables in {self._run.parts} and run the same command "
                "again"
            ) from error

    def explain_damage(self, shard: Entry, what: str, error: Exception) -> RunError:
        """Name the shard of which labels or nuclei are not what was counted."""
        return RunError(
            f"the {what} of shard {shard.shard} ({self.plan.describe(shard)}) are "
            f"damaged ({error}); delete its partial table in {self.folder} and run "
            "the same command again"
        )

    def _measure(self, entry: Entry) -> int:
        """Size of what reading an entry takes, in rows."""
        if not self.plan.has_labels:
            return entry.n_images
        return entry.n_images + _count_pixels(entry) // _LABELLED_PIXELS


def _count_pixels(entry: Entry) -> int:
    if entry.block is None:
        return entry.n_images * entry.height * entry.width
    block = entry.block
    return (block.bottom - block.top) * (block.right - block.left)
