"""How a worker spends its time: which stage holds up the others."""

import threading
import time
from collections.abc import Callable
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
    """From the first image asked for to the last row."""
    waited_s: float = 0.0
    """Of it the network stood still because no images were ready."""
    n_images: int = 0

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

    def as_dict(self) -> dict[str, object]:
        """Values for a file: core milliseconds an image, and seconds."""
        n_images = max(1, self.n_images)
        return {
            "n_images": self.n_images,
            "wall_s": round(self.wall_s, 3),
            "network_waited_s": round(self.waited_s, 3),
            "core_ms": {
                stage: round(1000 * seconds / n_images, 4)
                for stage, seconds in self.core_s.items()
            },
        }
