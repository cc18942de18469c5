"""The datasets of a run, opened as its shards come."""

from pathlib import Path

from nucleiseg.archives import (
    Reader,
    fingerprint,
    needs_pass,
    open_reader,
    pass_member,
)
from nucleiseg.config import Config
from nucleiseg.errors import ArchiveError, IncompleteError
from nucleiseg.inference.outages import deferring_outages
from nucleiseg.runs import CountRun
from nucleiseg.shards import ArchiveRef, DatasetShare, Entry, Plan


def find_index(run: CountRun, config: Config) -> Path:
    """Find the folder of seek points: the run's own, or one that several share."""
    shared = config.shards.index
    return run.index if shared is None else Path(shared)


def _refuse_changed(archive: ArchiveRef) -> None:
    if not Path(archive.path).exists():
        raise IncompleteError(
            f"{archive.path} is gone; run the same command again when it is back"
        )
    if fingerprint(archive.path) != archive.fingerprint:
        words = "it has changed since the run was planned"
        raise ArchiveError(f"{archive.path}: {words}", reason=words)


class Sources:
    """Opens the datasets of shards; the last one stays open.

    Shards come in order: what a reader has inflated or cached is often needed again.

    Parameters
    ----------
    run : CountRun
    plan : Plan
    config : Config
    n_threads : int
        Threads that pass over a member that nobody has passed over yet.
    """

    def __init__(
        self, run: CountRun, plan: Plan, config: Config, *, n_threads: int
    ) -> None:
        self._plan = plan
        self._index = find_index(run, config)
        self._n_threads = n_threads
        self._open: tuple[tuple[str, str], Reader] | None = None

    def open(self, shard: Entry | DatasetShare) -> Reader:
        """Open the dataset of a shard, or go on with the reader that is open.

        Raises
        ------
        ArchiveError
            The dataset cannot be read, and never will be: its images fail.
        IncompleteError
            The file system is away, or fails: its images are to be computed later.
        """
        archive = self._plan.archives[shard.archive]
        name = (archive.path, str(shard.dataset))
        if self._open is not None and self._open[0] == name:
            with deferring_outages():
                _refuse_changed(archive)
            return self._open[1]
        self.close()
        self._open = (name, self.open_anew(archive, name[1]))
        return self._open[1]

    def open_anew(self, archive: ArchiveRef, dataset: str) -> Reader:
        """Open a reader of one's own, to be closed by the caller.

        A member that nobody has passed over is passed over first.

        Raises
        ------
        ArchiveError, IncompleteError
            See :meth:`open`.
        """
        with deferring_outages():
            _refuse_changed(archive)
            if not needs_pass(archive.path, dataset):
                return open_reader(archive.path, dataset)
            assert archive.fingerprint is not None
            pass_member(
                archive.path,
                dataset,
                folder=self._index,
                fingerprint=archive.fingerprint,
                n_threads=self._n_threads,
            )
            index = (self._index, archive.fingerprint)
            return open_reader(archive.path, dataset, index=index)

    def close(self) -> None:
        """Close what is open."""
        if self._open is not None:
            self._open[1].close()
        self._open = None
