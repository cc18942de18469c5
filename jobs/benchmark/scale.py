"""Images a second of one worker and of several, each with cores of its own.

    python -m jobs.benchmark scale [--workers 1 2] [--cores-per-worker 1] [--rounds 3]

A count with n workers gets n times the cores, and no more: what hands out the work
shares them. The rate is that of partial tables, from when each worker had time to
finish one to the last, so that waiting between shards is seen; beside it stands what
the workers' own clocks say. On GPUs each worker has one.
"""

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

from jobs.benchmark import counted
from jobs.benchmark.archives import DTYPES, FORMS, find_crops, make_stack
from jobs.benchmark.counted import Counted
from jobs.benchmark.measuring import (
    describe_machine,
    middle,
    print_table,
    say,
    warn_if_busy,
)
from jobs.benchmark.models import add_material, find_models, open_folder
from nucleiseg.devices import available_cores

# Of one worker's rate, a worker.
_WANTED_EACH = 0.95
# So that what begins and ends at a shard is little of the whole.
_SHARDS_PER_WORKER = 12


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--base-filters", type=int, default=16)
    parser.add_argument("--workers", type=int, nargs="+", help="default: 1, 2, 4, …")
    parser.add_argument("--cores-per-worker", type=int, default=1)
    parser.add_argument(
        "--images", type=int, default=4096, help="for each worker (%(default)s)"
    )
    parser.add_argument("--format", choices=FORMS, default="deflated")
    parser.add_argument("--dtype", choices=DTYPES, default="uint8")
    parser.add_argument("--rounds", type=int, default=3)
    add_material(parser)


def run(options: argparse.Namespace) -> int:
    """Measure, and print a table and JSON."""
    machine = describe_machine()
    warn_if_busy(machine)
    workers = options.workers or _powers_of_two(
        available_cores() // options.cores_per_worker
    )
    counts: dict[int, list[Counted]] = {n: [] for n in workers}
    with open_folder(options) as name:
        folder = Path(name)
        (model, *_) = find_models(options, [options.base_filters], folder).values()
        with tempfile.TemporaryDirectory(prefix="runs-", dir=folder) as runs:
            for number in range(options.rounds):
                for n_workers in workers:
                    say(f"round {number + 1} of {options.rounds}: {n_workers} workers")
                    root = Path(runs) / f"{number}-{n_workers}"
                    counts[n_workers].append(
                        _count(options, folder, model, root, n_workers)
                    )
            rows = _summarise(counts)
    keys = ["workers", "images_per_s", "images_per_s_by_clocks", "gain"]
    keys += ["wanted_gain", "all_peak_mb"]
    print_table(keys, [[row[key] for key in keys] for row in rows])
    print(
        json.dumps(
            {
                "benchmark": "scale",
                "rounds": options.rounds,
                "cores_per_worker": options.cores_per_worker,
                "machine": machine,
                "rows": rows,
            }
        )
    )
    return 0


def _powers_of_two(most: int) -> list[int]:
    return [2**power for power in range(max(1, most).bit_length())]


def _count(
    options: argparse.Namespace, folder: Path, model: Path, root: Path, n_workers: int
) -> Counted:
    archive = make_stack(
        folder / "archives",
        find_crops(options.side),
        options.images * n_workers,
        form=options.format,
        dtype=options.dtype,
    )
    n_images = max(1, options.images // _SHARDS_PER_WORKER)
    return counted.count(
        archive,
        model,
        root,
        [*options.settings, f"shards.images={n_images}"],
        n_workers=n_workers,
        n_cores=n_workers * options.cores_per_worker,
    )


def _summarise(counts: dict[int, list[Counted]]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for n_workers, found in counts.items():
        # The second of each worker: the first ones may have started one by one.
        rate = middle(count.rate_between_parts(2 * n_workers) for count in found)
        assert rate is not None
        first = rows[0] if rows else {"workers": n_workers, "images_per_s": rate}
        rows.append(
            {
                "workers": n_workers,
                "images_per_s": rate,
                # Their seconds are added up.
                "images_per_s_by_clocks": middle(
                    n_workers * count.rate_by_clock for count in found
                ),
                "gain": rate / first["images_per_s"],
                "wanted_gain": _WANTED_EACH * n_workers / first["workers"],
                "all_peak_mb": middle(count.ran.peak_mb for count in found),
            }
        )
    return rows
