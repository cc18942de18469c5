"""The daemons of a private SLURM: start them, let a node die, take all down."""

import fcntl
import os
import re
import shutil
import stat
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal

from tests.slurm import processes
from tests.slurm.config import Options, write_config

PROGRAMS = "munged slurmctld slurmd sbatch srun scancel scontrol sinfo squeue".split()
FREEZER = Path("/sys/fs/cgroup/freezer")
"""Where ``proctrack/cgroup`` keeps the processes of jobs, under cgroups v1."""
CAP_MKNOD = 1 << 27
"""Bit of the right to make device files, which root may lack in a container."""


def availability(proctrack: str = "linuxproc") -> str | None:
    """Say why no private SLURM can run here, or None if one can."""
    for program in PROGRAMS:
        if find_program(program) is None:
            return f"{program} is not installed (packages slurm-wlm and munge)"
    if os.geteuid() != 0:
        return "a SLURM of several nodes on one machine needs root"
    capabilities = re.search(r"CapEff:\s*(\w+)", Path("/proc/self/status").read_text())
    if capabilities and not int(capabilities[1], 16) & CAP_MKNOD:
        return "this container may not make device files (mknod)"
    if proctrack == "cgroup" and not _has_cgroups():
        return f"no cgroups v1 to write at {FREEZER}"
    return None


def best_proctrack() -> Literal["cgroup", "linuxproc"]:
    """What real clusters run, where this machine can: ``cgroup``."""
    return "cgroup" if _has_cgroups() else "linuxproc"


def _has_cgroups() -> bool:
    return os.path.ismount(FREEZER) and os.access(FREEZER, os.W_OK)


def find_program(name: str) -> str | None:
    """Path of a program; those of an administrator are not on everybody's path."""
    return shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")


def write_files(directory: Path, options: Options) -> None:
    """Make the folder of a private SLURM and what its daemons need in it."""
    # The longest path in it is that of a socket, of which Linux takes 107 characters.
    if len(str(directory)) > 70:
        raise ValueError(f"{directory} is too long a path; set TMPDIR to a shorter one")
    directory.mkdir()
    # munged refuses a socket that others cannot reach.
    directory.chmod(0o755)
    write_config(directory, options)
    key = directory / "munge.key"
    key.touch(mode=0o600)
    key.write_bytes(os.urandom(1024))
    # Nothing opens them, but SLURM pins no GPU whose file is not a device.
    for index in range(options.gpus_per_node):
        path = directory / f"nvidia{index}"
        os.mknod(path, 0o600 | stat.S_IFCHR, os.makedev(195, index))
    for name in options.nodes:
        (directory / f"spool.{name}").mkdir()


def start_controller(directory: Path) -> None:
    """Start ``munged`` and ``slurmctld``."""
    _start(
        directory,
        "munged",
        "munged",
        "--force",
        f"--key-file={directory}/munge.key",
        f"--socket={directory}/munge.socket",
        f"--pid-file={directory}/munged.pid",
        f"--log-file={directory}/munged.log",
        f"--seed-file={directory}/munge.seed",
    )
    _start(directory, "slurmctld", "slurmctld", "-f", f"{directory}/slurm.conf")


def start_node(directory: Path, name: str) -> None:
    """Start the ``slurmd`` of a node."""
    _start(directory, name, "slurmd", "-N", name, "-f", f"{directory}/slurm.conf")


def is_running(directory: Path, name: str) -> bool:
    """Whether a daemon runs: the ``slurmd`` of a node, ``slurmctld`` or ``munged``."""
    return any(map(processes.is_alive, _daemon(directory, name)))


def kill_node(directory: Path, name: str) -> None:
    """Kill all processes of a node, so that none can tell of the others' end."""
    steps = processes.step_daemons(directory / f"{name}.log")
    pids = _daemon(directory, name) | processes.with_descendants(steps)
    pids |= processes.job_processes(directory / "slurm.conf", SLURMD_NODENAME=name)
    processes.kill(pids)
    (directory / f"{name}.pid").unlink(missing_ok=True)


def stop(directory: Path) -> None:
    """Kill all that runs for a private SLURM, and remove all that it wrote."""
    # The controller first: it would start waiting jobs as others end.
    processes.kill(_daemon(directory, "slurmctld"))
    nodes = [path.suffix[1:] for path in directory.glob("spool.*")]
    for name in nodes:
        kill_node(directory, name)
    processes.kill(processes.job_processes(directory / "slurm.conf"))
    processes.kill(_daemon(directory, "munged"))
    with suppress(FileNotFoundError):
        _remove_cgroups((directory / "slurm.conf").read_text(), nodes)
    shutil.rmtree(directory, ignore_errors=True)


def _start(directory: Path, name: str, program: str, *arguments: str) -> None:
    """Start a daemon, and wait until its number is known: it may be killed by that."""
    answer = subprocess.run(
        [find_program(program) or program, *arguments],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    if answer.returncode != 0:
        raise RuntimeError(f"{program} did not start: {answer.stderr}")
    deadline_s = time.monotonic() + 30
    while not _daemon(directory, name):
        if time.monotonic() > deadline_s:
            raise RuntimeError(f"{program} started, and wrote no {name}.pid")
        time.sleep(0.02)


def _daemon(directory: Path, name: str) -> set[int]:
    """Process of a daemon, if it has come to write its number."""
    try:
        return {int((directory / f"{name}.pid").read_text())}
    except (FileNotFoundError, ValueError):
        return set()


def _remove_cgroups(slurm_conf: str, nodes: list[str]) -> None:
    """Remove the empty cgroups of one SLURM's jobs, and those of nodes without jobs.

    All SLURMs of a machine have their jobs in the same folders, so only numbers tell
    whose they are.
    """
    match = re.search(r"^FirstJobId=(\d+)", slurm_conf, re.MULTILINE)
    if match is None or not FREEZER.is_dir():
        return
    own_jobs = range(int(match[1]), int(match[1]) + 1000)
    with _cgroups_locked():
        for root in (FREEZER / f"slurm_{name}" for name in nodes):
            for job in root.glob("uid_*/job_*"):
                if int(job.name.partition("_")[2]) in own_jobs:
                    for step in job.glob("step_*"):
                        for task in step.glob("task_*"):
                            task.rmdir()
                        step.rmdir()
                    job.rmdir()
            for folder in (*root.glob("uid_*"), root):
                # Not while another SLURM has jobs in there.
                with suppress(OSError):
                    folder.rmdir()


@contextmanager
def _cgroups_locked() -> Iterator[None]:
    """Keep ``slurmstepd``s from making cgroups meanwhile, as they do each other."""
    descriptor = os.open(FREEZER, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
