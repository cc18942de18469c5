"""The coordinator's process, kept up by the leader of its job."""

import logging
import signal
import subprocess
import sys
from typing import Literal

from nucleiseg.cluster.records import Recorder, write_run_state
from nucleiseg.errors import RunError
from nucleiseg.runs import CountRun

logger = logging.getLogger(__name__)

Conclusion = Literal["ended", "failed"]

# Coordinators that die one after the other.
_MOST_COORDINATORS = 20
# Exit statuses of the process: done or stopped, cannot start, incomplete. Any other, as
# Python's own 1, is a crash.
_CONCLUSIONS: dict[int, Conclusion] = {0: "ended", 2: "failed", 3: "failed"}


class Keeper:
    """Starts the coordinator's process, and starts it again when it crashes.

    Parameters
    ----------
    run : CountRun
    job_id : str
        For messages.
    recorder : Recorder
        Of the job.
    """

    def __init__(self, run: CountRun, job_id: str, recorder: Recorder) -> None:
        self._run = run
        self._job_id = job_id
        self._recorder = recorder
        self._process: subprocess.Popen[bytes] | None = None
        self._n_started = 0

    @property
    def is_up(self) -> bool:
        """Whether the process runs."""
        return self._process is not None and self._process.poll() is None

    def look_after(self) -> Conclusion | None:
        """Start the process if there is none; how it concluded, when it has.

        Raises
        ------
        RunError
            It crashes again and again.
        """
        if self._process is None:
            self._start()
            return None
        status = self._process.poll()
        if status is None:
            return None
        self._process = None
        if status in _CONCLUSIONS:
            return _CONCLUSIONS[status]
        cause = "a crash" if status > 0 else signal.Signals(-status).name
        self._recorder.say(error=f"the coordinator died: {cause}")
        logger.error("the coordinator died: %s; it is started again", cause)
        return None

    def _start(self) -> None:
        if self._n_started >= _MOST_COORDINATORS:
            reason = (
                f"the coordinator died {_MOST_COORDINATORS} times; see the log of "
                f"job {self._job_id} in {self._run.logs}"
            )
            # Or all workers would wait for another one.
            write_run_state(self._run.jobs, "failed", error=reason)
            raise RunError(reason)
        self._n_started += 1
        self._process = subprocess.Popen(
            [sys.executable, "-m", "nucleiseg.counting", str(self._run.root)],
            # Ends when the leader does, even by SIGKILL; it then ends, too.
            stdin=subprocess.PIPE,
        )
        self._recorder.say("working")

    def send_signal(self, number: signal.Signals) -> None:
        """Send the process a signal, if it runs; wait for the end of SIGKILL."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(number)
            if number == signal.SIGKILL:
                self._process.wait()
