"""Whether jobs would be taken: by sbatch, and by submitit on this machine."""

import contextlib
import os
import re
import secrets
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from nucleiseg.cluster import Batch, CountJob, TrainJob, make_sbatch_text, submit
from nucleiseg.cluster.sent import is_alive
from nucleiseg.config import ClusterConfig
from nucleiseg.doctor.check import Check, ask, clean_environment, failed, passed
from nucleiseg.doctor.controller import count_jobs
from nucleiseg.runs import Jobs

_SBATCH_LIMIT_S = 60.0
_LOCAL_LIMIT_S = 120.0
_END_LIMIT_S = 10.0


def list_batches(settings: ClusterConfig, root: Path) -> list[Batch]:
    """List what a count and a training would submit."""
    job = CountJob(str(root), "no", settings.share_gpus(settings.gpus or 0))
    batches = [
        Batch("workers", [job] * count_jobs(settings), gpus=settings.gpus),
        Batch("training", [TrainJob(str(root))], gpus=settings.gpus),
    ]
    if settings.coordinator == "job":
        batches.insert(0, Batch("coordinator", [CountJob(str(root), "yes", 0)]))
    return batches


def check_submission(settings: ClusterConfig, root: Path) -> Iterator[Check]:
    """Ask sbatch whether it would take the jobs of a count and of a training."""
    for batch in list_batches(settings, root):
        text = make_sbatch_text(Jobs(root), batch, settings, after=None)
        with tempfile.NamedTemporaryFile("w", prefix="nucleiseg-") as script:
            script.write(text)
            script.flush()
            answer = ask(
                ["sbatch", "--test-only", script.name],
                limit_s=_SBATCH_LIMIT_S,
                environment=clean_environment(),
            )
        name = f"{batch.role}: sbatch"
        if answer.status == 0:
            when = re.search(r"to start at (\S+)", answer.errors)
            yield passed(name, f"taken{f', could start {when[1]}' if when else ''}")
        else:
            words = " ".join((answer.errors or answer.output).split())
            yield failed(
                name,
                words.removeprefix("sbatch: error: ") or "refused without a word",
                "mend the cluster section of the configuration or the site profile",
            )


@dataclass(frozen=True)
class _Greeting:
    """A job that leaves a file."""

    path: str
    token: str

    def __call__(self) -> None:
        Path(self.path).write_text(self.token, encoding="ascii")


def check_local_job(settings: ClusterConfig, scratch: Path) -> Check:
    """Start a job on this machine as counts do, and wait for what it leaves."""
    path, token = scratch / "greeting", secrets.token_hex(8)
    jobs = Jobs(scratch)
    batch = Batch("coordinator", [_Greeting(str(path), token)])
    (job,) = submit(jobs, batch, "local", settings, after=None)
    _wait(lambda: _holds(path, token) or not is_alive(job), _LOCAL_LIMIT_S)
    is_done = _holds(path, token)
    if not _wait(lambda: not is_alive(job), _END_LIMIT_S if is_done else 0):
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(job.job_id), signal.SIGTERM)
    if is_done:
        return passed("local job", "started and ended")
    return failed(
        "local job",
        f"ended, or hangs, without a result: {_last_words(jobs.logs)}",
        "check cluster.setup and cluster.python, which start it",
    )


def _wait(predicate: Callable[[], bool], limit_s: float) -> bool:
    deadline = time.monotonic() + limit_s
    while not predicate():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


def _holds(path: Path, text: str) -> bool:
    try:
        return path.read_text("ascii") == text
    except OSError:
        return False


def _last_words(logs: Path) -> str:
    texts = [path.read_text(errors="replace") for path in logs.glob("*.out")]
    lines = "\n".join(texts).strip().splitlines()
    return " ".join(lines[-1].split()) if lines else "and its log is empty"
