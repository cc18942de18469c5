"""A run's workers: shards to them, results from them."""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

from nucleiseg.archives import Member, MemberNote
from nucleiseg.cluster.passes import Gate, Passes
from nucleiseg.cluster.task import compute_or_explain, draw, pass_or_explain
from nucleiseg.errors import NucleisegError
from nucleiseg.inference import ShardResult
from nucleiseg.shards import Entry

logger = logging.getLogger(__name__)


def ignore_passes(passes: Passes) -> None:
    """Tell nobody how far the passes are."""


class Team:
    """Workers that are ready for one run; use :func:`dask_team.open_team`.

    Parameters
    ----------
    root : Path
        The run directory.
    plan : str
        Identity of its plan.
    n_threads : int or None
        Cores that may be kept busy; None: each worker knows for itself.
    """

    def __init__(self, root: Path, plan: str, n_threads: int | None = None) -> None:
        self._root = root
        self._plan = plan
        self._n_threads = n_threads

    @property
    def n_workers(self) -> int:
        """Workers in processes of their own that are there now."""
        return 0

    @property
    def was_stopped(self) -> bool:
        """Whether it handed out nothing more before all was done."""
        return False

    def compute(
        self,
        shards: Sequence[Entry],
        *,
        on_done: Callable[[ShardResult], None],
        on_pass: Callable[[Passes], None] = ignore_passes,
    ) -> list[str]:
        """Compute shards, each once as far as the run directory is concerned.

        Parameters
        ----------
        shards : sequence of Entry
            What is missing.
        on_done : callable
            Told of every finished shard.
        on_pass : callable
            Told how far the passes over npz members are, which come first.

        Returns
        -------
        list of str
            A line for each shard that could not be computed; the others are done.

        Raises
        ------
        NucleisegError
            None can be computed: the model, the run directory or the device is wrong.
        """
        failures: list[str] = []
        n_done = 0
        self._make_passes(Gate(self._root, shards).members, on_pass)
        for number in _numbers(shards):
            outcome = compute_or_explain(
                self._root, self._plan, number, self._n_threads
            ).outcome
            if isinstance(outcome, ShardResult):
                on_done(outcome)
                n_done += 1
                continue
            assert isinstance(outcome, NucleisegError)
            if not n_done:
                raise outcome
            failures.append(f"shard {number}: {outcome}")
        return failures

    def _make_passes(
        self, members: Sequence[Member], on_pass: Callable[[Passes], None]
    ) -> None:
        passes = Passes(len(members))

        def note(member: str, share: float) -> None:
            passes.note(member, share)
            on_pass(passes)

        for member in members:
            report = pass_or_explain(
                self._root, self._plan, member, self._n_threads, note
            )
            passes.finish(member)
            log_pass(member, report.outcome)
            on_pass(passes)

    def draw(self, picks: Sequence[tuple[int, int]]) -> int:
        """Draw pictures; see :func:`nucleiseg.inference.draw_pictures`."""
        return draw(self._root, self._plan, picks, self._n_threads)


def _numbers(shards: Sequence[Entry]) -> list[int]:
    return [shard.shard for shard in shards if shard.shard is not None]


def log_pass(member: Member, outcome: object) -> None:
    """Say what came of a pass; what could not be done is done by who needs it."""
    if isinstance(outcome, NucleisegError):
        logger.warning("%s was not passed over: %s", member, outcome)
    elif isinstance(outcome, MemberNote) and outcome.damage is not None:
        logger.warning("%s is damaged: %s", member, outcome.damage)
