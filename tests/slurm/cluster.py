"""A private SLURM as tests see it: ask it, and do to it what happens on a cluster."""

import os
import secrets
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TypeVar

from tests.slurm import daemons, processes
from tests.slurm.config import Options

Answer = TypeVar("Answer")

# A node does not take a job again so soon after its end.
_REVOKED_S = 3.0


@dataclass(frozen=True)
class QueuedJob:
    """One line of ``squeue``."""

    job_id: str
    """As SLURM writes it: ``7``, or ``7_3`` for a task of an array."""
    own_id: str
    """Its ``SLURM_JOB_ID``: a task of an array has one of its own once it starts."""
    state: str
    """In full: ``PENDING``, ``RUNNING``, ``COMPLETING`` …"""
    partition: str
    node: str
    """Empty while the job waits."""
    n_restarts: int
    reason: str
    """Why it waits, such as ``BeginTime`` after a requeue, or ``None``."""
    name: str


class PrivateSlurm:
    """A SLURM of its own: several nodes on this machine, and GPUs that are not there.

    As a context manager it is up inside the block. SLURM's programs find it by
    :attr:`environment`; no other SLURM of this machine is touched.

    Partitions: ``gpu`` (the default; its jobs can be preempted and are then requeued),
    ``urgent`` (the same nodes, preempts ``gpu``) and ``cpu`` (a node without GPUs).

    Parameters
    ----------
    directory : folder for all its files, made and removed; a temporary one if None.
    options : see :class:`~tests.slurm.config.Options`.
    """

    def __init__(self, directory: Path | None = None, **options: Any) -> None:
        name = f"nucleiseg-slurm-{secrets.token_hex(4)}"
        self.directory = directory or Path(tempfile.gettempdir()) / name
        self.options = Options(**options)
        self._held_since: dict[str, float] = {}

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Bring all daemons up and wait until every node can take jobs."""
        if reason := daemons.availability(self.options.proctrack):
            raise RuntimeError(reason)
        try:
            daemons.write_files(self.directory, self.options)
            daemons.start_controller(self.directory)
            for name in self.options.nodes:
                daemons.start_node(self.directory, name)
            self.wait_until(lambda: set(self.node_states().values()) == {"idle"}, 30)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Kill the daemons and all processes of jobs, and remove what they left."""
        daemons.stop(self.directory)

    @property
    def conf(self) -> Path:
        """Its ``slurm.conf``."""
        return self.directory / "slurm.conf"

    @property
    def environment(self) -> dict[str, str]:
        """What a process needs in its environment to talk to this SLURM."""
        return {"SLURM_CONF": str(self.conf)}

    def run(self, *command: object, timeout_s: float = 30) -> str:
        """Run a program that talks to this SLURM, and return what it prints."""
        arguments = [str(part) for part in command]
        answer = subprocess.run(
            arguments,
            env=os.environ | self.environment,
            # Where sbatch writes the output of jobs that do not name a file.
            cwd=self.directory,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
        if answer.returncode != 0:
            raise RuntimeError(
                f"{arguments} ended with {answer.returncode}: {answer.stderr}"
            )
        return answer.stdout

    def submit(self, *arguments: object) -> str:
        """Run ``sbatch`` with arguments, and return the number of the job."""
        return self.run("sbatch", "--parsable", *arguments).strip()

    def queue(self) -> list[QueuedJob]:
        """Jobs that wait, run or are about to end."""
        fields = "JobArrayID JobID State Partition NodeList RestartCnt Reason Name"
        layout = ",".join(f"{field}:|" for field in fields.split())
        lines = self.run("squeue", "-h", "-r", "-O", layout).splitlines()
        return [_parse_job(line) for line in lines]

    def jobs_left(self) -> list[str]:
        """Numbers of the jobs in the queue."""
        return [job.job_id for job in self.queue()]

    def node_states(self) -> dict[str, str]:
        """State of each node, such as ``idle``, ``mixed``, ``allocated`` or ``down``.

        A ``*`` after it: the node does not answer.
        """
        lines = self.run("sinfo", "-h", "-N", "-o", "%N %T").splitlines()
        return dict(line.split() for line in lines)

    def processes_of(self, job_id: str, *, steps_only: bool = False) -> list[int]:
        """Processes of a job on this machine.

        ``steps_only`` leaves out the batch script and the ``srun`` in it.
        """
        own_ids = {job.job_id: job.own_id for job in self.queue()}
        variables: dict[str, str | None] = {"SLURM_JOB_ID": own_ids.get(job_id, job_id)}
        if steps_only:
            variables["SLURM_STEP_ID"] = None
        return sorted(processes.job_processes(self.conf, **variables))

    def wait_until(self, predicate: Callable[[], Answer], timeout_s: float) -> Answer:
        """Ask until the answer is true, and return it.

        Raises
        ------
        TimeoutError
            With the queue and the ends of the logs.
        """
        deadline = time.monotonic() + timeout_s
        while not (answer := predicate()):
            if time.monotonic() > deadline:
                raise TimeoutError(f"not within {timeout_s} s\n{self.logs()}")
            time.sleep(0.1)
        return answer

    def hasten(self) -> None:
        """Let jobs start now that SLURM holds back for two minutes after a requeue.

        Only those that were held back before: within two seconds of the end of its
        last run a job is refused by its node ("Job credential revoked") and lost,
        which is what SLURM holds jobs back for.
        """
        held = {
            job.job_id
            for job in self.queue()
            if job.state == "PENDING" and job.reason == "BeginTime"
        }
        now = time.monotonic()
        self._held_since = {job: self._held_since.get(job, now) for job in held}
        for job_id, since in self._held_since.items():
            if now - since >= _REVOKED_S:
                # It may have started, or gone, by now.
                with suppress(RuntimeError):
                    self.run("scontrol", "update", f"JobId={job_id}", "StartTime=now")

    @contextmanager
    def hastened(self, every_s: float = 1) -> Iterator[None]:
        """Hasten all the time inside the block."""
        is_over = threading.Event()

        def work() -> None:
            while not is_over.wait(every_s):
                # squeue may fail once on a machine under load; there is a next time.
                with suppress(RuntimeError, subprocess.TimeoutExpired):
                    self.hasten()

        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        try:
            yield
        finally:
            is_over.set()
            thread.join()

    def preempt(self, node: str, *, n_gpus: int | None = None, hold_s: int = 3) -> str:
        """Submit an urgent job that takes GPUs of a node (all if None) for a while.

        Jobs of the partition ``gpu`` on it are preempted as far as they are in the way.
        Returns the number of the urgent job.
        """
        gpus = n_gpus or self.options.gpus_per_node
        return self.submit(
            *("--partition=urgent", f"--nodelist={node}", f"--gpus-per-node={gpus}"),
            *("--mem=100", "--output=/dev/null", f"--wrap=sleep {hold_s}"),
        )

    def fail_node(self, name: str, *, is_noticed: bool = False) -> None:
        """Let a node die without a word: its daemons and all processes of its jobs.

        SLURM notices within 20 s (see :meth:`node_states`), or at once if told.
        """
        daemons.kill_node(self.directory, name)
        if is_noticed:
            self._declare_down(name)

    def restore_node(self, name: str) -> None:
        """Bring a node back that has failed, and wait until it can take jobs."""
        # This machine has not booted since, by which SLURM would know that the jobs of
        # a node that is back early are gone; it would take them for running for long.
        if not self.node_states()[name].startswith("down"):
            self._declare_down(name)
        daemons.start_node(self.directory, name)
        usable = ("idle", "mixed", "allocated")
        self.wait_until(lambda: self.node_states()[name] in usable, 30)

    def _declare_down(self, name: str) -> None:
        self.run(
            "scontrol", "update", f"NodeName={name}", "State=DOWN", "Reason=failed"
        )

    def cancel_all(self, timeout_s: float = 30) -> None:
        """Cancel all jobs, kill their processes, and wait until no job is left."""
        if jobs := {job_id.partition("_")[0] for job_id in self.jobs_left()}:
            self.run("scancel", *jobs)
            processes.kill(processes.job_processes(self.conf))
        self.wait_until(lambda: not self.queue(), timeout_s)

    def reset(self) -> None:
        """Bring back nodes that have failed, and cancel all jobs."""
        for name in self.options.nodes:
            if not daemons.is_running(self.directory, name):
                self.restore_node(name)
        self.cancel_all()

    def logs(self, n_lines: int = 30) -> str:
        """List the queue and the nodes, and the last lines of each daemon's log."""
        parts = []
        for command in (("squeue", "-r"), ("sinfo", "-N", "-l")):
            with suppress(RuntimeError, subprocess.TimeoutExpired):
                parts.append(self.run(*command))
        for path in sorted(self.directory.glob("*.log")):
            lines = path.read_text(errors="replace").splitlines()[-n_lines:]
            parts.append("\n".join((f"--- {path.name}", *lines)))
        return "\n".join(parts)


def _parse_job(line: str) -> QueuedJob:
    job_id, own_id, state, partition, node, restarts, *rest, _ = line.split("|", 8)
    return QueuedJob(job_id, own_id, state, partition, node, int(restarts), *rest)
