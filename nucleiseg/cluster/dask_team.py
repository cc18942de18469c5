"""Workers in processes of their own: what they are handed, and what comes back."""

import contextlib
import logging
import queue
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nucleiseg.archives import Member, MemberNote
from nucleiseg.attempts import Attempts
from nucleiseg.cluster.connection import connect
from nucleiseg.cluster.passes import Gate, Passes
from nucleiseg.cluster.task import (
    PASS_TOPIC,
    Report,
    compute_or_explain,
    draw,
    explain,
    pass_or_explain,
)
from nucleiseg.cluster.team import Team, ignore_passes, log_pass
from nucleiseg.cluster.workers import Workers
from nucleiseg.errors import NucleisegError
from nucleiseg.inference import ShardResult
from nucleiseg.runs import CountRun
from nucleiseg.shards import Entry

if TYPE_CHECKING:
    from distributed import Client, Future

logger = logging.getLogger(__name__)

Task = int | Member
"""What is handed out: a shard, by its number, or a pass over an npz member."""

Outcome = ShardResult | MemberNote | BaseException

# How often what else there is to see to is seen to, while shards are computed.
_TICK_S = 1.0

# Rounds of a shard that loses its workers without a trace of why.
_MOST_ROUNDS = 5
# A pass leaves no trace of its deaths, and its shards can do without it.
_MOST_PASS_ROUNDS = 1


class _Queue:
    """What is still to be handed out: passes first, then what need not wait."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate
        self.passes = Passes(len(gate.members))
        self.waiting: deque[Task] = deque([*gate.members, *gate.open])

    @property
    def n_left(self) -> int:
        """Tasks that are not handed out yet, whether they may be or not."""
        return len(self.waiting) + self._gate.n_held

    def finish_pass(self, member: Member, outcome: Outcome) -> list[str]:
        """Let a member's shards go; or say why they cannot be computed."""
        self.passes.finish(member)
        numbers = self._gate.release(member)
        if isinstance(outcome, MemberNote | NucleisegError):
            # Who computes the shards meets the same error, and judges it. They come
            # first: their member is in the cache, and other passes may take hours.
            self.waiting.extendleft(reversed(numbers))
            return []
        return [f"shard {number}: {member}: {_in_words(outcome)}" for number in numbers]


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
        # Rounds without a new death, and deaths so far, of tasks that lost workers.
        self._rounds: dict[Task, tuple[int, int]] = {}

    @property
    def n_workers(self) -> int:
        """Workers that are there now."""
        return self._count_workers()

    def compute(
        self,
        shards: Sequence[Entry],
        *,
        on_done: Callable[[ShardResult], None],
        on_pass: Callable[[Passes], None] = ignore_passes,
    ) -> list[str]:
        """Compute shards in the workers; see :meth:`Team.compute`."""
        failures: list[str] = []
        n_done = 0
        queued = _Queue(Gate(self._root, shards))
        running: dict[Task, Future] = {}
        finished: queue.SimpleQueue[Task] = queue.SimpleQueue()
        with self._listening(queued.passes):
            while running or (queued.waiting and not self.was_stopped):
                # A bounded window: the scheduler's memory does not grow with the plan.
                while queued.waiting and self.accepts(len(running)):
                    task = queued.waiting.popleft()
                    running[task] = self._submit(task, finished)
                if time.monotonic() - self._ticked_s >= _TICK_S:
                    # Not with each shard: it looks at files on a shared file system.
                    self._ticked_s = time.monotonic()
                    self.tick(queued.n_left, running)
                    if not queued.passes.is_done:
                        on_pass(queued.passes)
                try:
                    task = finished.get(timeout=_TICK_S)
                except queue.Empty:
                    continue
                outcome = self._collect(task, running.pop(task))
                if outcome is None:
                    queued.waiting.append(task)
                elif isinstance(task, Member):
                    lost = queued.finish_pass(task, outcome)
                    failures += [] if self.was_stopped else lost
                    on_pass(queued.passes)
                elif isinstance(outcome, ShardResult):
                    on_done(outcome)
                    n_done += 1
                elif isinstance(outcome, NucleisegError) and not n_done:
                    # Nothing works yet, and the message says what to mend.
                    raise outcome
                elif not self.was_stopped:
                    failures.append(f"{describe_task(task)}: {_in_words(outcome)}")
        return failures

    @contextlib.contextmanager
    def _listening(self, passes: Passes) -> Iterator[None]:
        """Take up what workers say of their passes."""
        if passes.is_done:
            yield
            return

        def note(event: tuple[object, dict[str, Any]]) -> None:
            passes.note(str(event[1]["member"]), float(event[1]["share"]))

        self._client.subscribe_topic(PASS_TOPIC, note)
        try:
            yield
        finally:
            self._client.unsubscribe_topic(PASS_TOPIC)

    def _collect(self, task: Task, future: "Future") -> Outcome | None:
        """Take what came of a task; None: it is to be handed out again."""
        if future.cancelled():
            return None
        error: BaseException | None = future.exception()
        report = None if error is not None else future.result()
        # A result that is still held would be computed again when its worker leaves.
        future.release()
        if report is not None:
            assert isinstance(report, Report)
            if isinstance(task, Member):
                log_pass(task, report.outcome)
            return self.judge(task, report)
        if self._may_repeat(task, error):
            return None
        logger.error("%s: %s", describe_task(task), error, exc_info=error)
        return error

    def judge(self, task: Task, report: Report) -> Outcome | None:
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

    def tick(self, n_waiting: int, running: "dict[Task, Future]") -> None:
        """See to other things: called about once a second."""

    def _submit(self, task: Task, finished: "queue.SimpleQueue[Task]") -> "Future":
        # Not pure: an earlier call's result under the same key must not count.
        future = (
            self._client.submit(
                pass_or_explain, self._root, self._plan, task, pure=False
            )
            if isinstance(task, Member)
            else self._client.submit(
                compute_or_explain, self._root, self._plan, task, pure=False
            )
        )
        future.add_done_callback(lambda _: finished.put(task))
        return future

    def _may_repeat(self, task: Task, error: BaseException | None) -> bool:
        """Decide whether a task that lost its workers is handed out again.

        It is as long as the deaths on disk grow, which lead to the image that
        kills; and where its workers vanished without a death on disk, they were
        taken away, which is no fault of the shard.
        """
        from distributed import KilledWorker

        if not isinstance(error, KilledWorker):
            return False
        n_rounds, n_deaths = self._rounds.get(task, (0, 0))
        if isinstance(task, Member):
            most, now = _MOST_PASS_ROUNDS, 0
        else:
            most, now = _MOST_ROUNDS, self._attempts.n_deaths(task)
        n_rounds = 1 if now > n_deaths else n_rounds + 1
        self._rounds[task] = (n_rounds, now)
        logger.warning("%s lost its workers; it is tried again", describe_task(task))
        return n_rounds <= most


def describe_task(task: Task) -> str:
    """Name a task in a message."""
    return f"shard {task}" if isinstance(task, int) else str(task)


def _in_words(error: Outcome) -> str:
    from distributed import KilledWorker

    if isinstance(error, KilledWorker):
        return "its workers died again and again (killed, out of memory, or crashed)"
    if isinstance(error, NucleisegError):
        return str(error)
    assert isinstance(error, BaseException)
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
