"""Images a second with a network that answers at once: how fast a device pays.

    python -m jobs.benchmark ceiling [--workers 1 2] [--cores 2 4] [--side 128] ...

What is measured is everything of `count` but the network: reading, normalising, making
batches, labelling, rows. A device faster than this waits for the processor. Python runs
one thread of a process at a time, so that beyond a few cores only more workers help
(`cluster.workers_per_gpu`). Cores are those of all workers together; the coordinator
shares them.
"""

import argparse
import contextlib
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

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
from jobs.benchmark.models import add_setting_argument, open_folder
from nucleiseg.box import find_model
from nucleiseg.bundle import read_bundle
from nucleiseg.devices import available_cores

_REPOSITORY = Path(__file__).parents[2]
# Folder in which each process leaves a mark that has answered; see `answering`.
MARKS = "NUCLEISEG_ANSWERED"
_SHARDS_PER_WORKER = 12


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--workers", type=int, nargs="+", default=[1])
    parser.add_argument("--cores", type=int, nargs="+", help="default: all")
    parser.add_argument("--images", type=int, default=16_384, help="(%(default)s)")
    parser.add_argument("--side", type=int, default=128, help="px (%(default)s)")
    parser.add_argument("--format", choices=FORMS, default="stored")
    parser.add_argument("--dtype", choices=DTYPES, default="uint8")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--model", type=Path, metavar="BUNDLE", help="default: the box")
    parser.add_argument("--folder", type=Path, help="keeps archives for other rounds")
    add_setting_argument(parser)


def run(options: argparse.Namespace) -> int:
    """Measure, and print a table and JSON."""
    # Before archives are made for it.
    read_bundle(options.model)
    machine = describe_machine()
    warn_if_busy(machine)
    cores = options.cores or [available_cores()]
    cases = [(n, m) for m in cores for n in options.workers]
    found: dict[tuple[int, int], list[Counted]] = {case: [] for case in cases}
    with open_folder(options) as name, tempfile.TemporaryDirectory() as hook:
        archive = make_stack(
            Path(name) / "archives",
            find_crops(options.side),
            options.images,
            form=options.format,
            dtype=options.dtype,
        )
        with tempfile.TemporaryDirectory(dir=name) as runs, _answering(Path(hook)):
            for number in range(options.rounds):
                for case in cases:
                    say(f"round {number + 1} of {options.rounds}: {case[0]} workers")
                    root = Path(runs) / f"{number}-{case[0]}-{case[1]}"
                    found[case].append(_count(options, archive, root, *case))
            rows = [_summarise(case, counts) for case, counts in found.items()]
    print_table(list(rows[0]), [list(row.values()) for row in rows])
    print(
        json.dumps(
            {
                "benchmark": "ceiling",
                "rounds": options.rounds,
                "side_px": options.side,
                "machine": machine,
                "rows": rows,
            }
        )
    )
    return 0


@contextlib.contextmanager
def _answering(hook: Path) -> Iterator[None]:
    """Have every Python process that starts answer in place of the network."""
    (hook / "sitecustomize.py").write_text("import jobs.benchmark.answering\n")
    (hook / "marks").mkdir()
    before = os.environ.get("PYTHONPATH")
    paths = [str(hook), str(_REPOSITORY), *([before] if before else [])]
    new = {"PYTHONPATH": ":".join(paths), MARKS: str(hook / "marks")}
    with mock.patch.dict(os.environ, new):
        yield


def _count(
    options: argparse.Namespace, archive: Path, root: Path, n_workers: int, n_cores: int
) -> Counted:
    n_images = max(1, options.images // (_SHARDS_PER_WORKER * n_workers))
    marks = Path(os.environ[MARKS])
    before = len(list(marks.iterdir()))
    found = counted.count(
        archive,
        find_model(options.model),
        root,
        [
            f"shards.images={n_images}",
            # There is nothing to measure, and no size to estimate by such maps.
            "inference.batch_size=32",
            "inference.diameter_px=26",
            # Where there is a GPU, they share it.
            f"cluster.workers_per_gpu={n_workers}",
            *options.settings,
        ],
        n_workers=n_workers,
        n_cores=n_cores,
    )
    # Python goes on without a sitecustomize that fails.
    if len(list(marks.iterdir())) == before:
        raise RuntimeError(f"nothing answered in place of the network in {root}")
    return found


def _summarise(case: tuple[int, int], counts: list[Counted]) -> dict[str, Any]:
    n_workers, n_cores = case
    stages = [name for name in counts[0].core_ms if name != "network"]
    return {
        "workers": n_workers,
        "cores": n_cores,
        # The second shard of each worker: the first ones may have started one by one.
        "images_per_s": middle(count.rate_between_parts(n_workers) for count in counts),
        **{
            f"ms-{name}": middle(count.core_ms[name] for count in counts)
            for name in stages
        },
        "nuclei_per_image": float(counts[0].counts().mean()),
    }
