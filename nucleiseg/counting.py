"""A count run: plan on disk, shards to workers, one table, pictures."""

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nucleiseg.archives import find_images, split_name
from nucleiseg.bundle import BundleInfo, read_bundle, resolve_for_counting
from nucleiseg.cluster import Team, Workers, open_team, plan_workers
from nucleiseg.config import Config, load_config
from nucleiseg.errors import ArchiveError, IncompleteError, RunError
from nucleiseg.inference import ShardResult, read_compute
from nucleiseg.progress import Progress
from nucleiseg.provenance import describe_environment, timestamp
from nucleiseg.runs import (
    CountRun,
    create_private,
    read_json,
    remove_temporaries,
    write_json,
    write_text,
)
from nucleiseg.shards import (
    Entry,
    Plan,
    explain_difference,
    make_plan,
    read_plan,
    write_plan,
)
from nucleiseg.tables import Merged, check_notebook_format, find_missing, merge

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


def prepare(inputs: Sequence[str], model: Path, config: Config) -> Prepared:
    """Check model, configuration and archives, and plan; write nothing.

    Parameters
    ----------
    inputs : sequence of str
        Each `ARCHIVE` or `ARCHIVE:KEY`.
    model : Path
        The model bundle.
    config : Config

    Raises
    ------
    BundleError, RunError
        The model cannot be used, no input can be read, or the table's format does
        not fit the inputs.
    """
    bundle = read_bundle(model.absolute())
    resolved = resolve_for_counting(config, bundle)
    plan = make_plan(inputs, resolved, bundle)
    if not plan.datasets:
        reasons = "; ".join(
            f"{plan.describe(entry)}: {entry.reason}" for entry in plan.unreadable
        )
        raise RunError(f"nothing to count: {reasons or 'the archives hold no images'}")
    if resolved.table.format == "notebook":
        check_notebook_format(plan)
    return Prepared(plan, resolved, bundle)


def count(prepared: Prepared, folder: Path, *, workers: int | None) -> CountResult:
    """Count, or go on where an earlier call was interrupted.

    Parameters
    ----------
    prepared : Prepared
    folder : Path
        The run directory.
    workers : int or None
        Worker processes; None: one a GPU, or one on a CPU; 0: none, in this process.

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
    workers_here = plan_workers(workers, device=config.inference.device)
    _claim(run, prepared)
    missing = find_missing(run, plan)
    picks = choose_pictures(plan, config.table.pictures)
    if not missing:
        logger.info("all %d shards are there", len(plan.shards))
    if not missing and not picks:
        return CountResult(_merge(run, prepared), 0, 0)
    with open_team(run.root, workers_here, n_shards=len(missing)) as team:
        if missing:
            _compute(run, plan, missing, team, workers_here)
        merged = _merge(run, prepared)
        n_pictures = team.draw(picks) if picks else 0
    return CountResult(merged, len(missing), n_pictures)


def _merge(run: CountRun, prepared: Prepared) -> Merged:
    return merge(
        run,
        prepared.plan,
        prepared.config.table.format,
        compute=read_compute(run).identity if prepared.plan.shards else None,
    )


def find_test_input(config: Config) -> str | None:
    """Find the archive to count after a training (notebook steps N8 to N10).

    Returns
    -------
    str or None
        ``ARCHIVE[:KEY]``, with a relative path completed by the folder of
        `data.archive`; None where none is configured.

    Raises
    ------
    ArchiveError
        It cannot be read: better now than after hours of training.
    """
    if config.data.test_archive is None or config.data.archive is None:
        return None
    path, key = split_name(config.data.test_archive)
    beside = Path(config.data.archive).parent / config.data.test_archive
    if not path.is_absolute():
        path, key = split_name(str(beside))
    try:
        find_images(path, key)
    except ArchiveError as error:
        raise ArchiveError(
            f"{error} (data.test_archive, to be counted after the training; set it to "
            "null to train only)"
        ) from error
    return str(path) if key is None else f"{path}:{key}"


def _claim(run: CountRun, prepared: Prepared) -> None:
    """Make the run directory, the plan last, or check that it is this run's."""
    create_private(run.root)
    for folder in (run.parts, run.logs):
        create_private(folder)
    for folder in (run.root, run.parts):
        remove_temporaries(folder)
    if run.plan.exists():
        before = read_plan(run.plan)
        if before.identity != prepared.plan.identity:
            raise RunError(
                f"{run.root} holds another run: "
                f"{explain_difference(before, prepared.plan)}; use another --run, or "
                "the archives and settings it began with"
            )
        saved = load_config(run.config)
        logger.info("going on with %s", run.root)
        # The table's format and pictures may differ from call to call.
        config = saved.model_copy(update={"table": prepared.config.table})
        write_text(run.config, config.to_yaml())
        return
    write_text(run.config, prepared.config.to_yaml())
    write_json(
        run.manifest,
        {
            "environment": describe_environment(),
            "model": str(prepared.model.paths.root),
            "model_sha256": prepared.model.weights_sha256,
            "started": timestamp(),
        },
    )
    write_plan(run.plan, prepared.plan)


