"""A coordinator: a scheduler that workers of other jobs join as they start."""

import contextlib
import logging
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from nucleiseg.cluster import slurm
from nucleiseg.cluster.connection import SETTINGS, quieten
from nucleiseg.cluster.dask_team import DaskTeam, Outcome, Task, describe_task
from nucleiseg.cluster.records import ask_to_leave
from nucleiseg.cluster.rendezvous import announced, is_announced, make_keys
from nucleiseg.cluster.task import Report
from nucleiseg.errors import NucleisegError
from nucleiseg.runs import CountRun

if TYPE_CHECKING:
    from distributed import Client, Future, Scheduler

logger = logging.getLogger(__name__)

_SETTINGS = {
    **SETTINGS,
    # Logs for dask's developers, which would grow with the run for hours.
    "distributed.admin.log-length": 1000,
    "distributed.admin.low-level-log-length": 100,
    "distributed.diagnostics.computations.max-history": 1,
    # All workers may be in SLURM's queue for hours.
    "distributed.scheduler.no-workers-timeout": None,
    "distributed.comm.timeouts.connect": "60s",
    "distributed.comm.timeouts.tcp": "120s",
}

# A shard that this many workers could not compute is given back as it is; a worker
# that could not compute this many, one after the other, is sent home.
_MOST_TRIES = 3
_MOST_STRIKES = 2

# Idle this long with nothing left to hand out, a worker is sent home.
_SURPLUS_S = 3.0


class GatheredTeam(DaskTeam):
    """Workers that join and leave.

    Parameters
    ----------
    root : Path
        The run directory.
    plan : str
        Identity of its plan.
    client : distributed.Client
    scheduler : distributed.Scheduler
        In this process.
    watch : callable
        Called about once a second with the number of workers; False: hand out
        nothing more.
    is_current : callable
        Whether no other coordinator has taken the run over.
    """

    def __init__(
        self,
        root: Path,
        plan: str,
        *,
        client: "Client",
        scheduler: "Scheduler",
        watch: Callable[[int], bool],
        is_current: Callable[[], bool] = lambda: True,
    ) -> None:
        super().__init__(
            root, plan, client=client, count_workers=lambda: len(scheduler.workers)
        )
        self._scheduler = scheduler
        self._watch = watch
        self._run = CountRun(root)
        self._is_current = is_current
        self._goes_on = True
        self.was_superseded = False
        """Whether another coordinator has taken the run over."""
        self._idle_since: dict[str, float] = {}
        self._tries: dict[Task, int] = {}
        self._strikes: dict[str, int] = {}

    @property
    def was_stopped(self) -> bool:
        """Whether it handed out nothing more before all was done."""
        return not self._goes_on

    def accepts(self, n_running: int) -> bool:
        """Hand out only while there is somebody to take it, and nobody says stop."""
        n_workers = self._count_workers()
        return self._goes_on and n_workers > 0 and n_running < 2 * n_workers

    def tick(self, n_waiting: int, running: "dict[Task, Future]") -> None:
        """Watch the clock, the signals and the workers."""
        if not self._is_current():
            self._goes_on = False
            self.was_superseded = True
        if self._goes_on and not self._watch(self._count_workers()):
            self._goes_on = False
        if not self._goes_on:
            self._take_back(running)
        if not n_waiting:
            self._send_home(len(running))

    def judge(self, task: Task, report: Report) -> Outcome | None:
        """Have another worker try what one could not, and send home who never can.

        A node that has lost a file system would otherwise fail all shards of the run
        before anybody else gets to them.
        """
        if not isinstance(report.outcome, NucleisegError):
            self._strikes.pop(report.worker, None)
            return report.outcome
        logger.warning(
            "%s on %s: %s", describe_task(task), report.worker, report.outcome
        )
        self._tries[task] = self._tries.get(task, 0) + 1
        strikes = self._strikes.get(report.worker, 0) + 1
        self._strikes[report.worker] = strikes
        if strikes >= _MOST_STRIKES and self._count_workers() > 1:
            self._dismiss(report.worker)
        return report.outcome if self._tries[task] >= _MOST_TRIES else None

    def _dismiss(self, worker: str) -> None:
        for address, state in dict(self._scheduler.workers).items():
            if str(state.name) == worker:
                logger.error("worker %s only fails: it is sent home", worker)
                ask_to_leave(self._run, worker)
                self._client.retire_workers([address], close_workers=True)

    def _take_back(self, running: "dict[Task, Future]") -> None:
        """Cancel what no worker has begun; what is begun is finished."""
        for future in running.values():
            task = self._scheduler.tasks.get(future.key)
            if task is None or task.state != "processing":
                future.cancel()

    def _send_home(self, n_running: int) -> None:
        """Let workers leave that will get no more shards, and free their GPUs."""
        now = time.monotonic()
        idle = {
            address: str(state.name)
            for address, state in dict(self._scheduler.workers).items()
            if not state.processing and not state.has_what
        }
        self._idle_since = {
            address: self._idle_since.get(address, now) for address in idle
        }
        surplus = len(self._scheduler.workers) - max(1, n_running)
        for address, since in list(self._idle_since.items())[: max(0, surplus)]:
            if now - since < _SURPLUS_S:
                continue
            logger.info("worker %s has nothing left to do and leaves", idle[address])
            ask_to_leave(self._run, idle[address])
            self._client.retire_workers([address], close_workers=True)
            del self._idle_since[address]


@contextlib.contextmanager
def gather(
    root: Path,
    plan: str,
    *,
    interface: str | None,
    is_local: bool,
    watch: Callable[[int], bool],
) -> Iterator[GatheredTeam]:
    """Start a scheduler, tell workers where it is, and end it whatever happens.

    It speaks TLS with keys made for this call, which lie in the run directory, and
    has no web pages.

    Parameters
    ----------
    root : Path
        The run directory.
    plan : str
        Identity of its plan.
    interface : str or None
        Network interface to listen on; None: the address that SLURM knows.
    is_local : bool
        All workers are on this machine.
    watch : callable
        See :class:`GatheredTeam`.
    """
    import dask

    quieten()
    from distributed import Client, Scheduler, SpecCluster

    run = CountRun(root)
    incarnation, keys = make_keys(run)
    security = keys.security()
    options = {
        "host": find_address(interface, is_local=is_local),
        "protocol": "tls",
        "security": security,
        "dashboard": False,
        "dashboard_address": "127.0.0.1:0",
    }
    with (
        dask.config.set(_SETTINGS),
        SpecCluster(
            workers={},
            scheduler={"cls": Scheduler, "options": options},
            security=security,
        ) as cluster,
        Client(cluster, security=security) as client,
        announced(run, incarnation, cluster.scheduler_address),
    ):
        logger.info(
            "coordinator on %s (%s)", socket.gethostname(), cluster.scheduler_address
        )
        yield GatheredTeam(
            root,
            plan,
            client=client,
            scheduler=cluster.scheduler,
            watch=watch,
            is_current=lambda: is_announced(run, incarnation),
        )


def find_address(interface: str | None, *, is_local: bool) -> str:
    """Find the address of this machine that other nodes can reach."""
    from distributed.utils import get_ip, get_ip_interface

    if interface is not None:
        return str(get_ip_interface(interface))
    if is_local:
        return "127.0.0.1"
    grant = slurm.read_grant()
    # A node that finds its own name at 127.0.1.1 is no use to others.
    if grant is not None and grant.address and not grant.address.startswith("127."):
        return grant.address
    return str(get_ip())
