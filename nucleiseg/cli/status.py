"""``nucleiseg status``."""

import argparse
import json
import math
import time
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from nucleiseg.cli.count import describe_flags
from nucleiseg.cli.exit_status import DONE
from nucleiseg.cli.site import quote
from nucleiseg.monitoring import CountStatus, JobsStatus, TrainStatus, read_status

_N_EXAMPLES = 5
# Of the time that the network may wait and still be what the rest waits for.
_WAITING_SHARE = 0.15

_ADVICE = {
    "planned": "nothing was started; start it with the command that planned it",
    "interrupted": "it says that it runs, and nobody does: the same command goes on",
    "incomplete": "mend the error, then: nucleiseg retry {root}",
    "failed": "mend the error, then the same command goes on",
    "cancelled": "the same command goes on, here or with --cluster",
}


def run(options: argparse.Namespace) -> int:
    """Say how far a run is."""
    status = read_status(options.run, now_s=time.time())
    if options.as_json:
        print(json.dumps(asdict(status), indent=2))
        return DONE
    lines = (
        _describe_count(status)
        if isinstance(status, CountStatus)
        else (_describe_training(status))
    )
    for name, text in [*lines, *_describe_jobs(status.jobs)]:
        print(f"{name:<11}{text}")
    if advice := _ADVICE.get(status.state):
        print(f"{'next':<11}{advice.format(root=quote(options.run))}")
    return DONE


def _describe_count(status: CountStatus) -> Iterator[tuple[str, str]]:
    yield "run", f"{status.root} (count)"
    yield "state", status.state
    share = 100 * status.n_images_done / status.n_images if status.n_images else 100
    yield (
        "shards",
        f"{status.n_done:,} of {status.n_shards:,} done, {status.n_running:,} running, "
        f"{status.n_with_failures:,} with failed images",
    )
    yield (
        "images",
        f"{status.n_images_done:,} of {status.n_images:,} counted ({share:.0f} %), "
        f"{status.n_images_failed:,} failed"
        + (f", {status.n_unreadable} inputs unreadable" if status.n_unreadable else ""),
    )
    if status.passes is not None:
        yield "index", status.passes
    if status.images_per_s is not None and status.eta_s is not None:
        yield (
            "speed",
            f"{status.images_per_s:.1f} images/s, {_clock(status.eta_s)} left",
        )
    if status.stages is not None:
        yield "cost", _describe_cost(status.stages)
        yield "", _describe_bottleneck(status.stages)
    if status.n_workers:
        yield "workers", f"{status.n_workers} with the coordinator"
    yield from _some("scale", status.scales)
    yield from _some("computing", status.running)
    yield from _some("trouble", status.troubled)
    if status.error:
        yield "error", status.error
    if status.outcome is not None:
        outcome = status.outcome
        yield (
            "flagged",
            describe_flags(outcome["counted"], outcome["flagged"], outcome["flags"]),
        )
    if status.table:
        yield "table", status.table
    if status.labels:
        yield "labels", status.labels
    if status.nuclei:
        yield "nuclei", status.nuclei


def _describe_cost(stages: dict[str, Any]) -> str:
    parts = (f"{name} {ms:.2f}" for name, ms in stages["core_ms"].items())
    return f"core milliseconds an image: {', '.join(parts)}"


def _describe_bottleneck(stages: dict[str, Any]) -> str:
    """Say which stage the others wait for."""
    wall_s = stages["wall_s"] or math.inf
    waited = stages["network_waited_s"] / wall_s
    # Runs of before do not know it.
    blocked = stages.get("network_blocked_s", 0.0) / wall_s
    share = waited + blocked
    if share < _WAITING_SHARE:
        return (
            f"the network is the bottleneck: it waited {100 * share:.0f} % of the time"
        )
    core_ms = stages["core_ms"]
    slower = max(("read", "normalise"), key=lambda name: float(core_ms[name]))
    doing = {"read": "reading the archives", "normalise": "normalising the images"}
    what = doing[slower] if waited >= blocked else "labelling the nuclei"
    return (
        f"{what} is the bottleneck: the network waited {100 * share:.0f} % of the time"
    )


def _describe_training(status: TrainStatus) -> Iterator[tuple[str, str]]:
    yield "run", f"{status.root} (train)"
    yield "state", status.state
    yield "epochs", f"{status.n_done} of {status.epochs} done"
    if status.val_loss is not None and status.best_val_loss is not None:
        yield (
            "loss",
            f"validation {status.val_loss:.4f}, best {status.best_val_loss:.4f} after "
            f"epoch {status.best_epoch}",
        )
    if status.epoch_s is not None:
        left = "" if status.eta_s is None else f", {_clock(status.eta_s)} left"
        yield "speed", f"{status.epoch_s:.0f} s an epoch{left}"
    if status.model:
        yield "model", status.model


def _describe_jobs(jobs: JobsStatus) -> Iterator[tuple[str, str]]:
    if not jobs.submitted:
        return
    yield "jobs", ", ".join(jobs.submitted)
    for role, states in jobs.states.items():
        counts = ", ".join(f"{number} {state}" for state, number in states.items())
        yield "", f"{role}: {counts}"
    yield from _some("devices", jobs.devices)
    yield (
        "restarts",
        f"{jobs.restarts} by SLURM, {jobs.deaths} of processes that died",
    )
    if jobs.last_error:
        yield "last error", jobs.last_error
    if jobs.queue_error:
        yield "note", f"states as the jobs last said: {jobs.queue_error}"


def _some(name: str, lines: list[str]) -> Iterator[tuple[str, str]]:
    for line in lines[:_N_EXAMPLES]:
        yield name, line
        name = ""
    if len(lines) > _N_EXAMPLES:
        yield "", f"and {len(lines) - _N_EXAMPLES} more"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}"
