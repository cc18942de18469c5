"""Processes of a private SLURM on this machine, found in /proc."""

import os
import signal
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path


def job_processes(conf: Path, **variables: str | None) -> set[int]:
    """Find the processes of the jobs of one SLURM.

    Parameters
    ----------
    conf : its ``slurm.conf``.
    variables : what else must be in their environment, such as ``SLURM_JOB_ID="5"``;
        None is any value.

    Returns
    -------
    Batch scripts, ``srun``s in them, tasks and what these started. Only they are told
    the name of their node, so programs that merely talk to SLURM are not among them.
    """
    wanted = {"SLURM_CONF": str(conf), "SLURMD_NODENAME": None} | variables
    return with_descendants(pid for pid in _all_pids() if _has_variables(pid, wanted))


def step_daemons(log: Path) -> set[int]:
    """Find the ``slurmstepd``s of a node: they hold its log open.

    Their command line and environment say nothing of the node, for ``slurmstepd``
    writes its title over both.
    """
    found = set()
    for pid in _all_pids():
        if _read(pid, "comm").strip() != b"slurmstepd":
            continue
        with suppress(OSError):
            descriptors = list(Path(f"/proc/{pid}/fd").iterdir())
            if any(os.readlink(each) == str(log) for each in descriptors):
                found.add(pid)
    return found


def with_descendants(pids: Iterable[int]) -> set[int]:
    """Add the children of processes, their children, and so on."""
    children: dict[int, list[int]] = {}
    for pid in _all_pids():
        # The name, in brackets, may hold spaces and brackets itself.
        fields = _read(pid, "stat").rpartition(b")")[2].split()
        if fields:
            children.setdefault(int(fields[1]), []).append(pid)
    found: set[int] = set()
    waiting = list(pids)
    while waiting:
        pid = waiting.pop()
        if pid not in found:
            found.add(pid)
            waiting += children.get(pid, [])
    return found


def is_alive(pid: int) -> bool:
    """Whether a process runs; one that has ended but is not yet reaped does not."""
    fields = _read(pid, "stat").rpartition(b")")[2].split()
    return bool(fields) and fields[0] not in (b"Z", b"X")


def kill(pids: set[int], timeout_s: float = 10) -> None:
    """Kill processes, all at once so that none sees another end, and wait for that."""
    for number in (signal.SIGSTOP, signal.SIGKILL):
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, number)
    deadline = time.monotonic() + timeout_s
    while alive := {pid for pid in pids if is_alive(pid)}:
        if time.monotonic() > deadline:
            raise TimeoutError(f"processes do not end: {sorted(alive)}")
        time.sleep(0.02)


def _all_pids() -> list[int]:
    return [int(entry) for entry in os.listdir("/proc") if entry.isdigit()]


def _has_variables(pid: int, wanted: dict[str, str | None]) -> bool:
    """Whether the environment that a process started with holds all these."""
    entries = _read(pid, "environ").decode(errors="replace").split("\0")
    variables = dict(entry.split("=", 1) for entry in entries if "=" in entry)
    return all(
        name in variables and value in (None, variables[name])
        for name, value in wanted.items()
    )


def _read(pid: int, name: str) -> bytes:
    """Content of a file of a process, empty if that has ended or is not ours."""
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except OSError:
        return b""
