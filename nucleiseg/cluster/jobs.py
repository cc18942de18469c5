"""What a job runs: the same whether submitit or a batch script by hand started it."""

import asyncio
import contextlib
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from nucleiseg.cluster import slurm
from nucleiseg.cluster.element import Element, Ending
from nucleiseg.cluster.place import Place, Role, find_place
from nucleiseg.cluster.records import Record, Recorder, is_cancelled
from nucleiseg.config import ClusterConfig, load_config
from nucleiseg.errors import RunError
from nucleiseg.runs import CountRun, TrainRun
from nucleiseg.shards import read_plan
from nucleiseg.training import is_trained

logger = logging.getLogger(__name__)

# submitit's local executor starts a job again that ends with this.
_LOCAL_REQUEUE = 144
_MOST_TRAINING_DEATHS = 5
_POLL_S = 0.5
# Of the warning before the time limit, what is kept for ending at once.
_MARGIN_S = 20.0
# Between the signal to end and SIGKILL a site leaves 30 s where nobody changed it.
_GRACE_S = 20.0


@dataclass(frozen=True)
class CountJob:
    """A job of a count; small, since submitit pickles it.

    Parameters
    ----------
    root : str
        The run directory.
    coordinator : {"yes", "no", "first"}
        Whether it coordinates; `first`: when it is the first of its array.
    n_workers : int
    """

    root: str
    coordinator: str
    n_workers: int

    def __call__(self) -> NoReturn:
        """Lead the job, and leave with its exit status."""
        _prepare_process()
        slurm.refuse_several_tasks(slurm.COUNT_IS_ONE_PROCESS)
        place = find_place()
        is_first = self.coordinator == "first" and place.element == 0
        role = Role(self.coordinator == "yes" or is_first, self.n_workers)
        run = CountRun(Path(self.root))
        element = Element(
            run,
            read_plan(run.plan).identity,
            role,
            place,
            load_config(run.config).cluster,
        )
        raise SystemExit(_exit_status(asyncio.run(element.lead()), place))


@dataclass(frozen=True)
class TrainJob:
    """The job of a training.

    Parameters
    ----------
    root : str
        The run directory, with its configuration in it.
    """

    root: str

    def __call__(self) -> NoReturn:
        """Lead the training, and leave with its exit status."""
        _prepare_process()
        run = TrainRun(Path(self.root))
        command = [sys.executable, "-m", "nucleiseg", "train", str(run.config)]
        command += ["--run", str(run.root)]
        place = find_place()
        ending = TrainingLeader(
            run, command, place, load_config(run.config).cluster
        ).lead()
        raise SystemExit(_exit_status(ending, place))


