"""Processes of dask, taught what to do when a worker dies or must leave.

This module subclasses dask's classes and so loads dask when it is imported; import it
within functions only.
"""

import asyncio
import contextlib
import logging
import os
import signal
import time
from pathlib import Path
from typing import Any

from distributed import Nanny, Worker, WorkerPlugin
from distributed.core import Status

from nucleiseg.attempts import Attempts
from nucleiseg.cluster.task import get_ready
from nucleiseg.errors import NucleisegError
from nucleiseg.runs import CountRun

logger = logging.getLogger(__name__)

DRAIN_SIGNAL = signal.SIGUSR1
"""Tells a worker process to finish its shard and leave."""

# Until the system has made a process, on a node under load.
_BIRTH_S = 8.0


class WatchingNanny(Nanny):  # type: ignore[misc]
    """Starts a worker again when it dies, and records what it died of.

    Parameters
    ----------
    root : Path
        The run directory.
    **options
        Of :class:`distributed.Nanny`.
    """

    def __init__(self, *arguments: Any, root: Path, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._attempts = Attempts(CountRun(root))
        self._watched_pid: int | None = None
        self._is_ending_it = False
        self.n_deaths = 0
        """Worker processes that died and were not told to."""
        self.last_cause: str | None = None

    async def instantiate(self) -> Status:
        """Start a worker process, and remember its number for when it is gone."""
        status = await super().instantiate()
        self._watched_pid = self.pid
        return status

    async def kill(self, timeout: float = 5, reason: str = "nanny-kill") -> None:
        """End the worker process on purpose: nothing to record."""
        self._is_ending_it = True
        if self.process is not None and self.process.status == Status.starting:
            # dask would wait until it has started, and without a scheduler it never
            # does: it tries to connect for ever.
            await self._wait_for_number()
            self._kill_now()
        try:
            await super().kill(timeout=timeout, reason=reason)
        except TimeoutError:
            # It was sent SIGKILL, and goes when the system has taken its memory back:
            # on a machine under load after the run, which does not fail for that.
            logger.warning("a worker process was killed, and is not gone yet")
        finally:
            self._is_ending_it = False

    async def _wait_for_number(self) -> None:
        """Wait until a process that is being started has a number to kill it by.

        A thread starts it, which nothing stops: it would be there after us, deaf to
        SIGTERM, and Python waits for such processes when it exits.
        """
        deadline_s = time.monotonic() + _BIRTH_S
        while (
            self.process is not None
            and self.process.status == Status.starting
            and self.pid is None
            and time.monotonic() < deadline_s
        ):
            await asyncio.sleep(0.02)

    def _kill_now(self) -> None:
        pid = self.pid
        if pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def _on_worker_exit_sync(self, exitcode: int) -> None:
        pid, self._watched_pid = self._watched_pid, None
        if pid is not None:
            if self._is_ending_it or self.status != Status.running:
                self._attempts.forget(pid)
            elif exitcode != 0:
                self._record(pid, exitcode)
        super()._on_worker_exit_sync(exitcode)

    def _record(self, pid: int, exitcode: int) -> None:
        is_memory = self.memory_manager._last_terminated_pid == pid
        cause = "out of memory" if is_memory else describe_exit(exitcode)
        shards = self._attempts.record_death(pid, cause)
        self.n_deaths += 1
        self.last_cause = cause
        logger.error(
            "worker process %d died: %s%s",
            pid,
            cause,
            "".join(f"; it was computing shard {number}" for number in shards),
        )


def describe_exit(exitcode: int) -> str:
    """Say in words how a process ended, the same on every machine."""
    if exitcode >= 0:
        return f"exit status {exitcode}"
    names = {
        signal.SIGSEGV: "segmentation fault",
        signal.SIGKILL: "killed, by the system where memory is short",
        signal.SIGBUS: "bus error",
        signal.SIGABRT: "aborted",
        signal.SIGFPE: "arithmetic fault",
        signal.SIGILL: "illegal instruction",
    }
    number = signal.Signals(-exitcode)
    return f"{names[number]} ({number.name})" if number in names else number.name


class ShardWorker(WorkerPlugin):  # type: ignore[misc]
    """Loads the network before its worker joins, and lets it leave in peace.

    A node that cannot compute (no GPU, another model) so never gets a shard.

    Parameters
    ----------
    root : str
        The run directory.
    plan : str
        Identity of its plan.
    note : str
        File to describe the device in, for the leader of the job.
    """

    def __init__(self, root: str, plan: str, note: str) -> None:
        self.root, self.plan, self.note = root, plan, note

    def setup(self, worker: Worker) -> None:
        """Prepare a worker process; called in it before it joins the scheduler."""
        # Under some settings SLURM signals the whole tree of processes: it is the
        # leader who decides. SIGTERM would end a worker in the middle of its shard.
        signal.signal(signal.SIGUSR2, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        loop = asyncio.get_running_loop()
        tasks: set[asyncio.Task[None]] = set()
        loop.add_signal_handler(
            DRAIN_SIGNAL, lambda: tasks.add(loop.create_task(drain(worker)))
        )
        note = Path(self.note)
        try:
            note.write_text(get_ready(Path(self.root), self.plan), encoding="utf-8")
        except NucleisegError as error:
            # dask passes exceptions on without their cause.
            refusal_note(note).write_text(str(error), encoding="utf-8")
            raise


def refusal_note(note: Path) -> Path:
    """File in which a worker says why it cannot compute the run."""
    return note.with_suffix(".refused")


async def drain(worker: Worker) -> None:
    """Take no more shards, finish the one at hand, deliver it, and leave."""
    worker.status = Status.paused
    while worker.state.executing_count:
        await asyncio.sleep(0.05)
    # The coordinator fetches a result as soon as it hears of it. One that is lost
    # costs nothing but a look at the partial table, which is on disk.
    for _ in range(20):
        if not worker.data:
            break
        await asyncio.sleep(0.05)
    try:
        await worker.close_gracefully(reason="drained")
    except OSError as error:
        # The coordinator has ended, too: there is nobody to say goodbye to.
        logger.info("leaving without the coordinator: %s", error)
        await worker.close(reason="drained")


def ask_to_drain(pid: int) -> None:
    """Ask a worker process of this host to finish its shard and leave."""
    os.kill(pid, DRAIN_SIGNAL)
