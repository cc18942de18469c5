"""How far a count is."""

import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nucleiseg.atomic import read_json
from nucleiseg.attempts import Attempts
from nucleiseg.cluster import is_cancelled
from nucleiseg.errors import RunError
from nucleiseg.inference import read_scales
from nucleiseg.monitoring.jobs import JobsStatus, read_jobs_status
from nucleiseg.runs import CountRun
from nucleiseg.shards import Entries, Plan, read_plan
from nucleiseg.tables import find_done

# A count in place writes its progress after each shard, which may take minutes.
_SILENT_S = 900.0
# Datasets whose scale is read: each is a file.
_MOST_SCALES = 20


@dataclass(frozen=True)
class CountStatus:
    """How far a count is."""

    root: str
    state: str
    """planned, submitted, running, stopped, merging, finished, incomplete, failed,
    cancelled, or interrupted: it says that it runs, and nobody does."""
    n_shards: int
    n_done: int
    n_running: int
    n_with_failures: int
    """Finished shards with failed images."""
    n_images: int
    n_images_done: int
    n_images_failed: int
    n_unreadable: int
    """Inputs that could not be read at all."""
    n_workers: int
    images_per_s: float | None
    """Of the last minutes; None where nobody computes."""
    eta_s: float | None
    running: list[str]
    """Shards that are being computed: by whom, since when."""
    troubled: list[str]
    """Shards that have killed workers, and are not done."""
    error: str | None
    """Why the run ended before its time."""
    table: str | None
    """The table, where it is there and complete."""
    outcome: dict[str, Any] | None
    """What the table holds: images, failed, nuclei, counted, flagged, and the images
    with each of the flags; None where it is not there."""
    labels: str | None
    """The file of label images, where they are made and it is complete."""
    nuclei: str | None
    """The table of nuclei, likewise."""
    stages: dict[str, Any] | None
    """Where the workers' time went, see :class:`nucleiseg.inference.StageTimes`; None
    before the first shard."""
    passes: str | None
    """How far the passes over npz members are; None where there are none left."""
    scales: list[str]
    """By how much images are enlarged for the network, of the first datasets."""
    jobs: JobsStatus


def read_count_status(root: Path, *, now_s: float) -> CountStatus:
    """Read how far a count is.

    Parameters
    ----------
    root : Path
        The run directory.
    now_s : float
        Seconds since the epoch.

    Raises
    ------
    RunError
        It is no count run's directory.
    """
    run = CountRun(root)
    plan = read_plan(run.plan)
    progress = read_json(run.jobs.progress) if run.jobs.progress.exists() else {}
    jobs = read_jobs_status(run.jobs, now_s=now_s)
    is_done = find_done(run, plan)
    done = set(np.flatnonzero(is_done).tolist())
    n_images = plan.n_images
    n_images_done = _count_whole_images(plan.shards, is_done)
    failed = sorted(_list_notes(run.failures) & done)
    state = _state(run, progress, jobs, now_s)
    if state == "finished" and len(done) < len(plan.shards):
        state = "incomplete"  # somebody took partial tables away
    is_moving = state in ("running", "stopped")
    rate = float(progress.get("images_per_s", 0)) if is_moving else 0.0
    attempts = Attempts(run)
    running = [
        f"shard {entry.shard} by {entry.worker} on {entry.host} since {entry.since}"
        for entry in attempts.running()
        if entry.shard not in done and is_moving
    ]
    table = run.find_table() if state == "finished" else None
    nuclei = run.nuclei(table.suffix[1:]) if table and plan.has_nuclei else None
    return CountStatus(
        root=str(root),
        state=state,
        n_shards=len(plan.shards),
        n_done=len(done),
        n_running=len(running),
        n_with_failures=len(failed),
        n_images=n_images,
        n_images_done=n_images_done,
        n_images_failed=_count_failed_images(run, plan.shards, failed),
        n_unreadable=len(plan.unreadable),
        n_workers=int(progress.get("n_workers", 0)) if is_moving else 0,
        images_per_s=rate or None,
        eta_s=(n_images - n_images_done) / rate if rate else None,
        running=running,
        troubled=_describe_troubled(run, plan, attempts, done),
        error=progress.get("error"),
        table=str(table) if table else None,
        outcome=read_json(run.manifest).get("outcome") if table else None,
        labels=str(run.labels()) if table and plan.has_labels else None,
        nuclei=str(nuclei) if nuclei else None,
        stages=_find_stages(progress),
        passes=progress.get("passes") if is_moving else None,
        scales=[str(scale) for scale in read_scales(run, plan, most=_MOST_SCALES)],
        jobs=jobs,
    )


