"""Peak memory of a worker, for small and for large archives.

    python -m jobs.benchmark memory [--images 5000 100000] [--image-sides 4000 30000]

Counted with a small network, so that pixels are what takes memory, by one worker in a
process of its own. Of each format and dtype all sizes are wanted within 5 % of the
smallest. Archives of 100,000 images take up to 7 GB in --folder, one at a time; they
are kept only where --keep says so.

Sizes are comparable where all of them are large enough, or all too small, for a count
to measure its batch shape: another shape takes other memory. --setting
inference.batch_size=N makes them so.
"""

import argparse
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jobs.benchmark import counted
from jobs.benchmark.archives import (
    DTYPES,
    FORMS,
    find_crops,
    make_image,
    make_stack,
)
from jobs.benchmark.measuring import describe_machine, middle, print_table, say
from jobs.benchmark.models import add_material, find_models, open_folder

_WANTED_GROWTH = 0.05


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--base-filters", type=int, default=1)
    parser.add_argument("--images", type=int, nargs="*", default=[5_000, 100_000])
    parser.add_argument("--formats", nargs="+", choices=FORMS, default=list(FORMS))
    parser.add_argument("--dtypes", nargs="+", choices=DTYPES, default=list(DTYPES))
    parser.add_argument(
        "--image-sides",
        type=int,
        nargs="*",
        default=[4_000, 30_000],
        metavar="PX",
        help="of single images, uint16 (%(default)s)",
    )
    parser.add_argument(
        "--image-formats", nargs="+", choices=FORMS, default=["hdf5", "stored"]
    )
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--keep", action="store_true", help="keep archives in --folder")
    add_material(parser)


def run(options: argparse.Namespace) -> int:
    """Count every archive, and print a table and JSON."""
    machine = describe_machine()
    with open_folder(options) as name:
        folder = Path(name)
        models = find_models(options, [options.base_filters], folder)
        (model, *_) = models.values()
        rows = []
        for form in options.formats:
            for dtype in options.dtypes:
                rows += _measure_stacks(options, folder, model, form, dtype)
        for form in options.image_formats:
            rows += _measure_images(options, folder, model, form)
    keys = ["what", "format", "dtype", "size", "images_per_s"]
    keys += ["worker_peak_mb", "all_peak_mb", "growth", "wanted_within"]
    print_table(keys, [[row[key] for key in keys] for row in rows])
    found = {"benchmark": "memory", "machine": machine, "rows": rows}
    print(json.dumps(found))
    return 0


def _measure_stacks(
    options: argparse.Namespace, folder: Path, model: Path, form: Any, dtype: str
) -> list[dict[str, Any]]:
    crops = find_crops(options.side)

    def make(place: Path, n_images: int) -> Path:
        return make_stack(place, crops, n_images, form=form, dtype=dtype)

    labels = {"what": f"{options.side} px", "format": form, "dtype": dtype}
    return _measure(options, folder, model, make, options.images, labels)


def _measure_images(
    options: argparse.Namespace, folder: Path, model: Path, form: Any
) -> list[dict[str, Any]]:
    crops = find_crops()

    def make(place: Path, side_px: int) -> Path:
        return make_image(place, crops, side_px, form=form)

    labels = {"what": "one image", "format": form, "dtype": "uint16"}
    return _measure(options, folder, model, make, options.image_sides, labels)


def _measure(
    options: argparse.Namespace,
    folder: Path,
    model: Path,
    make: Callable[[Path, int], Path],
    sizes: list[int],
    labels: dict[str, str],
) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for size in sizes:
        say(f"{' '.join(labels.values())}: {size:,}")
        with tempfile.TemporaryDirectory(prefix="memory-", dir=folder) as place:
            archives = folder / "archives" if options.keep else Path(place)
            archive = make(archives, size)
            counts = [
                counted.count(
                    archive, model, Path(place) / f"run{number}", options.settings
                )
                for number in range(options.rounds)
            ]
        # The worker is the largest: it alone has the network.
        peak_mb = middle(count.ran.largest_mb for count in counts)
        assert peak_mb is not None
        first_mb = rows[0]["worker_peak_mb"] if rows else peak_mb
        rows.append(
            {
                **labels,
                "size": size,
                "images_per_s": middle(count.rate for count in counts),
                "worker_peak_mb": peak_mb,
                "all_peak_mb": middle(count.ran.peak_mb for count in counts),
                "growth": peak_mb / first_mb - 1,
                "wanted_within": _WANTED_GROWTH,
            }
        )
    return rows