def _compute(
    run: CountRun, plan: Plan, missing: Sequence[Entry], team: Team, workers: Workers
) -> None:
    n_there = len(plan.shards) - len(missing)
    n_images = sum(shard.n_images for shard in missing)
    logger.info(
        "%d images in %d shards%s, %s",
        n_images,
        len(missing),
        f" ({n_there} more are there)" if n_there else "",
        _describe_workers(workers, len(missing)),
    )
    start_s = time.monotonic()
    failed_images = 0
    with Progress(
        plan.n_images, label="counting", unit="images", done=plan.n_images - n_images
    ) as progress:

        def on_done(result: ShardResult) -> None:
            nonlocal failed_images
            failed_images += result.n_failed
            note = f"{failed_images} failed" if failed_images else ""
            progress.update(result.n_images, note)

        failures = team.compute(missing, on_done=on_done)
    seconds = time.monotonic() - start_s
    _record(run, n_images, seconds, workers)
    if failures:
        raise IncompleteError(
            f"{len(failures)} of {len(plan.shards)} shards could not be computed "
            f"({'; '.join(failures[:3])}); the others are kept in {run.root}: run the "
            "same command again"
        )
    logger.info(
        "%d images in %.1f s: %.1f images/s, loading the network included",
        n_images,
        seconds,
        n_images / seconds,
    )


def _describe_workers(workers: Workers, n_shards: int) -> str:
    cores = f"{workers.n_threads} core{'s' if workers.n_threads > 1 else ''}"
    if workers.count == 0:
        return f"in this process with {cores}"
    count = min(workers.count, n_shards)
    each = "a GPU" if workers.gpus else cores
    return f"{count} worker{'s' if count > 1 else ''} with {each} each"


def _record(run: CountRun, n_images: int, seconds: float, workers: Workers) -> None:
    manifest = read_json(run.manifest)
    manifest.setdefault("calls", []).append(
        {
            "finished": timestamp(),
            "n_images": n_images,
            "seconds": round(seconds, 1),
            "workers": workers.count,
            "environment": describe_environment(),
        }
    )
    write_json(run.manifest, manifest)


def choose_pictures(plan: Plan, n_pictures: int) -> list[tuple[int, int]]:
    """Choose images to draw, evenly over the run.

    Returns
    -------
    list of (shard, index)
        Index of the image in its dataset; fewer than asked for where the run has
        fewer images.
    """
    n_pictures = min(n_pictures, plan.n_images)
    wanted = [
        (2 * number + 1) * plan.n_images // (2 * n_pictures)
        for number in range(n_pictures)
    ]
    picks: list[tuple[int, int]] = []
    first = 0
    for shard in plan.shards:
        assert shard.shard is not None
        picks += [
            (shard.shard, shard.start + position - first)
            for position in wanted
            if first <= position < first + shard.n_images
        ]
        first += shard.n_images
    return picks