def _find_stages(progress: dict[str, Any]) -> dict[str, Any] | None:
    stages: dict[str, Any] | None = progress.get("stages")
    return stages if stages and stages["n_images"] else None


def _count_whole_images(shards: Entries, is_done: NDArray[np.bool_]) -> int:
    """Count images of finished shards; a large one when all its blocks are."""
    # A block belongs to the image that the last first block before it began.
    n_new = shards.n_new_images
    starts = np.flatnonzero(n_new)
    if not len(starts):
        return 0
    is_whole = np.logical_and.reduceat(is_done, starts)
    return int(n_new[starts][is_whole].sum())


def _list_notes(folder: Path) -> set[int]:
    """Numbers of shards with a note on failures: one listing, no file opened."""
    if not folder.is_dir():
        return set()
    names = [entry.name.partition(".") for entry in os.scandir(folder)]
    return {int(stem) for stem, _, end in names if stem.isdecimal() and end == "json"}


def _count_failed_images(run: CountRun, shards: Entries, failed: Sequence[int]) -> int:
    """Sum up notes on failures; a large image fails once, whatever its blocks."""
    n_failed = 0
    large = set()
    for number in failed:
        shard = shards[number]
        if shard.block is not None:
            large.add((shard.archive, shard.dataset, shard.start))
        else:
            n_failed += int(read_json(run.failure(number))["n_failed"])
    return n_failed + len(large)


def _state(
    run: CountRun, progress: dict[str, Any], jobs: JobsStatus, now_s: float
) -> str:
    if not progress:
        return "planned"
    state = str(progress["state"])
    if state in ("finished", "incomplete", "failed"):
        return state
    if is_cancelled(run.jobs):
        return "cancelled"
    if jobs.n_active or _is_alive(progress, now_s, is_on_cluster=bool(jobs.submitted)):
        return state
    return "interrupted"


def _is_alive(progress: dict[str, Any], now_s: float, *, is_on_cluster: bool) -> bool:
    """Whether the process that wrote the progress is still there."""
    if progress["host"] == socket.gethostname() and not is_on_cluster:
        return Path("/proc", str(progress["pid"])).exists()
    return now_s - float(progress["updated_s"]) < (60 if is_on_cluster else _SILENT_S)


def _describe_troubled(
    run: CountRun, plan: Plan, attempts: Attempts, done: set[int]
) -> list[str]:
    folders = [] if not run.attempts.is_dir() else sorted(run.attempts.iterdir())
    lines = []
    for number in (int(f.name) for f in folders if f.name.isdecimal()):
        if number in done or number >= len(plan.shards):
            continue
        deaths = attempts.history(number).deaths
        n_deaths = sum(map(len, deaths.values()))
        if n_deaths:
            causes = sorted({cause for found in deaths.values() for cause in found})
            lines.append(
                f"shard {number} ({plan.describe(plan.shards[number])}) has killed "
                f"{n_deaths} worker{'s' * (n_deaths > 1)}: {', '.join(causes)}"
            )
    return lines


def is_count(root: Path) -> bool:
    """Whether a directory is that of a count."""
    return CountRun(root).plan.exists()


def refuse_unknown(root: Path) -> None:
    """Refuse a directory that is no run's.

    Raises
    ------
    RunError
        It has neither a plan nor a training's manifest.
    """
    if not root.is_dir():
        raise RunError(f"{root} is no directory; name that of a run")
    raise RunError(
        f"{root} is no run's directory: it holds neither plan.parquet (count) nor "
        "manifest.json and config.yaml (train)"
    )