class TrainingLeader:
    """Leads the process that trains: warns it, starts it again, requeues the job.

    Parameters
    ----------
    run : TrainRun
    command : sequence of str
        Trains in place, going on from the last checkpoint.
    place : Place
    settings : ClusterConfig
    """

    def __init__(
        self,
        run: TrainRun,
        command: Sequence[str],
        place: Place,
        settings: ClusterConfig,
    ) -> None:
        self._run = run
        self._command = list(command)
        self._place = place
        self._settings = settings
        self._is_warned = False
        self._is_told_to_end = False
        self._n_deaths = 0
        self._recorder = Recorder(
            run.jobs,
            Record(
                name=place.job_id,
                role="training",
                state="starting",
                host=place.node,
                node=place.node,
                restarts=place.restarts,
                devices=[f"CUDA_VISIBLE_DEVICES={','.join(place.gpus)}"],
            ),
        )

    def lead(self) -> Ending:
        """Train to the end, or until SLURM wants the node back."""
        slurm.refuse_several_tasks(slurm.TRAINING_IS_ONE_PROCESS)
        signal.signal(signal.SIGUSR2, self._warn)
        signal.signal(signal.SIGTERM, self._tell_to_end)
        self._recorder.say("working")
        ending = self._lead()
        if ending == "requeued" and self._place.is_slurm:
            ending = self._requeue()
        self._recorder.say(ending)
        logger.info("job %s: %s", self._place.job_id, ending)
        return ending

    def _warn(self, signal_number: int, frame: object) -> None:
        self._is_warned = True

    def _tell_to_end(self, signal_number: int, frame: object) -> None:
        self._is_told_to_end = True

    def _lead(self) -> Ending:
        while True:
            process = subprocess.Popen(self._command)
            try:
                self._watch(process)
            finally:
                if process.poll() is None:
                    process.kill()
                    process.wait()
            # Nothing has waited for it before, but for poll.
            status = process.returncode
            if is_cancelled(self._run.jobs):
                return "ended"
            # 1: trained, but some images of the test archive failed; or a crash.
            if status == 0 or (status == 1 and self._is_trained()):
                return "ended"
            if self._is_warned:
                return "requeued"
            if self._is_told_to_end:
                return "requeued" if self._is_preempted() else "ended"
            if status > 1:
                self._recorder.say(error=f"training ended with exit status {status}")
                return "failed"
            cause = "a crash" if status == 1 else signal.Signals(-status).name
            self._n_deaths += 1
            self._recorder.say(
                deaths=self._n_deaths, error=f"the training process died: {cause}"
            )
            logger.error("the training process died: %s", cause)
            if self._n_deaths >= _MOST_TRAINING_DEATHS:
                return "failed"

    def _watch(self, process: "subprocess.Popen[bytes]") -> None:
        """Wait for a training, and pass on to it what SLURM says."""
        deadline_s: float | None = None
        # A loop, not wait(): a signal handler must find no lock held.
        while process.poll() is None:
            if deadline_s is None and self._is_warned:
                limit_s = max(1.0, self._settings.signal_delay_s - _MARGIN_S)
                deadline_s = time.monotonic() + limit_s
                self._recorder.say("draining")
                logger.info(
                    "warned: a checkpoint may be written within %.0f s", limit_s
                )
                _signal(process, signal.SIGUSR1)
            is_late = deadline_s is not None and time.monotonic() > deadline_s
            if is_late or self._is_told_to_end or is_cancelled(self._run.jobs):
                _signal(process, signal.SIGTERM)
                # It finishes its step and writes a checkpoint.
                wants_state = self._is_told_to_end and not is_cancelled(self._run.jobs)
                try:
                    process.wait(timeout=_GRACE_S if wants_state else _MARGIN_S / 2)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
                return
            self._recorder.say_alive()
            time.sleep(_POLL_S)

    def _is_trained(self) -> bool:
        """Whether training is over and the model is there."""
        return is_trained(self._run, load_config(self._run.config).training)

    def _is_preempted(self) -> bool:
        if not self._place.is_slurm:
            return False
        try:
            return slurm.is_preempted(self._place.job_id)
        except RunError as error:
            logger.warning("whether this is a preemption is unknown: %s", error)
            return False

    def _requeue(self) -> Ending:
        if self._place.restarts >= self._settings.max_restarts:
            self._recorder.say(
                error=f"was requeued {self._place.restarts} times, which is "
                "cluster.max_restarts"
            )
            return "failed"
        if not slurm.is_available():
            return "requeued"  # its batch script asks
        try:
            slurm.requeue(self._place.job_id)
        except RunError as error:
            self._recorder.say(error=str(error))
            logger.error("%s", error)
            return "failed"
        return "requeued"


def _signal(process: "subprocess.Popen[bytes]", number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(number)


def _exit_status(ending: Ending, place: Place) -> int:
    if ending == "failed":
        return 1
    if ending == "requeued" and not place.is_slurm:
        return _LOCAL_REQUEUE
    if ending == "requeued" and not slurm.is_available():
        return slurm.REQUEUE_STATUS
    return 0


def _prepare_process() -> None:
    """Write a job's log to its standard error, and files that nobody else can read."""
    os.umask(os.umask(0o077) | 0o077)
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", force=True
    )
    # Its own words of starting and ending; what goes wrong is an exception.
    logging.getLogger("submitit").setLevel(logging.WARNING)
