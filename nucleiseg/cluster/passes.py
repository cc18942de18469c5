"""Members that are passed over once before their shards are handed out.

A deflated member can be read in pieces only when its seek points are known, and
whether a member is whole is known only at its end. Whoever computes a shard makes the
pass where it is missing; here it is handed out as a task of its own, so that not all
workers make the same one.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from nucleiseg.archives import Member, needs_pass, read_note
from nucleiseg.config import load_config
from nucleiseg.errors import ArchiveError
from nucleiseg.inference import find_index
from nucleiseg.runs import CountRun
from nucleiseg.shards import Entry, Plan, read_plan


class Gate:
    """Holds shards back until their member has been passed over.

    Parameters
    ----------
    root : Path
        The run directory.
    shards : sequence of Entry
        What is to be computed.
    """

    def __init__(self, root: Path, shards: Sequence[Entry]) -> None:
        self._held: dict[Member, list[int]] = defaultdict(list)
        self.open: list[int] = []
        """Numbers of shards that need not wait."""
        run = CountRun(root)
        if not shards:
            return
        find = _Finder(read_plan(run.plan), find_index(run, load_config(run.config)))
        for shard in shards:
            assert shard.shard is not None
            member = find(shard)
            if member is None:
                self.open.append(shard.shard)
            else:
                self._held[member].append(shard.shard)

    @property
    def members(self) -> list[Member]:
        """What is to be passed over, in the order of the plan."""
        return list(self._held)

    @property
    def n_held(self) -> int:
        """Shards that wait."""
        return sum(map(len, self._held.values()))

    def release(self, member: Member) -> list[int]:
        """Give the shards that waited for a member."""
        return self._held.pop(member, [])


class _Finder:
    """Finds the member that a shard waits for, looking at each dataset once."""

    def __init__(self, plan: Plan, folder: Path) -> None:
        self._plan = plan
        self._folder = folder
        self._found: dict[tuple[int, str], Member | None] = {}
        self._are_npz: dict[int, bool] = {}

    def __call__(self, shard: Entry) -> Member | None:
        dataset = str(shard.dataset)
        if (shard.archive, dataset) not in self._found:
            self._found[shard.archive, dataset] = self._find(shard.archive, dataset)
        return self._found[shard.archive, dataset]

    def _find(self, archive: int, dataset: str) -> Member | None:
        reference = self._plan.archives[archive]
        if archive not in self._are_npz:
            self._are_npz[archive] = _needs_pass(reference.path, dataset)
        if not self._are_npz[archive] or reference.fingerprint is None:
            return None
        if read_note(self._folder, reference.fingerprint, dataset) is not None:
            return None
        return Member(reference.path, dataset, reference.fingerprint, self._folder)


def _needs_pass(path: str, dataset: str) -> bool:
    try:
        return needs_pass(path, dataset)
    except ArchiveError:
        return False  # gone, or another file by now: who computes it says so


@dataclass
class Passes:
    """How far the passes are, for people."""

    n_members: int
    n_done: int = 0

    def __post_init__(self) -> None:
        self._shares: dict[str, float] = {}
        self._finished: set[str] = set()

    def note(self, member: str, share: float) -> None:
        """Take up how far a pass is, 0 to 1."""
        # What a worker says may arrive behind its result.
        if member not in self._finished:
            self._shares[member] = share

    def finish(self, member: Member) -> None:
        """Take up the end of a pass."""
        self.n_done += 1
        self._finished.add(str(member))
        self._shares.pop(str(member), None)

    @property
    def is_done(self) -> bool:
        """Whether nothing is left to be passed over."""
        return self.n_done == self.n_members

    def lines(self) -> Iterator[str]:
        """Describe each pass that is under way."""
        for member, share in list(self._shares.items()):
            yield f"{member}: {100 * share:.0f} %"

    def __str__(self) -> str:
        under_way = ", ".join(self.lines())
        return f"passed over {self.n_done} of {self.n_members} npz members" + (
            f" ({under_way})" if under_way else ""
        )
