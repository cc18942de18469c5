"""Who computes what, and what killed whom: files that outlive every process.

    attempts/running/000012-NODE-PID.json        a worker process computes shard 12
    attempts/000012/death-….json                 a worker process died computing it
    attempts/000012/rows-000000-000256.parquet   a part of it that is done

A death is recorded by the process that watches the worker and survives it. A worker
that vanishes together with its watcher (preempted, node lost) leaves its `running`
file and no death: nobody is blamed for what a scheduler did.

A shard that killed its workers is halved, and the halves again, until a single image
is left that kills them. The tree of halves follows from the deaths on disk, so that
any worker can go on with it:

    [0, 8) died twice  ->  [0, 4)  [4, 8)      first half is computed, second dies
                                   [4, 8) died ->  [4, 6)  [6, 8)   and so on
"""

import contextlib
import os
import re
import shutil
import socket
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from nucleiseg.atomic import create_private, read_json, write_json
from nucleiseg.errors import RunError
from nucleiseg.provenance import timestamp
from nucleiseg.runs import CountRun

# A worker can be killed by accident, its shard being innocent: a whole shard is only
# halved when it happens again, and an image is only given up the third time. Where
# workers are killed, mostly it is somebody else who is at it, one large image may well
# be what three of them were at: it takes six, which a shortage of memory comes to, too.
_DEATHS_OF_SHARD = 2
_DEATHS_OF_PART = 1
_DEATHS_OF_IMAGE = 3
_KILLS_OF_IMAGE = 6
_KILL = "SIGKILL"
# Workers that vanished may have been preempted: they halve a shard (a job that is
# killed whole for its memory leaves no witness either), and never give up an image.
_VANISHED_OF_SHARD = 4

Range = tuple[int, int]
"""First image and the one behind the last, positions in their dataset."""


@dataclass(frozen=True)
class Attempt:
    """A worker process that computes, or did when it was last heard of."""

    shard: int
    start: int
    stop: int
    worker: str
    host: str
    pid: int
    since: str


@dataclass(frozen=True)
class History:
    """What became of the attempts at one shard."""

    deaths: Mapping[Range, tuple[str, ...]]
    """Causes, by the range that was being computed."""
    vanished: Mapping[Range, int]
    """Attempts without an end, by range."""

    def is_clean(self) -> bool:
        """Nothing ever happened."""
        return not self.deaths and sum(self.vanished.values()) < _VANISHED_OF_SHARD

    def must_halve(self, part: Range, *, is_whole: bool) -> bool:
        """Decide whether a range has killed so often that its halves must show why."""
        limit = _DEATHS_OF_SHARD if is_whole else _DEATHS_OF_PART
        return (
            len(self.deaths.get(part, ())) >= limit
            or self.vanished.get(part, 0) >= _VANISHED_OF_SHARD
        )

    def verdict(self, image: int) -> str | None:
        """Why a single image must be given up; None while it must not."""
        causes = self.deaths.get((image, image + 1), ())
        crashes = tuple(cause for cause in causes if _KILL not in cause)
        if len(crashes) >= _DEATHS_OF_IMAGE:
            causes, n_times = crashes, _DEATHS_OF_IMAGE
        elif len(causes) >= _KILLS_OF_IMAGE:
            n_times = _KILLS_OF_IMAGE
        else:
            return None
        # The most frequent cause, so that the table does not depend on the order.
        cause = max(sorted(set(causes)), key=causes.count)
        return f"it killed its worker {n_times} times ({cause})"


def halve(part: Range) -> tuple[Range, Range]:
    """Cut a range of two or more images in two."""
    start, stop = part
    middle = (start + stop) // 2
    return (start, middle), (middle, stop)


