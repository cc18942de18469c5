"""How a worker spends its time: which stage holds up the others."""

import contextlib
import math
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

STAGES = ("read", "normalise", "network", "label")
"""The stages of a worker's pipeline, in order."""

# Not one in each object: those are sent from worker to coordinator.
_LOCK = threading.Lock()


@dataclass
class StageTimes:
    """Seconds by stage, added up by threads that work at the same time.

    On a CPU the stages share the cores, and core seconds say what each costs; which
    one the others wait for is said by the network, when it stands still: without
    images reading or normalising is too slow, and else labelling.
    """

    core_s: dict[str, float] = field(default_factory=lambda: dict.fromkeys(STAGES, 0.0))
    """Core seconds of the stage's threads. That of the network is what the process
    took beyond the other stages: TensorFlow computes in threads of its own."""
    wall_s: float = 0.0
    """From the first image of a shard asked for to its last row, all shards added."""
    waited_s: float = 0.0
    """Of it the network stood still because no images were ready."""
    blocked_s: float = 0.0
    """Of it the network stood still though there were some: what it had computed
    before was waiting to be labelled."""
    n_images: int = 0
    started: float = math.inf
    """When the first image was asked for, seconds since the epoch."""
    ended: float = -math.inf
    """When the last row was there."""

    def timed(
        self, stage: str, function: Callable[[Item], Result]
    ) -> Callable[[Item], Result]:
        """Wrap a stage's function so that its core seconds are added up."""

        def measured(item: Item) -> Result:
            start_s = time.thread_time()
            try:
                return function(item)
            finally:
                with _LOCK:
                    self.core_s[stage] += time.thread_time() - start_s

        return measured

    def add(self, other: "StageTimes") -> None:
        """Add the times of another shard or worker."""
        for stage in STAGES:
            self.core_s[stage] += other.core_s[stage]
        self.wall_s += other.wall_s
        self.waited_s += other.waited_s
        self.blocked_s += other.blocked_s
        self.n_images += other.n_images
        self.started = min(self.started, other.started)
        self.ended = max(self.ended, other.ended)

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Note the time that a shard takes, and what its network took of it."""
        self.started = time.time()
        start_s, start_core_s = time.monotonic(), time.process_time()
        yield
        core_s = time.process_time() - start_core_s
        self.core_s["network"] = max(0.0, core_s - sum(self.core_s.values()))
        self.wall_s = time.monotonic() - start_s
        self.ended = self.started + self.wall_s

    def as_dict(self) -> dict[str, object]:
        """Values for a file: core milliseconds an image, and seconds."""
        n_images = max(1, self.n_images)
        return {
            "n_images": self.n_images,
            "wall_s": round(self.wall_s, 3),
            "span_s": round(max(0.0, self.ended - self.started), 3),
            "network_waited_s": round(self.waited_s, 3),
            "network_blocked_s": round(self.blocked_s, 3),
            "core_ms": {
                stage: round(1000 * seconds / n_images, 4)
                for stage, seconds in self.core_s.items()
            },
        }


class Standstill:
    """A clock that runs while none of the network's calls does.

    Parameters
    ----------
    times : StageTimes
        Takes up what it shows: waited for images, and the rest.
    """

    def __init__(self, times: StageTimes) -> None:
        self._times = times
        self._lock = threading.Lock()
        self._n_calls = 0
        self._since_s = time.monotonic()
        self._total_s = 0.0
        self._waited_s = 0.0
        self._waiting_s = 0.0

    def around(self, function: Callable[[Item], Result]) -> Callable[[Item], Result]:
        """Wrap the network's call: the clock stops for it."""

        def called(item: Item) -> Result:
            with self._lock:
                if self._n_calls == 0:
                    self._total_s += time.monotonic() - self._since_s
                self._n_calls += 1
                # Only now is it known that a call followed.
                self._waited_s += self._waiting_s
                self._waiting_s = 0.0
            try:
                return function(item)
            finally:
                with self._lock:
                    self._n_calls -= 1
                    self._since_s = time.monotonic()

        return called

    def watch(self, items: Iterator[Item]) -> Iterator[Item]:
        """Pass items on; what the clock shows meanwhile is waiting for them."""
        while True:
            start_s = self._read()
            item = next(items, None)
            self._waiting_s += self._read() - start_s
            if item is None:
                return
            yield item

    def _read(self) -> float:
        with self._lock:
            if self._n_calls:
                return self._total_s
            return self._total_s + time.monotonic() - self._since_s

    def note(self) -> None:
        """Note down what the clock shows; what comes after the last call is not it."""
        with self._lock:
            self._times.waited_s += self._waited_s
            self._times.blocked_s += max(0.0, self._total_s - self._waited_s)
