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
    one the others wait for is said by the network's waiting: while it waits, reading
    or normalising is too slow.
    """

    core_s: dict[str, float] = field(default_factory=lambda: dict.fromkeys(STAGES, 0.0))
    """Core seconds of the stage's threads. That of the network is what the process
    took beyond the other stages: TensorFlow computes in threads of its own."""
    wall_s: float = 0.0
    """From the first image of a shard asked for to its last row, all shards added."""
    waited_s: float = 0.0
    """Of it the network stood still because no images were ready."""
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
            "core_ms": {
                stage: round(1000 * seconds / n_images, 4)
                for stage, seconds in self.core_s.items()
            },
        }
