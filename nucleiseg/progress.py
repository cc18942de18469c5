"""Progress of long work: a bar on a terminal, plain lines in a log."""

import logging
import sys
import time
from collections import deque
from types import TracebackType
from typing import Self

from tqdm import tqdm

logger = logging.getLogger(__name__)

# Rates are those of so long: what a start cost, or hours beside other work, is no guide
# to what is left. Shards take minutes, and several workers end them in bursts.
_WINDOW_S = 600.0
_SAMPLE_S = 1.0


class Progress:
    """Count units of work towards a total, with a rate and the time left.

    Parameters
    ----------
    total : int
        Units in all.
    label, unit : str
        What is done, and what is counted, in plural.
    done : int
        Units that were there before; they do not count for the rate.
    interval_s : float
        Shortest time between two lines of a log.
    warms_up : bool
        The first update is not typical (compiling is in it): rates are those after it.
    """

    def __init__(
        self,
        total: int,
        *,
        label: str,
        unit: str,
        done: int = 0,
        interval_s: float = 10.0,
        warms_up: bool = False,
    ) -> None:
        self.total = total
        self.done = done
        self.label = label
        self.unit = unit
        self._interval_s = interval_s
        self._warms_up = warms_up
        self._last_s = time.monotonic()
        # Times and units: the oldest is that from which the rate is reckoned.
        self._samples = deque([(self._last_s, done)])
        self._note = ""
        self._bar = (
            tqdm(total=total, initial=done, desc=label, unit=f" {unit}", leave=False)
            if sys.stderr.isatty()
            else None
        )

    def update(self, n_units: int, note: str = "") -> None:
        """Add finished units; `note` is shown behind the figures."""
        self.done += n_units
        self._note = note
        if n_units:
            self._sample()
        if self._bar is not None:
            self._bar.set_postfix_str(note, refresh=False)
            self._bar.update(n_units)
        elif time.monotonic() - self._last_s >= self._interval_s:
            self._last_s = time.monotonic()
            logger.info("%s", self.line())

    def _sample(self) -> None:
        now_s = time.monotonic()
        if self._warms_up:
            self._warms_up = False
            self._samples.clear()
            self._last_s = now_s
        elif now_s - self._samples[-1][0] < _SAMPLE_S:
            return
        self._samples.append((now_s, self.done))
        while len(self._samples) > 2 and now_s - self._samples[1][0] >= _WINDOW_S:
            self._samples.popleft()

    @property
    def note(self) -> str:
        """What is shown behind the figures."""
        return self._note

    def line(self) -> str:
        """Give the state in one line, as a log shows it."""
        from_s, first = self._samples[0]
        rate = (self.done - first) / max(time.monotonic() - from_s, 1e-9)
        left_s = (self.total - self.done) / rate if rate else float("inf")
        time_left = _clock(left_s) if rate else "unknown"
        share = 100 * self.done / self.total if self.total else 100
        text = (
            f"{self.label}: {self.done}/{self.total} {self.unit} ({share:.0f} %), "
            f"{rate:.1f} {self.unit}/s, {time_left} left"
        )
        return f"{text}, {self._note}" if self._note else text

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.close()


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}"