class Attempts:
    """The attempts of one run."""

    def __init__(self, run: CountRun) -> None:
        self._root = run.attempts
        self._running = run.attempts / "running"

    @contextlib.contextmanager
    def attempt(self, shard: int, part: Range, *, worker: str) -> Iterator[None]:
        """Note that this process computes a range, as long as it does."""
        create_private(self._root)
        create_private(self._running)
        entry = Attempt(
            shard, *part, worker, socket.gethostname(), os.getpid(), timestamp()
        )
        path = self._running / f"{shard:06d}-{entry.host}-{entry.pid}.json"
        write_json(path, asdict(entry))
        try:
            yield
        finally:
            path.unlink(missing_ok=True)

    def running(self) -> list[Attempt]:
        """List attempts without an end, by shard."""
        return [
            found
            for path in sorted(self._running.glob("[!.]*.json"))
            if (found := _read_attempt(path)) is not None
        ]

    def record_death(self, pid: int, cause: str) -> list[int]:
        """Record that a worker process of this host died while computing.

        Parameters
        ----------
        pid : int
        cause : str
            In words that do not depend on host or time: they reach the table.

        Returns
        -------
        list of int
            Its shards; none where it died idle, or before it began.
        """
        shards = []
        for path in self._running_as(pid):
            found = _read_attempt(path)
            if found is None:
                continue
            folder = create_private(self._folder(found.shard))
            values = {**asdict(found), "cause": cause, "recorded": timestamp()}
            write_json(folder / f"death-{uuid.uuid4().hex}.json", values)
            path.unlink(missing_ok=True)
            shards.append(found.shard)
        return shards

    def forget(self, pid: int) -> None:
        """Drop the attempts of a process of this host that was ended on purpose."""
        for path in self._running_as(pid):
            path.unlink(missing_ok=True)

    def history(self, shard: int) -> History:
        """Read what became of the attempts at a shard."""
        deaths: dict[Range, tuple[str, ...]] = {}
        for path in sorted(self._folder(shard).glob("death-*.json")):
            death = _read(path)
            if death is None:
                continue  # another worker has just finished the shard
            part = (int(death["start"]), int(death["stop"]))
            deaths[part] = (*deaths.get(part, ()), str(death["cause"]))
        vanished: dict[Range, int] = {}
        for path in self._running.glob(f"{shard:06d}-*.json"):
            found = _read_attempt(path)
            if found is not None:
                part = (found.start, found.stop)
                vanished[part] = vanished.get(part, 0) + 1
        return History(deaths, vanished)

    def n_deaths(self, shard: int) -> int:
        """Count the recorded deaths at a shard."""
        return len(list(self._folder(shard).glob("death-*.json")))

    def rows_folder(self, shard: int) -> Path:
        """Folder for finished parts of a shard."""
        create_private(self._root)
        return create_private(self._folder(shard))

    def rows_files(self, shard: int) -> list[Path]:
        """Finished parts of a shard, in order."""
        return sorted(self._folder(shard).glob("rows-*.parquet"))

    def clear_deaths(self, shard: int) -> None:
        """Give a shard that killed its workers another chance."""
        for path in self._folder(shard).glob("death-*.json"):
            path.unlink(missing_ok=True)

    def clear(self, shard: int) -> None:
        """Drop everything about a shard: it is done."""
        for path in self._running.glob(f"{shard:06d}-*.json"):
            path.unlink(missing_ok=True)
        # Another worker may do the same at this moment.
        shutil.rmtree(self._folder(shard), ignore_errors=True)

    def _running_as(self, pid: int) -> list[Path]:
        """Files of the attempts of a process of this host."""
        # The whole name: host `node` must not take a file of `gpu-node` for its own.
        own = re.compile(rf"\d+-{re.escape(socket.gethostname())}-{pid}\.json")
        return sorted(
            path for path in self._running.glob("*") if own.fullmatch(path.name)
        )

    def _folder(self, shard: int) -> Path:
        return self._root / f"{shard:06d}"


def _read_attempt(path: Path) -> Attempt | None:
    """Read an attempt; None where it has ended in this moment."""
    values = _read(path)
    return None if values is None else Attempt(**values)


def _read(path: Path) -> Any:
    """Read a file that another process may take away; None where it just has."""
    try:
        return read_json(path)
    except RunError:
        if path.exists():
            raise
        return None
