"""What SLURM or a user tells the leader of a job: to end, and by when."""

import asyncio
import functools
import logging
import signal
import time
from typing import Literal

from nucleiseg.cluster import slurm
from nucleiseg.cluster.place import Place
from nucleiseg.errors import RunError

logger = logging.getLogger(__name__)

# Between the signal to end and SIGKILL a site leaves 30 s where nobody changed it.
_GRACE_S = 20.0
# Of the warning before the time limit, what is kept for requeueing and ending.
_MARGIN_S = 10.0


class Orders:
    """Signals that have reached this job.

    Parameters
    ----------
    place : Place
    signal_delay_s : float
        From the warning to the time limit.
    """

    def __init__(self, place: Place, signal_delay_s: float) -> None:
        self._place = place
        self._signal_delay_s = signal_delay_s
        self._warned = asyncio.Event()
        self._told_to_end = asyncio.Event()

    def listen(self) -> None:
        """Hear SLURM's signals from now on, in the event loop that runs."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGUSR2, self._warned.set)
        loop.add_signal_handler(signal.SIGTERM, self._told_to_end.set)

    @property
    def are_given(self) -> bool:
        """Whether there are any."""
        return self._warned.is_set() or self._told_to_end.is_set()

    def read(self) -> Literal["requeued", "ended"] | None:
        """How this job is to end, if it is."""
        if self._warned.is_set():
            return "requeued"
        return self._ending_when_told if self._told_to_end.is_set() else None

    @functools.cached_property
    def _ending_when_told(self) -> Literal["requeued", "ended"]:
        """What SIGTERM means: preempted, so that this job must ask to be requeued."""
        if not self._place.is_slurm:
            return "ended"
        try:
            return "requeued" if slurm.is_preempted(self._place.job_id) else "ended"
        except RunError as error:
            logger.warning("whether this is a preemption is unknown: %s", error)
            return "ended"

    async def wait(self, seconds: float) -> None:
        """Wait for a signal, but not for long."""
        signals = [
            asyncio.ensure_future(event.wait())
            for event in (self._warned, self._told_to_end)
        ]
        await asyncio.wait(
            signals, timeout=seconds, return_when=asyncio.FIRST_COMPLETED
        )
        for waiter in signals:
            waiter.cancel()

    def give_deadline(self) -> "Deadline":
        """Reckon, from now on, the time that is left for the shards at hand."""
        return Deadline(self._warned, self._told_to_end, self._signal_delay_s)


class Deadline:
    """By when a job that was told to end must have ended."""

    def __init__(
        self, warned: asyncio.Event, told_to_end: asyncio.Event, signal_delay_s: float
    ) -> None:
        self._told_to_end = told_to_end
        self.limit_s = _GRACE_S
        if warned.is_set():
            self.limit_s = max(1.0, signal_delay_s - _MARGIN_S)
        self._may_shorten = warned.is_set()
        self._end_s = time.monotonic() + self.limit_s

    def is_over(self) -> bool:
        """Whether the time is up."""
        if self._may_shorten and self._told_to_end.is_set():
            # Warned first and then told to end: less time than was promised.
            self._end_s = min(self._end_s, time.monotonic() + _GRACE_S)
            self._may_shorten = False
        return time.monotonic() >= self._end_s
