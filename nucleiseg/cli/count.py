"""``nucleiseg count``."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from nucleiseg.atomic import create_private
from nucleiseg.cli.exit_status import DONE, SOME_FAILED
from nucleiseg.cli.main import log_file
from nucleiseg.cli.site import load_settings, print_submitted, print_texts
from nucleiseg.config import Config
from nucleiseg.counting import CountResult, Prepared, count, prepare, refuse_others
from nucleiseg.errors import ConfigError
from nucleiseg.launching import preview_count, refuse_while_active, submit_count
from nucleiseg.runs import CountRun

# Datasets whose scale is printed.
_N_SCALES = 5


def run(options: argparse.Namespace, *, labels: bool = False) -> int:
    """Count, or say what would be counted; with label images for `segment`."""
    config = load_settings(options, options.config, _shorthands(options))
    if options.dry_run:
        prepared = _prepare(options, config, labels=labels)
        _print_plan(prepared, CountRun(options.run or Path("RUN")))
        if options.cluster == "slurm":
            print_texts(preview_count(prepared, options.run))
        return DONE
    if options.run is None:
        raise ConfigError(
            f"{options.command} needs --run DIR, the folder for table and partial "
            "tables (or --dry-run)"
        )
    if options.cluster is not None:
        prepared = _prepare(options, config, labels=labels)
        print_submitted(submit_count(prepared, options.run, options.cluster))
        return DONE
    refuse_while_active(CountRun(options.run).jobs)
    return count_and_report(
        options.archives,
        model=options.model,
        folder=options.run,
        config=config,
        workers=options.workers,
        labels=labels,
    )


def _prepare(options: argparse.Namespace, config: Config, *, labels: bool) -> Prepared:
    """Plan for the workers that there will be, here or on the cluster."""
    is_sent = options.cluster is not None
    return prepare(
        options.archives,
        options.model,
        config,
        folder=options.run,
        workers=config.cluster.n_workers if is_sent else options.workers,
        labels=labels,
    )


def count_and_report(
    archives: Sequence[str],
    *,
    model: str | Path | None,
    folder: Path,
    config: Config,
    workers: int | None,
    labels: bool = False,
) -> int:
    """Count into a run directory and print what came out.

    Returns
    -------
    int
        Exit status.
    """
    prepared = prepare(
        archives, model, config, folder=folder, workers=workers, labels=labels
    )
    # Before the log is opened in it.
    refuse_others(CountRun(folder), prepared.plan)
    create_private(folder)
    print(f"model     {prepared.model.title}")
    with log_file(folder / "logs" / "count.log"):
        result = count(prepared, folder, workers=workers)
    print_result(result, CountRun(folder))
    return SOME_FAILED if result.merged.n_failed else DONE


def _shorthands(options: argparse.Namespace) -> list[str]:
    """Write the options that stand for settings as settings."""
    settings = []
    if options.format is not None:
        settings.append(f"table.format={options.format}")
    if options.cluster is not None and options.workers is not None:
        settings.append(f"cluster.workers={options.workers}")
    if options.diameter is not None:
        settings.append(f"inference.diameter_px={options.diameter}")
    if options.pictures is not None:
        settings.append(f"table.pictures={options.pictures}")
    return settings


def _find_method(prepared: Prepared) -> str:
    method = prepared.config.instances.method
    if method != "auto":
        return method
    return "components" if prepared.model.model.head == "mask" else "watershed"


def _print_plan(prepared: Prepared, run: CountRun) -> None:
    plan, config = prepared.plan, prepared.config
    print(f"model      {prepared.model.title}")
    print(f"weights    SHA-256 {prepared.model.weights_sha256}")
    print(
        f"counting   {_find_method(prepared)} above {config.instances.threshold}, "
        f"at least {config.instances.min_area_px} px"
    )
    if config.instances.views > 1:
        print(
            f"views      the mean over {config.instances.views} of each image; "
            "instances.views=1 is faster and less accurate"
        )
    if (wanted_px := config.preprocess.diameter_px) is not None:
        print(f"scale      {_describe_scale(config, wanted_px)}")
    for share in plan.dataset_shares:
        height, width = share.image_shape
        print(
            f"dataset    {plan.archives[share.archive].name}:{share.dataset}  "
            f"{share.n_images} images of {height}x{width}, "
            f"{share.n_shards} shard{'s' * (share.n_shards != 1)}"
        )
    for entry in plan.unreadable:
        print(f"unreadable {plan.describe(entry)}: {entry.reason}")
    print(f"in all     {plan.n_images} images, {len(plan.shards)} shards")
    if plan.has_labels:
        print(f"labels     {run.labels()}")
        print(f"nuclei     {run.nuclei(config.table.format)}")


def _describe_scale(config: Config, wanted_px: float) -> str:
    given_px = config.inference.diameter_px
    known = f"given, {given_px:g} px" if given_px else "estimated for each dataset"
    return f"nuclei brought to the network's {wanted_px:g} px; their diameter: {known}"


def print_result(result: CountResult, run: CountRun) -> None:
    """Print what a count came to."""
    merged = result.merged
    print(
        f"{merged.n_images:,} images, {merged.n_nuclei:,} nuclei, "
        f"{merged.n_failed:,} failed"
    )
    flagged = describe_flags(merged.n_counted, merged.n_flagged, merged.flags)
    print(f"flagged   {flagged}")
    print(f"table     {run.root / merged.path.name}")
    for scale in result.scales[:_N_SCALES]:
        print(f"scale     {scale}")
    if (n_more := len(result.scales) - _N_SCALES) > 0:
        print(f"scale     and {n_more} more, see {run.manifest}")
    if merged.labels is not None:
        print(f"labels    {run.root / merged.labels.name}")
    if merged.nuclei is not None:
        print(f"nuclei    {run.root / merged.nuclei.name}")
    if result.n_pictures:
        print(f"pictures  {run.pictures} ({result.n_pictures})")
    for failure in merged.failures:
        print(f"failed    {failure}", file=sys.stderr)
    n_more = merged.n_failed - len(merged.failures)
    if n_more > 0:
        print(f"failed    and {n_more} more, see the table", file=sys.stderr)


def describe_flags(n_counted: int, n_flagged: int, flags: dict[str, int]) -> str:
    """Say how many images have flags, and which."""
    share = f" ({100 * n_flagged / n_counted:.1f} %)" if n_flagged else ""
    each = ", ".join(f"{name} {n_images:,}" for name, n_images in flags.items())
    return f"{n_flagged:,} of {n_counted:,} images{share}{': ' * bool(each)}{each}"
