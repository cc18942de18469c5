"""A count run: plan on disk, shards to workers, one table, pictures."""

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from nucleiseg.atomic import read_json, write_json
from nucleiseg.bundle import BundleInfo, read_bundle, resolve_for_counting
from nucleiseg.cluster import (
    Passes,
    Team,
    Workers,
    expect_workers,
    open_team,
    plan_workers,
)
from nucleiseg.config import Config, load_config
from nucleiseg.counting.claim import claim
from nucleiseg.counting.journal import Journal
from nucleiseg.counting.label_names import check_labels
from nucleiseg.counting.pictures import choose_pictures
from nucleiseg.counting.scales import note_scales, refuse_blocks
from nucleiseg.errors import IncompleteError, NucleisegError, RunError
from nucleiseg.inference import DatasetScale, ShardResult, read_compute
from nucleiseg.progress import Progress
from nucleiseg.provenance import describe_environment, timestamp
from nucleiseg.runs import CountRun
from nucleiseg.shards import Entry, Plan, make_plan, read_plan
from nucleiseg.tables import (
    Merged,
    TableFormat,
    check_notebook_format,
    find_missing,
    merge,
)

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Prepared:
    """A count run before its first shard: all that can be checked is checked."""

    plan: Plan
    config: Config
    model: BundleInfo


@dataclass(frozen=True)
class CountResult:
    """What a count run came to."""

    merged: Merged
    n_computed: int
    """Shards computed by this call; the others were there."""
    n_pictures: int
    scales: tuple[DatasetScale, ...] = ()
    """By how much images were enlarged, where the model has a diameter."""


def prepare(
    inputs: Sequence[str],
    model: str | Path | None,
    config: Config,
    *,
    folder: Path | None = None,
    workers: int | None = None,
    labels: bool = False,
) -> Prepared:
    """Check model, configuration and archives, and plan; write nothing.

    Parameters
    ----------
    inputs : sequence of str
        Each `ARCHIVE` or `ARCHIVE:KEY`.
    model : str, Path or None
        The model bundle; see :func:`nucleiseg.bundle.read_bundle`.
    config : Config
    folder : Path, optional
        The run directory. If a run was planned in it before, its size of shards is
        kept, however many workers there are now.
    workers : int, optional
        Workers that are expected, for the size of shards; None: as many as
        :func:`count` would start here.
    labels : bool
        Whether label images are made, too.

    Raises
    ------
    BundleError, RunError
        The model cannot be used, no input can be read, or the table's format, one
        file of label images or the nuclei's diameter does not fit the inputs.
    """
    bundle = read_bundle(model)
    resolved = _resolve_index(resolve_for_counting(config, bundle))
    n_workers, device = expect_workers(
        workers,
        device=config.inference.device,
        per_gpu=config.cluster.workers_per_gpu,
    )
    plan = make_plan(
        inputs,
        resolved,
        bundle,
        n_workers=n_workers,
        device=device,
        shard_pixels=_find_shard_pixels(folder, labels=labels),
        labels=labels,
    )
    reasons = [
        f"{plan.archives[entry.archive].path}"
        f"{'' if entry.dataset is None else ':' + entry.dataset}: {entry.reason}"
        for entry in plan.unreadable
    ]
    if not plan.datasets:
        empty = f"{', '.join(inputs)} hold no images"
        raise RunError(f"nothing to count: {'; '.join(reasons) or empty}")
    refuse_blocks(plan, resolved)
    if resolved.table.format == "notebook":
        check_notebook_format(plan)
    check_labels(plan)
    for reason in reasons:
        logger.warning("%s", reason)
    return Prepared(plan, resolved, bundle)


def _resolve_index(config: Config) -> Config:
    """Make the folder of seek points one that workers find from anywhere."""
    if config.shards.index is None:
        return config
    index = str(Path(config.shards.index).absolute())
    shards = config.shards.model_copy(update={"index": index})
    return config.model_copy(update={"shards": shards})


def _find_shard_pixels(folder: Path | None, *, labels: bool) -> int | None:
    """Find the size of shards that a run like this was planned with before."""
    if folder is None or not CountRun(folder).plan.exists():
        return None
    before = read_plan(CountRun(folder).plan)
    return before.shard_pixels if before.has_labels == labels else None


def reopen(run: CountRun) -> Prepared:
    """Take a planned run from its directory.

    Raises
    ------
    RunError, BundleError
        It is no count run's directory, or its model is gone.
    """
    plan = read_plan(run.plan)
    model = read_json(run.manifest)["model"]
    return Prepared(plan, load_config(run.config), read_bundle(model))


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
