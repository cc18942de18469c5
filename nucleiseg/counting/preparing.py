"""All that is checked before a count begins: model, settings, archives, plan."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nucleiseg.atomic import read_json
from nucleiseg.bundle import BundleInfo, read_bundle, resolve_for_counting
from nucleiseg.cluster import expect_workers
from nucleiseg.config import Config, load_config
from nucleiseg.counting.label_names import check_labels
from nucleiseg.counting.scales import refuse_blocks
from nucleiseg.errors import RunError
from nucleiseg.runs import CountRun
from nucleiseg.shards import Plan, make_plan, read_plan
from nucleiseg.tables import check_notebook_format

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Prepared:
    """A count run before its first shard: all that can be checked is checked."""

    plan: Plan
    config: Config
    model: BundleInfo


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
    if bundle.is_outdated:
        logger.warning(
            "thresholds and confidence of %s are of an earlier version, for maps with "
            "more foreground between nuclei; nucleiseg tune chooses them anew",
            bundle.title,
        )
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
