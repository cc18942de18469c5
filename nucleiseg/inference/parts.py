"""A shard that has a past: computed part by part, so that nothing is lost again."""

import itertools
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass

from nucleiseg.attempts import Attempts, History, Range, halve
from nucleiseg.errors import RunError
from nucleiseg.runs import CountRun
from nucleiseg.shards import Entry, Plan
from nucleiseg.tables import ImageRow, read_rows, write_rows


@dataclass(frozen=True)
class Parts:
    """What finished parts of a shard are stamped with, and where they lie."""

    run: CountRun
    plan: Plan
    compute: str
    worker: str

    def compute_shard(
        self, shard: Entry, compute_rows: Callable[[int, int], list[ImageRow]]
    ) -> list[ImageRow]:
        """Compute what is missing of a shard, halving it where it kills.

        Parameters
        ----------
        shard : Entry
        compute_rows : callable
            Computes the images from the first to before the second number.

        Returns
        -------
        list of ImageRow
            All of the shard, in order; an image that killed its worker again and
            again is a failed one.
        """
        assert shard.shard is not None
        attempts = Attempts(self.run)
        rows = self._read_rows(shard, attempts)
        whole = (shard.start, shard.stop)
        while True:
            history = attempts.history(shard.shard)
            rows |= _give_up(history)
            part = find_part(history, whole, done=rows)
            if part is None:
                return [rows[index] for index in range(*whole)]
            with attempts.attempt(shard.shard, part, worker=self.worker):
                fresh = [
                    row
                    for start, stop in find_gaps(part, done=rows)
                    for row in compute_rows(start, stop)
                ]
            if part != whole:
                name = f"rows-{part[0]:09d}-{part[1]:09d}.parquet"
                path = attempts.rows_folder(shard.shard) / name
                write_rows(path, self.plan, shard, fresh, compute=self.compute)
            rows |= {row.index: row for row in fresh}

    def _read_rows(self, shard: Entry, attempts: Attempts) -> dict[int, ImageRow]:
        assert shard.shard is not None
        rows: dict[int, ImageRow] = {}
        for path in attempts.rows_files(shard.shard):
            try:
                rows |= read_rows(path, self.plan, shard, compute=self.compute)
            except RunError:
                # Gone where another worker has just finished the shard.
                if path.exists():
                    raise
        return rows


def find_part(
    history: History, part: Range, *, done: Collection[int], is_whole: bool = True
) -> Range | None:
    """Find the range to compute next, within a range that may have killed.

    Returns
    -------
    (start, stop) or None
        A node of the tree of halves; None where nothing is missing.
    """
    start, stop = part
    if not any(find_gaps(part, done=done)):
        return None
    if stop - start == 1 or not history.must_halve(part, is_whole=is_whole):
        return part
    for half in halve(part):
        found = find_part(history, half, done=done, is_whole=False)
        if found is not None:
            return found
    return None


def find_gaps(part: Range, *, done: Collection[int]) -> Iterator[Range]:
    """Find the ranges of images that are not done."""
    missing = [index for index in range(*part) if index not in done]
    # In a range of numbers without a gap, number minus position is constant.
    for _, run in itertools.groupby(enumerate(missing), lambda pair: pair[1] - pair[0]):
        numbers = [number for _, number in run]
        yield numbers[0], numbers[-1] + 1


def _give_up(history: History) -> dict[int, ImageRow]:
    """Rows of images that killed their worker too often."""
    return {
        start: ImageRow(start, None, reason)
        for start, stop in history.deaths
        if stop - start == 1 and (reason := history.verdict(start)) is not None
    }
