"""Where shards are computed: dask workers on this machine.

The run directory is the truth. What dask loses or runs twice changes nothing but the
time: a worker writes a shard's partial table atomically, and returns one that is there.
"""

import contextlib
import logging
import os
import signal
import tempfile
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nucleiseg.devices import available_cores
from nucleiseg.errors import IncompleteError, NucleisegError, RunError
from nucleiseg.inference import ShardResult, compute_shard, draw_pictures
from nucleiseg.shards import Entry

if TYPE_CHECKING:
    from distributed import Client

logger = logging.getLogger(__name__)

_SETTINGS = {
    # One shard in each worker's hands and none in its queue, so that a death is not
    # blamed on shards that only waited.
    "distributed.scheduler.worker-saturation": 1.0,
    "distributed.scheduler.work-stealing": False,
    "distributed.scheduler.allowed-failures": 2,
    # Importing and tracing TensorFlow can keep a worker silent for minutes.
    "distributed.scheduler.worker-ttl": "15 minutes",
    # No web pages: they have neither encryption nor a login.
    "distributed.scheduler.http.routes": [],
    "distributed.worker.http.routes": [],
    "distributed.worker.memory.target": False,
    "distributed.worker.memory.spill": False,
    # Read when a worker process starts, before it knows anything else. Failures of
    # shards reach us as results; the rest is noise of closing.
    "distributed.nanny.pre-spawn-environ.DASK_LOGGING__DISTRIBUTED": "critical",
}


@dataclass(frozen=True)
class Workers:
    """How many worker processes, and what each may use."""

    count: int
    """0: compute in this process, without dask."""
    n_threads: int
    """Cores each may keep busy."""
    gpus: tuple[str, ...] = ()
    """One GPU for each worker, as CUDA_VISIBLE_DEVICES names it; empty: CPUs."""


