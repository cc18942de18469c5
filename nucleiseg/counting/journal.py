"""How far a count is, in a file: for `status`, and for jobs that wait for the end."""

import os
import socket
import time
from collections import deque
from typing import Literal

from nucleiseg.atomic import read_json, write_json
from nucleiseg.cluster import Passes
from nucleiseg.inference import ShardResult, StageTimes
from nucleiseg.provenance import timestamp
from nucleiseg.runs import CountRun

State = Literal[
    "submitted",
    "running",
    "stopped",
    "merging",
    "finished",
    "incomplete",
    "failed",
]

_INTERVAL_S = 5.0
# The rate is that of the last minutes: it follows workers that come and go.
_WINDOW_S = 300.0


class Journal:
    """Writes the progress of a count.

    Parameters
    ----------
    run : CountRun
    """

    def __init__(self, run: CountRun) -> None:
        self._run = run
        self._state: State = "running"
        self._started = timestamp()
        self._written_s = 0.0
        self._n_images = 0
        self._n_workers = 0
        self._times = StageTimes()
        self._passes: str | None = None
        self._marks = deque([(time.monotonic(), 0)])

    def add(self, result: ShardResult) -> None:
        """Note a finished shard."""
        if result.already_there:
            return
        self._n_images += result.n_images
        if result.times is not None:
            self._times.add(result.times)
        now_s = time.monotonic()
        self._marks.append((now_s, self._n_images))
        while len(self._marks) > 2 and now_s - self._marks[0][0] > _WINDOW_S:
            self._marks.popleft()

    def note_passes(self, passes: Passes) -> None:
        """Note how far the passes over npz members are."""
        self._passes = None if passes.is_done else str(passes)
        if not self._n_images:
            # Passes come first: the rate is that of counting.
            self._marks = deque([(time.monotonic(), 0)])

    def tick(self, n_workers: int) -> None:
        """Write again when it is time to."""
        self._n_workers = n_workers
        if time.monotonic() - self._written_s >= _INTERVAL_S:
            self.write(self._state)

    def write(self, state: State, *, error: str | None = None) -> None:
        """Write the state and all figures."""
        self._state = state
        self._written_s = time.monotonic()
        write_json(
            self._run.jobs.progress,
            {
                "state": state,
                "host": socket.gethostname(),
                "pid": os.getpid(),
                "started": self._started,
                "updated": timestamp(),
                "updated_s": time.time(),
                "n_workers": self._n_workers,
                "images_per_s": round(self.images_per_s, 3),
                "stages": self._times.as_dict(),
                "passes": self._passes,
                "error": error,
            },
        )

    @staticmethod
    def conclude(run: CountRun) -> None:
        """Note that a run is finished whose command was killed before it said so.

        What that command wrote of rates and stages stays.
        """
        path = run.jobs.progress
        if path.exists():
            write_json(path, {**read_json(path), "state": "finished", "error": None})

    @property
    def images_per_s(self) -> float:
        """Images a second in the last minutes; 0 before the first shard."""
        start_s, n_before = self._marks[0]
        elapsed_s = time.monotonic() - start_s
        return (self._n_images - n_before) / elapsed_s if elapsed_s > 0 else 0.0
