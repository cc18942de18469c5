"""A run's workers: shards to them, results from them."""

import contextlib
import logging
import queue
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from nucleiseg.attempts import Attempts
from nucleiseg.cluster.connection import connect
from nucleiseg.cluster.task import Report, compute_or_explain, draw, explain
from nucleiseg.cluster.workers import Workers
from nucleiseg.errors import NucleisegError
from nucleiseg.inference import ShardResult
from nucleiseg.runs import CountRun
from nucleiseg.shards import Entry

if TYPE_CHECKING:
    from distributed import Client, Future

logger = logging.getLogger(__name__)

# How often what else there is to see to is seen to, while shards are computed.
_TICK_S = 1.0

# Rounds of a shard that loses its workers without a trace of why.
_MOST_ROUNDS = 5


class Team:
    """Workers that are ready for one run; use :func:`open_team`.

    Parameters
    ----------
    root : Path
        The run directory.
    plan : str
        Identity of its plan.
    n_threads : int or None
        Cores that may be kept busy; None: each worker knows for itself.
    """

    def __init__(self, root: Path, plan: str, n_threads: int | None = None) -> None:
        self._root = root
        self._plan = plan
        self._n_threads = n_threads

    @property
    def n_workers(self) -> int:
        """Workers in processes of their own that are there now."""
        return 0

    @property
    def was_stopped(self) -> bool:
        """Whether it handed out nothing more before all was done."""
        return False

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
            outcome = compute_or_explain(
                self._root, self._plan, number, self._n_threads
            ).outcome
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
        return draw(self._root, self._plan, picks, self._n_threads)


class DaskTeam(Team):
    """Workers in processes of their own.

    Parameters
    ----------
    root, plan
        See :class:`Team`.
    client : distributed.Client
    count_workers : callable
        How many there are now; they may come and go.
    """

    def __init__(
        self,
        root: Path,
        plan: str,
        *,
        client: "Client",
        count_workers: Callable[[], int],
    ) -> None:
        super().__init__(root, plan)
        self._client = client
        self._count_workers = count_workers
        self._attempts = Attempts(CountRun(root))
        self._ticked_s = float("-inf")
        # Rounds without a new death, and deaths so far, of shards that lost workers.
        self._rounds: dict[int, tuple[int, int]] = {}

    @property
    def n_workers(self) -> int:
        """Workers that are there now."""
        return self._count_workers()

    def compute(
        self, shards: Sequence[Entry], *, on_done: Callable[[ShardResult], None]
    ) -> list[str]:
        """Compute shards in the workers; see :meth:`Team.compute`."""
        failures: list[str] = []
        n_done = 0
        waiting = deque(_numbers(shards))
        running: dict[int, Future] = {}
        finished: queue.SimpleQueue[int] = queue.SimpleQueue()
        while running or (waiting and not self.was_stopped):
            # A bounded window: the scheduler's memory does not grow with the plan.
            while waiting and self.accepts(len(running)):
                number = waiting.popleft()
                running[number] = self._submit(number, finished)
            if time.monotonic() - self._ticked_s >= _TICK_S:
                # Not with each shard: it looks at files on a shared file system.
                self._ticked_s = time.monotonic()
                self.tick(len(waiting), running)
            try:
                number = finished.get(timeout=_TICK_S)
            except queue.Empty:
                continue
            outcome = self._collect(number, running.pop(number))
            if isinstance(outcome, ShardResult):
                on_done(outcome)
                n_done += 1
            elif outcome is None:
                waiting.append(number)
            elif isinstance(outcome, NucleisegError) and not n_done:
                # Nothing works yet, and the message says what to mend.
                raise outcome
            elif not self.was_stopped:
                failures.append(f"shard {number}: {_in_words(outcome)}")
        return failures

    def _collect(
        self, number: int, future: "Future"
    ) -> ShardResult | BaseException | None:
        """Take what came of a shard; None: it is to be handed out again."""
        if future.cancelled():
            return None
        error: BaseException | None = future.exception()
        report = None if error is not None else future.result()
        # A result that is still held would be computed again when its worker leaves.
        future.release()
        if report is not None:
            assert isinstance(report, Report)
            return self.judge(number, report)
        if self._may_repeat(number, error):
            return None
        logger.error("shard %d: %s", number, error, exc_info=error)
        return error

    def judge(self, number: int, report: Report) -> ShardResult | BaseException | None:
        """Decide what a worker's report means; None: another one shall try."""
        return report.outcome

    def draw(self, picks: Sequence[tuple[int, int]]) -> int:
        """Draw pictures in one of the workers."""
        future = self._client.submit(draw, self._root, self._plan, picks, pure=False)
        while not self.was_stopped:
            try:
                return int(future.result(timeout=_TICK_S))
            except TimeoutError:
                # Perhaps the last worker has left: somebody must look.
                self.tick(1, {})
        future.cancel()
        return 0

    def accepts(self, n_running: int) -> bool:
        """Decide whether one more shard may be handed out."""
        return n_running < 2 * max(1, self._count_workers())

    def tick(self, n_waiting: int, running: "dict[int, Future]") -> None:
        """See to other things: called about once a second."""

    def _submit(self, number: int, finished: "queue.SimpleQueue[int]") -> "Future":
        # Not pure: an earlier call's result under the same key must not count.
        future = self._client.submit(
            compute_or_explain, self._root, self._plan, number, pure=False
        )
        future.add_done_callback(lambda _: finished.put(number))
        return future

    def _may_repeat(self, number: int, error: BaseException | None) -> bool:
        """Decide whether a shard that lost its workers is handed out again.

        It is as long as the deaths on disk grow, which lead to the image that
        kills; and where its workers vanished without a death on disk, they were
        taken away, which is no fault of the shard.
        """
        from distributed import KilledWorker

        if not isinstance(error, KilledWorker):
            return False
        n_rounds, n_deaths = self._rounds.get(number, (0, 0))
        now = self._attempts.n_deaths(number)
        n_rounds = 1 if now > n_deaths else n_rounds + 1
        self._rounds[number] = (n_rounds, now)
        logger.warning("shard %d lost its workers; it is tried again", number)
        return n_rounds <= _MOST_ROUNDS


def _numbers(shards: Sequence[Entry]) -> list[int]:
    return [shard.shard for shard in shards if shard.shard is not None]


def _in_words(error: BaseException) -> str:
    from distributed import KilledWorker

    if isinstance(error, KilledWorker):
        return "its workers died again and again (killed, out of memory, or crashed)"
    if isinstance(error, NucleisegError):
        return str(error)
    return explain(error)


@contextlib.contextmanager
def open_team(root: Path, plan: str, workers: Workers) -> Iterator[Team]:
    """Start the workers of a run on this machine, and end them whatever happens.

    Parameters
    ----------
    root : Path
        The run directory.
    plan : str
        Identity of its plan.
    workers : Workers
    """
    if workers.count == 0:
        yield Team(root, plan, workers.n_threads)
        return
    with connect(root, workers) as client:
        yield DaskTeam(root, plan, client=client, count_workers=lambda: workers.count)
