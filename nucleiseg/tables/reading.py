"""Partial tables read for merging: shard by shard, or all blocks of an image."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import pyarrow as pa

from nucleiseg.config import InstancesConfig
from nucleiseg.errors import RunError
from nucleiseg.runs import CountRun
from nucleiseg.shards import Entry, Plan
from nucleiseg.tables.partial import read_partial
from nucleiseg.tables.rows import LABELS

Result = TypeVar("Result")
Join = Callable[[Sequence[Entry], Sequence[pa.Table], InstancesConfig], Result]

# Pixels whose labels, packed, take about as much memory as a row of a table.
_LABELLED_PIXELS = 2**13


def group_blocks(entries: Iterable[Entry]) -> Iterator[list[Entry]]:
    """Entries one by one, but the blocks of one image together."""
    group: list[Entry] = []
    for entry in entries:
        if group and (entry.block is None or entry.is_first_block):
            yield group
            group = []
        group.append(entry)
    if group:
        yield group


class PartReader:
    """Reads the partial tables of a run.

    Parameters
    ----------
    run : CountRun
    plan : Plan
    compute : str or None
        Identity of the compute setting that all must have.
    incomplete : bool
        Whether some may be missing.
    """

    def __init__(
        self, run: CountRun, plan: Plan, compute: str | None, *, incomplete: bool
    ) -> None:
        self._run = run
        self.plan = plan
        self._compute = compute
        self._incomplete = incomplete

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
        partial = read_partial(self._run, self.plan, shard, compute=self._compute)
        if partial is None and not self._incomplete:
            assert shard.shard is not None
            raise RunError(
                f"shard {shard.shard} ({self.plan.describe(shard)}) has no partial "
                f"table {self._run.part(shard.shard)}; run the same command again to "
                "compute it"
            )
        return partial

    def read_counted(self, group: Sequence[Entry]) -> list[pa.Table]:
        """Read the partial tables of a group that are there, without label images."""
        partials = []
        for shard in group:
            partial = self.read(shard)
            if partial is None:
                continue
            if self.plan.has_labels:
                # Those of all blocks of an image would not fit into memory.
                partial = partial.drop_columns(LABELS.name)
            partials.append(partial)
        return partials

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

    def measure(self, group: Sequence[Entry]) -> int:
        """Size of what reading a group takes, for :func:`map_ahead`: in rows."""
        n_rows = sum(entry.n_images for entry in group)
        if not self.plan.has_labels:
            return n_rows
        return n_rows + sum(map(_count_pixels, group)) // _LABELLED_PIXELS


def _count_pixels(entry: Entry) -> int:
    if entry.block is None:
        return entry.n_images * entry.height * entry.width
    block = entry.block
    return (block.bottom - block.top) * (block.right - block.left)
