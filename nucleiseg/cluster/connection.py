"""A scheduler and its workers on this machine: private, quiet, and ended for sure."""

import contextlib
import logging
import signal
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from nucleiseg.cluster.task import worker_environment
from nucleiseg.cluster.workers import Workers

if TYPE_CHECKING:
    from distributed import Client

SETTINGS = {
    # One shard in each worker's hands and none in its queue, so that a death is not
    # blamed on shards that only waited.
    "distributed.scheduler.worker-saturation": 1.0,
    "distributed.scheduler.work-stealing": False,
    "distributed.scheduler.allowed-failures": 2,
    # Importing and tracing TensorFlow can keep a worker silent for minutes.
    "distributed.scheduler.worker-ttl": "15 minutes",
    # A worker that died is started again, however slow its file system is; and if
    # none is left, the run ends with a message instead of waiting for ever.
    "distributed.deploy.lost-worker-timeout": "15 minutes",
    "distributed.scheduler.no-workers-timeout": "20 minutes",
    # No web pages: they have neither encryption nor a login.
    "distributed.scheduler.http.routes": [],
    "distributed.worker.http.routes": [],
    # Nothing to spill; a worker that is too large is started again by its nanny.
    "distributed.worker.memory.target": False,
    "distributed.worker.memory.pause": False,
    "distributed.worker.memory.spill": False,
    # Nobody sees dask's own profile, for which it looks at all threads 100 times a
    # second: 2 % of the processor's time.
    "distributed.worker.profile.enabled": False,
    # Nor how quickly each of its parts answers, 50 times a second, and what disks and
    # network of the node do, twice a second: 7 % of a core.
    "distributed.admin.tick.interval": "1s",
    "distributed.admin.system-monitor.interval": "10s",
    "distributed.admin.system-monitor.disk": False,
    # Read when a worker process starts, before it knows anything else. Failures of
    # shards reach us as results; the rest is noise of closing.
    "distributed.nanny.pre-spawn-environ.DASK_LOGGING__DISTRIBUTED": "critical",
    # dask has workers give memory back at once, which also sends every buffer of the
    # network to the kernel and back: a third more time. What a call took is kept here
    # for the next one, and is the same for all calls.
    "distributed.nanny.pre-spawn-environ.MALLOC_TRIM_THRESHOLD_": 2**40,
    "distributed.nanny.pre-spawn-environ.MALLOC_MMAP_THRESHOLD_": 2**25,
}


class _NotOfClosing(logging.Filter):
    """Drops dask's remark that a worker which is told to end takes seconds to end."""

    def filter(self, record: logging.LogRecord) -> bool:
        return "still alive after" not in record.getMessage()


_NOT_OF_CLOSING = _NotOfClosing()


def quieten() -> None:
    """Have dask say what matters; call it before `distributed` is imported."""
    import dask

    # It sets up its logging by it when it is imported.
    dask.config.set({"logging.distributed": "warning"})
    logging.getLogger("distributed.nanny").addFilter(_NOT_OF_CLOSING)


@contextlib.contextmanager
def connect(root: Path, workers: Workers) -> "Iterator[Client]":
    """Start a scheduler and workers here, and close them whatever happens.

    All of it listens on this machine only, and speaks TLS with keys made for this
    call: on a shared node, whoever could talk to a scheduler could run code as its
    user.
    """
    import dask

    quieten()
    from distributed import Client, Scheduler, Security, SpecCluster

    from nucleiseg.cluster.processes import WatchingNanny

    security = Security.temporary()
    with (
        dask.config.set(SETTINGS),
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
                "cls": WatchingNanny,
                "options": {
                    **common,
                    "root": root,
                    "nthreads": 1,
                    "memory_limit": 0,
                    "local_directory": scratch,
                    "env": worker_environment(
                        f"worker-{number}",
                        workers.n_threads,
                        workers.gpus[number] if workers.gpus else None,
                    ),
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
