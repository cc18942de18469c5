"""A planned count: shards to workers, one table, pictures."""

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from nucleiseg.atomic import read_json, write_json
from nucleiseg.cluster import (
    Passes,
    Team,
    Workers,
    open_team,
    plan_workers,
)
from nucleiseg.counting.claim import claim
from nucleiseg.counting.journal import Journal
from nucleiseg.counting.pictures import choose_pictures
from nucleiseg.counting.preparing import Prepared
from nucleiseg.counting.scales import note_scales
from nucleiseg.errors import IncompleteError, NucleisegError
from nucleiseg.inference import DatasetScale, ShardResult, read_compute
from nucleiseg.progress import Progress
from nucleiseg.provenance import describe_environment, timestamp
from nucleiseg.runs import CountRun
from nucleiseg.shards import Entry, Plan
from nucleiseg.tables import (
    Merged,
    TableFormat,
    find_missing,
    merge,
)

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class CountResult:
    """What a count run came to."""

    merged: Merged
    n_computed: int
    """Shards computed by this call; the others were there."""
    n_pictures: int
    scales: tuple[DatasetScale, ...] = ()
    """By how much images were enlarged, where the model has a diameter."""


def count(prepared: Prepared, folder: Path, *, workers: int | None) -> CountResult:
    """Count on this machine, or go on where an earlier call was interrupted.

    Parameters
    ----------
    prepared : Prepared
    folder : Path
        The run directory.
    workers : int or None
        Worker processes; None: `cluster.workers_per_gpu` a GPU, or one on a CPU; 0:
        none, in this process.

    Raises
    ------
    RunError
        The directory holds another run.
    IncompleteError
        Some shards could not be computed; the others are on disk, and the same
        command goes on with the rest.
    """
    plan, config = prepared.plan, prepared.config
    run = CountRun(folder.absolute())
    claim(run, plan, config, prepared.model)
    missing = find_missing(run, plan)
    workers_here = plan_workers(
        workers,
        device=config.inference.device,
        n_shards=len(missing),
        per_gpu=config.cluster.workers_per_gpu,
    )
    picks = choose_pictures(plan, config.table.pictures)
    if not missing:
        logger.info("all %d shards are there", len(plan.shards))
    journal = Journal(run)
    if not missing and not picks:
        return finish(run, prepared, journal)
    with open_team(run.root, plan.identity, workers_here) as team:
        if missing:
            logger.info("%s", _describe_workers(workers_here))
            compute(run, plan, missing, team, journal)
        # The table first: it does not wait for pictures.
        result = finish(run, prepared, journal, n_computed=len(missing))
        return replace(result, n_pictures=draw(team, picks))


def draw(team: Team, picks: Sequence[tuple[int, int]]) -> int:
    """Draw pictures; a table does not fail with them."""
    if not picks:
        return 0
    try:
        return team.draw(picks)
    except (OSError, ValueError, NucleisegError) as error:
        logger.error("no pictures: %s", error)
        return 0


def finish(
    run: CountRun, prepared: Prepared, journal: Journal, *, n_computed: int = 0
) -> CountResult:
    """Merge what all workers left."""
    journal.write("merging")
    merged = merge_run(run, prepared.plan, prepared.config.table.format)
    scales = note_scales(run, prepared.plan)
    journal.write("finished")
    return CountResult(merged, n_computed, 0, scales)


def merge_run(
    run: CountRun, plan: Plan, table_format: TableFormat, *, incomplete: bool = False
) -> Merged:
    """Merge the partial tables of a run into its table; see :func:`tables.merge`."""
    is_begun = plan.shards and (run.compute.exists() or not incomplete)
    merged = merge(
        run,
        plan,
        table_format,
        compute=read_compute(run).identity if is_begun else None,
        incomplete=incomplete,
    )
    if not incomplete:
        _note_outcome(run, merged)
    return merged


def _note_outcome(run: CountRun, merged: Merged) -> None:
    """Note in the manifest what the table holds, for `status`."""
    outcome = {
        "images": merged.n_images,
        "failed": merged.n_failed,
        "nuclei": merged.n_nuclei,
        "counted": merged.n_counted,
        "flagged": merged.n_flagged,
        "flags": merged.flags,
    }
    write_json(run.manifest, {**read_json(run.manifest), "outcome": outcome})


def compute(
    run: CountRun,
    plan: Plan,
    missing: Sequence[Entry],
    team: Team,
    journal: Journal,
) -> None:
    """Have a team compute what is missing.

    Raises
    ------
    IncompleteError
        Some shards could not be computed.
    """
    n_there = len(plan.shards) - len(missing)
    # A large image belongs to its first block.
    n_images = sum(shard.n_new_images for shard in missing)
    logger.info(
        "%d images in %d shard%s%s",
        n_images,
        len(missing),
        "s" * (len(missing) > 1),
        f" ({n_there} more are there)" if n_there else "",
    )
    start_s = time.monotonic()
    failed_images = 0
    journal.write("running")
    with Progress(
        plan.n_images, label="counting", unit="images", done=plan.n_images - n_images
    ) as progress:

        def on_done(result: ShardResult) -> None:
            nonlocal failed_images
            failed_images += result.n_failed
            note = f"{failed_images} failed" if failed_images else ""
            journal.add(result)
            journal.tick(team.n_workers)
            progress.update(result.n_images, note)

        def on_pass(passes: Passes) -> None:
            journal.note_passes(passes)
            journal.tick(team.n_workers)
            progress.update(0, "" if passes.is_done else str(passes))

        failures = team.compute(missing, on_done=on_done, on_pass=on_pass)
    seconds = time.monotonic() - start_s
    _record(run, n_images, seconds, team.n_workers)
    if failures:
        message = (
            f"{len(failures)} of {len(plan.shards)} shards could not be computed "
            f"({'; '.join(failures[:3])}); the others are kept in {run.root}: run the "
            "same command again"
        )
        journal.write("incomplete", error=message)
        raise IncompleteError(message)
    if team.was_stopped:
        return
    setting = read_compute(run)
    logger.info(
        "%d images in %.1f s: %.1f images/s on the %s in %s, loading the network "
        "included",
        n_images,
        seconds,
        n_images / seconds,
        setting.device.upper(),
        setting.precision,
    )


def _describe_workers(workers: Workers) -> str:
    cores = f"{workers.n_threads} core{'s' if workers.n_threads > 1 else ''}"
    if workers.count == 0:
        return f"in this process with {cores}"
    each = cores
    if workers.gpus:
        is_shared = len(set(workers.gpus)) < workers.count
        each = f"a share of a GPU and {cores}" if is_shared else "a GPU"
    return f"{workers.count} worker{'s' * (workers.count > 1)} with {each} each"


def _record(run: CountRun, n_images: int, seconds: float, n_workers: int) -> None:
    manifest = read_json(run.manifest)
    manifest.setdefault("calls", []).append(
        {
            "finished": timestamp(),
            "n_images": n_images,
            "seconds": round(seconds, 1),
            "workers": n_workers,
            "environment": describe_environment(),
        }
    )
    write_json(run.manifest, manifest)
