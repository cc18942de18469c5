"""What a check found, and commands that are asked without waiting for ever."""

import contextlib
import os
import queue
import subprocess
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from nucleiseg.errors import NucleisegError

Status = Literal["ok", "warning", "FAILED"]

_GRACE_S = 5.0


@dataclass(frozen=True)
class Check:
    """What was looked at, how it is, and what to do about it."""

    name: str
    status: Status
    found: str
    remedy: str = ""


def passed(name: str, found: str) -> Check:
    """Make a check that is well."""
    return Check(name, "ok", found)


def warned(name: str, found: str, remedy: str) -> Check:
    """Make a check that work can go on with."""
    return Check(name, "warning", found, remedy)


def failed(name: str, found: str, remedy: str) -> Check:
    """Make a check that stands in the way."""
    return Check(name, "FAILED", found, remedy)


@dataclass(frozen=True)
class Answer:
    """What a command said."""

    status: int | None
    """Exit status, 127 where there is no such command; None: no answer in time."""
    output: str
    errors: str

    @property
    def last_words(self) -> str:
        """Last line that it wrote, of its errors first."""
        lines = (self.errors.strip() or self.output.strip()).splitlines()
        return " ".join(lines[-1].split()) if lines else "no message"


def ask(
    command: Sequence[str],
    *,
    limit_s: float,
    environment: Mapping[str, str] | None = None,
) -> Answer:
    """Run a command, and end it where it does not answer."""
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            env=environment,
        )
    except OSError as error:
        return Answer(127, "", f"{command[0]}: {error.strerror}")
    try:
        output, errors = process.communicate(timeout=limit_s)
    except subprocess.TimeoutExpired:
        # SIGTERM first: srun gives its job back.
        for end in (process.terminate, process.kill):
            end()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.communicate(timeout=_GRACE_S)
                break
        return Answer(None, "", f"no answer within {limit_s:.0f} s")
    return Answer(process.returncode, output, errors)


def guard(
    name: str,
    examine: Callable[[], Iterable[Check] | Check | None],
    *,
    limit_s: float,
) -> Iterator[Check]:
    """Examine something that may hang, as network file systems do, or may go wrong.

    Parameters
    ----------
    name : str
        For the check that says so.
    examine : callable
    limit_s : float
        A check that takes longer is given up, and those after it.
    """
    results: queue.SimpleQueue[Check | Exception | None] = queue.SimpleQueue()

    def work() -> None:
        try:
            checks = examine() or ()
            for check in (checks,) if isinstance(checks, Check) else checks:
                results.put(check)
            results.put(None)
        except Exception as error:  # noqa: BLE001 - the other checks must go on
            results.put(error)

    # A daemon: a thread that hangs must not keep the process from ending.
    threading.Thread(target=work, name=f"doctor: {name}", daemon=True).start()
    while True:
        try:
            result = results.get(timeout=limit_s)
        except queue.Empty:
            yield failed(
                name,
                f"no answer within {limit_s:.0f} s",
                "a file system or a service hangs: try again later, or elsewhere",
            )
            return
        if result is None:
            return
        if isinstance(result, Exception):
            yield failed(name, *_explain(result))
            return
        yield result


def clean_environment() -> dict[str, str]:
    """Environment for SLURM's commands, without the job this may itself run in."""
    own = ("SLURM_", "SLURMD_", "SRUN_", "SBATCH_", "SUBMITIT_")
    return {
        name: value
        for name, value in os.environ.items()
        if name == "SLURM_CONF" or not name.startswith(own)
    }


def _explain(error: Exception) -> tuple[str, str]:
    words = " ".join(str(error).split())
    if isinstance(error, NucleisegError):
        found, _, remedy = words.rpartition("; ")
        return (found, remedy) if found else (words, "mend that")
    if isinstance(error, OSError) and error.strerror:
        place = f"{error.filename}: " if error.filename else ""
        return f"{place}{error.strerror}", "check the path, and that you may use it"
    return (
        f"could not be checked ({type(error).__name__}: {words})",
        "this is a fault of the check: please report it",
    )
