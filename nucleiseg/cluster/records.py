"""What a job says of itself, for `status` to read: one small file each."""

import logging
import os
import time
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Literal

from nucleiseg.atomic import create_private, read_json, write_json
from nucleiseg.errors import RunError
from nucleiseg.provenance import timestamp
from nucleiseg.runs import CountRun, Jobs

logger = logging.getLogger(__name__)

State = Literal[
    "starting",
    "waiting",
    "working",
    "draining",
    "requeued",
    "held",
    "left",
    "ended",
    "failed",
]

HEARTBEAT_S = 20.0
"""A record that is three times as old belongs to a job that was killed."""


Part = Literal["coordinator", "workers", "coordinator and workers", "training"]


@dataclass(frozen=True)
class Record:
    """A job of a run, as it last described itself."""

    name: str
    """`ARRAY_ELEMENT`, or the job id."""
    role: Part
    state: State
    host: str
    node: str = ""
    devices: list[str] = field(default_factory=list)
    """What its workers compute on."""
    restarts: int = 0
    deaths: int = 0
    """Worker processes it has seen dying."""
    error: str | None = None
    updated_s: float = 0.0
    """Seconds since the epoch."""
    updated: str = ""

    @property
    def is_over(self) -> bool:
        """Whether it has ended, and said so."""
        return self.state in ("left", "ended", "failed", "requeued", "held")

    def is_stale(self, now_s: float) -> bool:
        """Whether it should have been heard of and was not."""
        return not self.is_over and now_s - self.updated_s > 3 * HEARTBEAT_S


class Recorder:
    """Writes the record of one job."""

    def __init__(self, jobs: Jobs, record: Record) -> None:
        self._folder = jobs.records
        self._record = record

    @property
    def record(self) -> Record:
        """What was written last."""
        return self._record

    def say(
        self,
        state: State | None = None,
        *,
        role: Part | None = None,
        devices: list[str] | None = None,
        deaths: int | None = None,
        error: str | None = None,
    ) -> None:
        """Write what has changed; without arguments, that the job is alive."""
        now = self._record
        self._record = replace(
            now,
            role=now.role if role is None else role,
            state=now.state if state is None else state,
            devices=now.devices if devices is None else devices,
            deaths=now.deaths if deaths is None else deaths,
            error=now.error if error is None else error,
            updated_s=time.time(),
            updated=timestamp(),
        )
        create_private(self._folder)
        write_json(self._folder / f"{now.name}.json", asdict(self._record))

    def say_alive(self) -> None:
        """Write again when it is time to."""
        if time.time() - self._record.updated_s >= HEARTBEAT_S:
            self.say()


def read_records(jobs: Jobs) -> list[Record]:
    """Read the records of all jobs of a run."""
    return [
        Record(**read_json(path)) for path in sorted(jobs.records.glob("[!.]*.json"))
    ]


def ask_to_leave(run: CountRun, worker: str) -> None:
    """Note that a worker is sent home, so that its job does not wait for more."""
    create_private(run.jobs.records)
    _leave_note(run, worker).touch(mode=0o600)


def take_leave_note(run: CountRun, worker: str) -> bool:
    """Whether a worker was sent home; the note is taken away."""
    note = _leave_note(run, worker)
    try:
        note.unlink()
    except FileNotFoundError:
        return False
    return True


def _leave_note(run: CountRun, worker: str) -> Path:
    return run.jobs.records / f"{worker}.leave"


def is_cancelled(jobs: Jobs) -> bool:
    """Whether `cancel` was called since the run was last started."""
    # Opened, not only looked for: a network file system may remember its absence.
    try:
        os.close(os.open(jobs.cancelled, os.O_RDONLY))
    except FileNotFoundError:
        return False
    return True


def read_run_state(jobs: Jobs) -> str | None:
    """State of a count as its coordinator last wrote it; None before the first."""
    try:
        return str(read_json(jobs.progress)["state"])
    except RunError:
        if jobs.progress.exists():
            raise
        return None


def write_run_state(jobs: Jobs, state: str, *, error: str) -> None:
    """Write the state of a count whose coordinator cannot do it any more."""
    before = read_json(jobs.progress) if jobs.progress.exists() else {}
    now = {"updated": timestamp(), "updated_s": time.time()}
    write_json(jobs.progress, {**before, **now, "state": state, "error": error})
