"""What is sent to the workers: small functions, with paths and numbers only."""

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from nucleiseg.archives import Member, MemberNote, pass_members, read_note
from nucleiseg.devices import available_cores, describe_device
from nucleiseg.errors import ArchiveError, IncompleteError, NucleisegError
from nucleiseg.inference import ShardResult, compute_shard, draw_pictures, get_engine

WORKER = "NUCLEISEG_WORKER"
"""Environment variable with a worker's name."""

_THREADS = "NUCLEISEG_THREADS"


def worker_environment(name: str, n_threads: int, gpu: str | None) -> dict[str, str]:
    """Environment of a worker process.

    Parameters
    ----------
    name : str
        As status and logs show it.
    n_threads : int
        Cores it may keep busy.
    gpu : str or None
        Its GPU as CUDA_VISIBLE_DEVICES names it; None: as it is.
    """
    environment = {WORKER: name, _THREADS: str(n_threads)}
    if gpu is not None:
        environment["CUDA_VISIBLE_DEVICES"] = gpu
    return environment


def n_threads_here() -> int:
    """Cores that this worker process may keep busy."""
    return int(os.environ.get(_THREADS, available_cores()))


def get_ready(root: Path, plan: str) -> str:
    """Load the network in this worker process; say on what it will run.

    Raises
    ------
    NucleisegError
        This node cannot compute the run.
    """
    engine = get_engine(root, plan, n_threads_here())
    return describe_device(engine.compute.device)


@dataclass(frozen=True)
class Report:
    """What a worker says of a shard or of a pass over a member."""

    worker: str
    outcome: ShardResult | MemberNote | NucleisegError


PASS_TOPIC = "nucleiseg-pass"
"""What events on the progress of passes are filed under."""

_REPORT_INTERVAL_S = 1.0


def pass_or_explain(
    root: Path,
    plan: str,
    member: Member,
    n_threads: int | None = None,
    on_progress: Callable[[str, float], None] | None = None,
) -> Report:
    """Pass over a member; what the user can mend is an answer, not a crash.

    Parameters
    ----------
    root : Path
        The run directory.
    plan : str
        Identity of its plan.
    member : Member
    n_threads : int, optional
        Cores to keep busy; None: those of this worker.
    on_progress : callable, optional
        Called about once a second with the member's name and the share that is done;
        None: tells the scheduler of this worker.
    """
    report = on_progress or _tell_scheduler
    reported_s = time.monotonic()

    def report_seldom(member: Member, share: float) -> None:
        nonlocal reported_s
        if time.monotonic() - reported_s >= _REPORT_INTERVAL_S:
            reported_s = time.monotonic()
            report(str(member), share)

    def make_pass() -> MemberNote:
        n_threads_to_use = n_threads or n_threads_here()
        # What keeps this worker from computing shows before hours of reading.
        get_engine(root, plan, n_threads_to_use)
        pass_members([member], n_threads=n_threads_to_use, on_progress=report_seldom)
        note = read_note(member.folder, member.fingerprint, member.key)
        if note is None:
            raise ArchiveError(f"{member} was passed over, but its note is gone")
        return note

    return _report(make_pass)


def _tell_scheduler(member: str, share: float) -> None:
    from distributed import get_worker

    get_worker().log_event(PASS_TOPIC, {"member": member, "share": share})


def compute_or_explain(
    root: Path, plan: str, number: int, n_threads: int | None = None
) -> Report:
    """Compute a shard; what the user can mend is an answer, not a crash.

    dask would print the trace of an exception, which helps with our faults only.
    """
    return _report(
        lambda: compute_shard(root, plan, number, n_threads or n_threads_here())
    )


def _report(compute: Callable[[], ShardResult | MemberNote]) -> Report:
    outcome: ShardResult | MemberNote | NucleisegError
    try:
        outcome = compute()
    except NucleisegError as error:
        outcome = error
    except (OSError, MemoryError) as error:
        # A full disk, a file system that is gone, too little memory.
        outcome = IncompleteError(
            f"{explain(error)}; mend that, then run the same command again: what is "
            "done is kept"
        )
    return Report(os.environ.get(WORKER, ""), outcome)


def draw(
    root: Path,
    plan: str,
    picks: Sequence[tuple[int, int]],
    n_threads: int | None = None,
) -> int:
    """Draw pictures; see :func:`nucleiseg.inference.draw_pictures`."""
    return draw_pictures(root, plan, picks, n_threads or n_threads_here())


def explain(error: BaseException) -> str:
    """Say in one line what an exception says."""
    if isinstance(error, OSError) and error.strerror:
        place = f"{error.filename}: " if error.filename else ""
        return f"{place}{error.strerror}"
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
