"""The workers of one job: started together, watched, drained and closed."""

import asyncio
import contextlib
import logging
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from nucleiseg.cluster.connection import SETTINGS, quieten
from nucleiseg.cluster.place import Place
from nucleiseg.cluster.records import take_leave_note
from nucleiseg.cluster.rendezvous import Meeting
from nucleiseg.cluster.task import worker_environment
from nucleiseg.cluster.workers import deal_gpu
from nucleiseg.config import ClusterConfig
from nucleiseg.devices import available_cores
from nucleiseg.runs import CountRun

if TYPE_CHECKING:
    from nucleiseg.cluster.processes import WatchingNanny

logger = logging.getLogger(__name__)

# A node's share of the grant: the leader and the file system's cache need some, too.
_MEMORY_SHARE = 0.9
# Longer than it takes dask to end a worker process, even on a node under load.
_CLOSING_S = 15.0


class Crew:
    """Workers that join one coordinator.

    Parameters
    ----------
    run : CountRun
    plan : str
        Identity of its plan.
    meeting : Meeting
        The coordinator.
    place : Place
    settings : ClusterConfig
    n_workers : int
    scratch : Path
        Private folder on this node.
    """

    def __init__(
        self,
        run: CountRun,
        plan: str,
        meeting: Meeting,
        place: Place,
        settings: ClusterConfig,
        *,
        n_workers: int,
        scratch: Path,
    ) -> None:
        self.meeting = meeting
        self._run = run
        self._plan = plan
        self._place = place
        self._settings = settings
        self._n_workers = n_workers
        self._scratch = scratch
        self._nannies: dict[str, WatchingNanny] = {}

    async def start(self) -> None:
        """Start the workers; each loads the network and then joins.

        Raises
        ------
        OSError, RuntimeError
            The coordinator cannot be reached, a worker died before it joined, or
            this node cannot compute the run: see :attr:`refusal`.
        """
        import dask

        quieten()
        # It would print the traces of what is our caller's to say in one line.
        logging.getLogger("distributed.nanny").setLevel(logging.CRITICAL)
        dask.config.set(SETTINGS)
        await asyncio.gather(*map(self._start_one, range(self._n_workers)))

    async def _start_one(self, number: int) -> None:
        from distributed.utils import get_ip, get_ip_interface

        from nucleiseg.cluster.processes import (
            ShardWorker,
            WatchingNanny,
            refusal_note,
        )

        # Of the workers before these.
        refusal_note(self._note(number)).unlink(missing_ok=True)
        place = self._place
        name = f"{place.job_id}.{place.restarts}-{number}"
        interface = self._settings.interface
        nanny = WatchingNanny(
            self.meeting.address,
            root=self._run.root,
            name=name,
            nthreads=1,
            host=get_ip_interface(interface)
            if interface
            else get_ip(self.meeting.hostname),
            protocol="tls",
            security=self.meeting.keys(self._run).security(),
            memory_limit=self._memory_limit(),
            local_directory=str(self._scratch),
            dashboard=False,
            dashboard_address="127.0.0.1:0",
            plugins=[
                ShardWorker(str(self._run.root), self._plan, str(self._note(number)))
            ],
            env=worker_environment(
                name, max(1, available_cores() // self._n_workers), self._gpu(number)
            ),
        )
        self._nannies[name] = nanny
        await nanny

    def _memory_limit(self) -> int:
        """Bytes for each worker; 0, no limit, where SLURM granted no amount."""
        granted = self._place.memory_bytes
        return int(_MEMORY_SHARE * granted / self._n_workers) if granted else 0

    def _gpu(self, number: int) -> str | None:
        """GPU of a worker: what SLURM pinned stays pinned, several are dealt out."""
        gpus = self._place.gpus
        if self._n_workers == 1 or not gpus:
            return None
        return deal_gpu(gpus, number)

    def _note(self, number: int) -> Path:
        return self._scratch / f"{number}.device"

    @property
    def devices(self) -> list[str]:
        """What the workers compute on, as they say."""
        notes = map(self._note, range(self._n_workers))
        return [note.read_text(encoding="utf-8") for note in notes if note.exists()]

    @property
    def refusal(self) -> str | None:
        """Why a worker cannot compute the run on this node, as it says."""
        from nucleiseg.cluster.processes import refusal_note

        notes = [refusal_note(self._note(n)) for n in range(self._n_workers)]
        return next((n.read_text(encoding="utf-8") for n in notes if n.exists()), None)

    @property
    def is_up(self) -> bool:
        """Whether any has a worker process, or will have one again."""
        return any(map(_is_up, self._nannies.values()))

    @property
    def n_deaths(self) -> int:
        """Worker processes that died."""
        return sum(nanny.n_deaths for nanny in self._nannies.values())

    @property
    def last_cause(self) -> str | None:
        """What a worker process died of."""
        causes = [nanny.last_cause for nanny in self._nannies.values()]
        return next((cause for cause in causes if cause), None)

    def was_sent_home(self) -> bool:
        """Whether the coordinator had nothing left for these workers."""
        notes = [take_leave_note(self._run, name) for name in self._nannies]
        return any(notes)

    def drain(self) -> None:
        """Ask all workers to finish their shard and leave."""
        from nucleiseg.cluster.processes import ask_to_drain

        for nanny in self._nannies.values():
            pid = nanny.pid
            if _is_up(nanny) and pid is not None:
                with contextlib.suppress(ProcessLookupError):
                    ask_to_drain(pid)

    async def close(self) -> None:
        """End all workers, whatever they are at."""
        nannies = list(self._nannies.values())
        processes = [nanny.process for nanny in nannies]
        self._nannies.clear()
        outcomes = await asyncio.gather(
            *(
                asyncio.wait_for(nanny.close(timeout=2), _CLOSING_S)
                for nanny in nannies
            ),
            return_exceptions=True,
        )
        for outcome, process in zip(outcomes, processes, strict=True):
            pid = process.pid if process is not None else None
            if pid is None:
                continue
            # One that was interrupted while it started does not close by the book.
            logger.info("ending worker process %d: %r", pid, outcome)
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def _is_up(nanny: "WatchingNanny") -> bool:
    from distributed.core import Status

    return nanny.status in (Status.init, Status.starting, Status.running)


@contextlib.contextmanager
def private_scratch() -> Iterator[Path]:
    """Folder for scratch files on this node, which others cannot enter."""
    parent = os.environ.get("SLURM_TMPDIR") or None
    folder = Path(tempfile.mkdtemp(prefix="nucleiseg-", dir=parent))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
