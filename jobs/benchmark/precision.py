"""Counts in one precision against those in another, on the same images.

    python -m jobs.benchmark precision [--precisions float32 bfloat16] [--folder DIR]

The first precision is what the others are compared with. Where a precision has no
hardware it is emulated: slow, and not what that hardware would give.
"""

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

from jobs.benchmark import counted
from jobs.benchmark.archives import find_crops, make_stack
from jobs.benchmark.measuring import describe_machine, print_table
from jobs.benchmark.models import add_material, find_models, open_folder
from nucleiseg.devices import required

_N_CROPS = 2000
_WANTED_DIFFERENT = 0.01


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--base-filters", type=int, nargs="+", default=[64, 16])
    parser.add_argument("--precisions", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--images", type=int, default=_N_CROPS)
    add_material(parser)


def run(options: argparse.Namespace) -> int:
    """Count in each precision, and print a table and JSON."""
    with open_folder(options) as name:
        folder = Path(name)
        crops = find_crops(options.side)
        archive = make_stack(
            folder / "archives", crops, options.images, form="deflated", dtype="float32"
        )
        rows = [
            row
            for filters, model in find_models(
                options, options.base_filters, folder
            ).items()
            for row in compare(options, folder, archive, filters, model)
        ]
    reference = options.precisions[0]
    print(f"{options.images:,} {crops.name} crops; counts beside those in {reference}")
    keys = ["base_filters", "device", "hardware", "precision", "nuclei"]
    keys += ["share_different", "wanted_at_most", "mean_difference"]
    keys += ["largest_difference"]
    print_table(keys, [[row[key] for key in keys] for row in rows])
    print(
        json.dumps(
            {
                "benchmark": "precision",
                "images": crops.name,
                "n_images": options.images,
                "reference": reference,
                "machine": describe_machine(),
                "rows": rows,
            }
        )
    )
    return 0


def compare(
    options: argparse.Namespace, folder: Path, archive: Path, filters: int, model: Path
) -> list[dict[str, Any]]:
    """Count with one network in each precision."""
    reference = None
    rows = []
    with tempfile.TemporaryDirectory(prefix="runs-", dir=folder) as runs:
        for precision in options.precisions:
            settings = [*options.settings, f"inference.precision={precision}"]
            count = counted.count(archive, model, Path(runs) / precision, settings)
            compute = count.compute
            # A failed image has no count, which is another one than any other.
            counts = count.counts().fillna(-1).to_numpy(dtype=int)
            reference = counts if reference is None else reference
            differences = counts - reference
            rows.append(
                {
                    "base_filters": filters,
                    "device": compute.device,
                    "hardware": required(compute.precision, compute.device),
                    "precision": compute.precision,
                    "nuclei": int(counts.clip(0).sum()),
                    "share_different": float((differences != 0).mean()),
                    "wanted_at_most": _WANTED_DIFFERENT,
                    "mean_difference": float(differences.mean()),
                    "largest_difference": int(abs(differences).max()),
                    "different": [int(n) for n in differences.nonzero()[0]],
                }
            )
    return rows