def plan_workers(wanted: int | None, *, device: str, n_shards: int) -> Workers:
    """Share this machine's GPUs or cores between workers.

    Parameters
    ----------
    wanted : int or None
        Number of workers; None: one a GPU, or one on a CPU; 0: none, in this process.
    device : {"auto", "cpu", "gpu"}
    n_shards : int
        Shards to compute: more workers than that would only load the network.

    Raises
    ------
    RunError
        More workers than GPUs.
    """
    cores = available_cores()
    gpus = () if device == "cpu" else _visible_gpus()
    if gpus:
        count = len(gpus) if wanted is None else wanted
        if count > len(gpus):
            raise RunError(
                f"--workers {count}, but this machine shows {len(gpus)} GPUs and each "
                "worker takes one; lower it, or set inference.device=cpu"
            )
        count = min(count, max(1, n_shards))
        return Workers(count, max(1, cores // max(1, count)), gpus[:count])
    count = min(1 if wanted is None else wanted, max(1, n_shards))
    return Workers(count, max(1, cores // max(1, count)))


def _visible_gpus() -> tuple[str, ...]:
    """GPUs this process may use, found without loading TensorFlow."""
    granted = os.environ.get("CUDA_VISIBLE_DEVICES")
    if granted is not None:
        # What a scheduler pinned must stay pinned. -1 hides all.
        return tuple(
            name
            for name in granted.replace(" ", "").split(",")
            if name not in ("", "-1")
        )
    folder = Path("/proc/driver/nvidia/gpus")
    count = len(list(folder.iterdir())) if folder.is_dir() else 0
    return tuple(str(number) for number in range(count))


class Team:
    """Workers that are ready for one run; use :func:`open_team`."""

    def __init__(self, root: Path, workers: Workers) -> None:
        self._root = root
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
        for number in _numbers(shards):
            outcome = _compute_or_explain(self._root, number, self._n_threads)
            if isinstance(outcome, NucleisegError):
                raise outcome
            on_done(outcome)
        return []

    def draw(self, picks: Sequence[tuple[int, int]]) -> int:
        """Draw pictures; see :func:`nucleiseg.inference.draw_pictures`."""
        return draw_pictures(self._root, picks, self._n_threads)


class _DaskTeam(Team):
    """Workers in processes of their own."""

    def __init__(self, root: Path, workers: Workers, client: "Client") -> None:
        super().__init__(root, workers)
        self._client = client
        self._count = workers.count

    def compute(
        self, shards: Sequence[Entry], *, on_done: Callable[[ShardResult], None]
    ) -> list[str]:
        from distributed import as_completed

        failures: list[str] = []
        waiting = deque(_numbers(shards))
        running: dict[str, int] = {}

        def submit() -> list[Any]:
            if not waiting:
                return []
            number = waiting.popleft()
            # Not pure: an earlier call's result under the same key must not count.
            future = self._client.submit(
                _compute_or_explain, self._root, number, self._n_threads, pure=False
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
            elif isinstance(outcome := future.result(), NucleisegError):
                # Its message says what to mend; every other shard would meet the same.
                raise outcome
            else:
                on_done(outcome)
            future.release()
            done.update(submit())
        return failures

    def draw(self, picks: Sequence[tuple[int, int]]) -> int:
        future = self._client.submit(
            draw_pictures, self._root, picks, self._n_threads, pure=False
        )
        return int(future.result())


def _compute_or_explain(
    root: Path, number: int, n_threads: int
) -> ShardResult | NucleisegError:
    """Compute a shard; what the user can mend is an answer, not a crash.

    dask would print the trace of an exception, which helps with our faults only.
    """
    try:
        return compute_shard(root, number, n_threads)
    except NucleisegError as error:
        return error
    except (OSError, MemoryError) as error:
        # A full disk, a file system that is gone, too little memory: the next shard
        # would meet the same.
        return IncompleteError(
            f"shard {number}: {_in_words(error)}; make room, then run the same command "
            "again: what is done is kept"
        )


def _numbers(shards: Sequence[Entry]) -> list[int]:
    return [shard.shard for shard in shards if shard.shard is not None]


@contextlib.contextmanager
def open_team(root: Path, workers: Workers) -> Iterator[Team]:
    """Start the workers of a run, and end them whatever happens.

    Parameters
    ----------
    root : Path
        The run directory.
    workers : Workers
    """
    if workers.count == 0:
        yield Team(root, workers)
        return
    with _connect(workers) as client:
        yield _DaskTeam(root, workers, client)


def _in_words(error: BaseException) -> str:
    from distributed import KilledWorker

    if isinstance(error, KilledWorker):
        return "its worker died again and again (killed, out of memory, or crashed)"
    if isinstance(error, OSError) and error.strerror:
        return (
            f"{error.filename}: {error.strerror}" if error.filename else error.strerror
        )
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


class _NotOfClosing(logging.Filter):
    """Drops dask's remark that a worker which is told to end takes seconds to end."""

    def filter(self, record: logging.LogRecord) -> bool:
        return "still alive after" not in record.getMessage()


_NOT_OF_CLOSING = _NotOfClosing()


@contextlib.contextmanager
def _connect(workers: Workers) -> "Iterator[Client]":
    """Start a scheduler and workers, and close them whatever happens.

    All of it listens on this machine only, and speaks TLS with keys that live in
    memory: on a shared node, whoever could talk to a scheduler could run code as its
    user.
    """
    import dask

    # Before distributed is imported, which sets up its logging by it.
    dask.config.set({"logging.distributed": "warning"})
    from distributed import Client, Nanny, Scheduler, Security, SpecCluster

    logging.getLogger("distributed.nanny").addFilter(_NOT_OF_CLOSING)
    security = Security.temporary()
    with (
        dask.config.set(_SETTINGS),
        tempfile.TemporaryDirectory(prefix="nucleiseg-") as scratch,
    ):
        common = {
            "host": "127.0.0.1",
            "protocol": "tls",
            "security": security,
            "dashboard": False,
            "dashboard_address": "127.0.0.1:0",
        }
        specification = {
            number: {
                "cls": Nanny,
                "options": {
                    **common,
                    "nthreads": 1,
                    "memory_limit": 0,
                    "local_directory": scratch,
                    "env": _environment(workers, number),
                },
            }
            for number in range(workers.count)
        }
        with contextlib.ExitStack() as stack:
            with _interrupts_ignored():
                cluster = stack.enter_context(
                    SpecCluster(
                        workers=specification,
                        scheduler={"cls": Scheduler, "options": common},
                        security=security,
                    )
                )
            yield stack.enter_context(Client(cluster, security=security))


@contextlib.contextmanager
def _interrupts_ignored() -> Iterator[None]:
    """Start processes that leave Ctrl-C, which a terminal sends to all, to this one."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _environment(workers: Workers, number: int) -> dict[str, str]:
    if not workers.gpus:
        return {}
    return {"CUDA_VISIBLE_DEVICES": workers.gpus[number]}
