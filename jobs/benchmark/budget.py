"""A training that may use so much CPU time and no more."""

import math
import resource

# Of the budget, in which the learning rate rises.
_WARM_UP = 0.05


class Budget:
    """CPU time of this process and of its children, from the start of the process on.

    Imports, reading and compiling are in it. CPU time is the same however many others
    work on the machine, as wall time is not; on a GPU it says little.

    Parameters
    ----------
    core_s : float
    """

    def __init__(self, core_s: float) -> None:
        self._core_s = core_s

    @property
    def used_s(self) -> float:
        """Core seconds so far."""
        who = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
        usages = [resource.getrusage(one) for one in who]
        return sum(usage.ru_utime + usage.ru_stime for usage in usages)

    @property
    def share(self) -> float:
        """Share of the budget that is used, at most 1."""
        return min(1.0, self.used_s / self._core_s)

    @property
    def is_used(self) -> bool:
        """Whether training must stop."""
        return self.share >= 1


def follow_budget(highest_rate: float, share: float) -> float:
    """Give the learning rate at a share of the budget: up evenly, down along a cosine.

    A schedule by epochs or by plateaus would not have begun to lower the rate when a
    budget of minutes ends, and whoever's schedule is the longest would lose.

    Examples
    --------
    >>> [follow_budget(1.0, share) for share in (0.025, 0.05, 1.0)]
    [0.5, 1.0, 0.0]
    """
    if share < _WARM_UP:
        return highest_rate * share / _WARM_UP
    done = (share - _WARM_UP) / (1 - _WARM_UP)
    return highest_rate * (1 + math.cos(math.pi * done)) / 2
