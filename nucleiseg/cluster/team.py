"""A run's workers: shards to them, results from them."""

import contextlib
import logging
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nucleiseg.cluster.connection import connect
from nucleiseg.cluster.workers import Workers
from nucleiseg.errors import IncompleteError, NucleisegError
from nucleiseg.inference import ShardResult, compute_shard, draw_pictures
from nucleiseg.shards import Entry

if TYPE_CHECKING:
    from distributed import Client

logger = logging.getLogger(__name__)


class Team:
    """Workers that are ready for one run; use :func:`open_team`."""

    def __init__(self, root: Path, plan: str, workers: Workers) -> None:
        self._root = root
        self._plan = plan
        self._n_threads = workers.n_threads

    def compute(
        self, shards: Sequence[Entry], *, on_done: Callable[[ShardResult], None]
    ) -> list[str]:
        """Compute shards, each once as far as the run directory is concerned.

        Parameters
        ----------
        shards : sequence of Entry
            What is missing.
        on_done : callable
            Told of every finished shard.

        Returns
        -------
        list of str
            A line for each shard that could not be computed; the others are done.

        Raises
        ------
        NucleisegError
            None can be computed: the model, the run directory or the device is wrong.
        """
        failures: list[str] = []
        n_done = 0
        for number in _numbers(shards):
            outcome = _compute_or_explain(
                self._root, self._plan, number, self._n_threads
            )
            if not isinstance(outcome, NucleisegError):
                on_done(outcome)
                n_done += 1
            elif not n_done:
                raise outcome
            else:
                failures.append(f"shard {number}: {outcome}")
        return failures

    def draw(self, picks: Sequence[tuple[int, int]]) -> int:
        """Draw pictures; see :func:`nucleiseg.inference.draw_pictures`."""
        return draw_pictures(self._root, self._plan, picks, self._n_threads)


class _DaskTeam(Team):
    """Workers in processes of their own."""

    def __init__(
        self, root: Path, plan: str, workers: Workers, client: "Client"
    ) -> None:
        super().__init__(root, plan, workers)
        self._client = client
        self._count = workers.count

    def compute(
        self, shards: Sequence[Entry], *, on_done: Callable[[ShardResult], None]
    ) -> list[str]:
        from distributed import as_completed

        failures: list[str] = []
        n_done = 0
        waiting = deque(_numbers(shards))
        running: dict[str, int] = {}

        def submit() -> list[Any]:
            if not waiting:
                return []
            number = waiting.popleft()
            # Not pure: an earlier call's result under the same key must not count.
            future = self._client.submit(
                _compute_or_explain,
                self._root,
                self._plan,
                number,
                self._n_threads,
                pure=False,
            )
            running[future.key] = number
            return [future]

        # A bounded window: the scheduler's memory does not grow with the plan.
        window = [future for _ in range(2 * self._count) for future in submit()]
        done = as_completed(window)
        for future in done:
            number = running.pop(future.key)
            error = future.exception()
            if error is not None:
                logger.error("shard %d: %s", number, _in_words(error), exc_info=error)
                failures.append(f"shard {number}: {_in_words(error)}")
            elif not isinstance(outcome := future.result(), NucleisegError):
                on_done(outcome)
                n_done += 1
            elif not n_done:
                # Nothing works yet, and the message says what to mend.
                raise outcome
            else:
                failures.append(f"shard {number}: {outcome}")
            future.release()
            done.update(submit())
        return failures

    def draw(self, picks: Sequence[tuple[int, int]]) -> int:
        future = self._client.submit(
            draw_pictures, self._root, self._plan, picks, self._n_threads, pure=False
        )
        return int(future.result())


def _compute_or_explain(
    root: Path, plan: str, number: int, n_threads: int
) -> ShardResult | NucleisegError:
    """Compute a shard; what the user can mend is an answer, not a crash.

    dask would print the trace of an exception, which helps with our faults only.
    """
    try:
        return compute_shard(root, plan, number, n_threads)
    except NucleisegError as error:
        return error
    except (OSError, MemoryError) as error:
        # A full disk, a file system that is gone, too little memory.
        return IncompleteError(
            f"{_in_words(error)}; mend that, then run the same command again: what is "
            "done is kept"
        )


def _numbers(shards: Sequence[Entry]) -> list[int]:
    return [shard.shard for shard in shards if shard.shard is not None]


def _in_words(error: BaseException) -> str:
    from distributed import KilledWorker

    if isinstance(error, KilledWorker):
        return "its worker died again and again (killed, out of memory, or crashed)"
    if isinstance(error, OSError) and error.strerror:
        return (
            f"{error.filename}: {error.strerror}" if error.filename else error.strerror
        )
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


@contextlib.contextmanager
def open_team(root: Path, plan: str, workers: Workers) -> Iterator[Team]:
    """Start the workers of a run, and end them whatever happens.

    Parameters
    ----------
    root : Path
        The run directory.
    plan : str
        Identity of its plan.
    workers : Workers
    """
    if workers.count == 0:
        yield Team(root, plan, workers)
        return
    with connect(workers) as client:
        yield _DaskTeam(root, plan, workers, client)
