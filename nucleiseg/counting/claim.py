"""Whose run directory it is: the plan is written first, and nothing is overwritten."""

import itertools
import logging
import shutil
from pathlib import Path

from nucleiseg.atomic import (
    create_private,
    read_json,
    remove_temporaries,
    write_json,
    write_text,
)
from nucleiseg.bundle import BundleInfo
from nucleiseg.config import Config
from nucleiseg.errors import RunError
from nucleiseg.provenance import describe_environment, timestamp
from nucleiseg.runs import CountRun
from nucleiseg.shards import Plan, explain_difference, read_plan, write_plan

logger = logging.getLogger(__name__)


def claim(run: CountRun, plan: Plan, config: Config, model: BundleInfo) -> None:
    """Make a run directory, or check that it is this run's.

    A run that has not computed anything yet may be planned anew.

    Raises
    ------
    RunError
        The directory holds another run, or files that no count run made.
    """
    refuse_others(run, plan)
    create_private(run.root)
    for folder in (run.parts, run.logs):
        create_private(folder)
    for folder in (run.root, run.parts, run.index, run.scales):
        remove_temporaries(folder)
    if run.plan.exists() and read_plan(run.plan).identity == plan.identity:
        logger.info("going on with %s", run.root)
    else:
        run.compute.unlink(missing_ok=True)
        run.manifest.unlink(missing_ok=True)
        # Deaths at shards of the plan before, which were other images, and what was
        # found with another network or normalisation.
        for folder in (run.attempts, run.scales, run.ranges):
            shutil.rmtree(folder, ignore_errors=True)
        run.root.chmod(0o700)
        write_plan(run.plan, plan)
    # Whatever binds is in the plan; formats, pictures and the place of the model may
    # differ from call to call.
    write_text(run.config, config.to_yaml())
    manifest = {
        "environment": describe_environment(),
        "started": timestamp(),
        "model_sha256": model.weights_sha256,
    }
    if run.manifest.exists():
        manifest = read_json(run.manifest)
    write_json(run.manifest, {**manifest, "model": model.reference})
    run.jobs.cancelled.unlink(missing_ok=True)


def refuse_others(run: CountRun, plan: Plan) -> None:
    """Refuse a directory that is not this run's, and write nothing.

    Raises
    ------
    RunError
        It holds another run, or files that no count run made.
    """
    if run.plan.exists():
        before = read_plan(run.plan)
        if before.identity != plan.identity and _find_results(run) is not None:
            raise RunError(
                f"{run.root} holds another run: {explain_difference(before, plan)}; "
                "use another --run, or the archives and settings it began with"
            )
        return
    ours = [run.config, run.manifest, run.compute]
    ours += [run.table(name) for name in ("csv", "parquet", "notebook")]
    ours += [run.labels(), *_list_nuclei(run)]
    there = [path.name for path in ours if path.exists()]
    if (result := _find_results(run)) is not None:
        there.append(result.name)
    if there:
        raise RunError(
            f"{run.root} holds {', '.join(there)} and no plan of a count run; use "
            "another --run"
        )


def _list_nuclei(run: CountRun) -> list[Path]:
    return [run.nuclei(name) for name in ("csv", "parquet")]


def _find_results(run: CountRun) -> Path | None:
    """Find any file with rows of shards, with label images or with nuclei."""
    results = itertools.chain(
        run.parts.glob("[!.]*"),
        # A shard that is done in part has its rows elsewhere until it is whole.
        run.attempts.glob("[0-9]*/rows-*.parquet"),
        # Of another plan they would stay beside its table.
        *(run.root.glob(path.name) for path in (run.labels(), *_list_nuclei(run))),
    )
    return next(results, None)
