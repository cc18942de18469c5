"""How often flags are raised: on real images as they are, and on spoilt ones.

    python -m jobs.benchmark flags [--model BUNDLE] [--part val] [--folder DIR]

The images are counted with `nucleiseg count` as a user would: blurred by 1 to 8 px
with the camera's noise on top, exposed until a share of the nuclei's pixels is at the
end of the scale, inverted, reduced and enlarged; and noise without any nucleus. At most
2 % of the images as they are should have any flag. Blur is out of focus in as far as it
is wide beside the nuclei: for the nuclei of 14 px in most of these images, 1 px is not.
"""

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import pandas as pd

from jobs.benchmark import counted
from jobs.benchmark.measuring import describe_machine, print_table, say
from jobs.benchmark.models import open_folder
from jobs.benchmark.spoiling import (
    Image,
    draw_blanks,
    list_kinds,
    read_fields,
    spoil,
    write_archives,
)
from nucleiseg.bundle import read_bundle
from nucleiseg.quality import FLAGS

_WANTED_FALSE = 0.02


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "--model", metavar="BUNDLE", help="by default the one in the box"
    )
    parser.add_argument("--part", default="val", help="of the real images")
    parser.add_argument("--limit", type=int, help="most images of a size")
    parser.add_argument(
        "--kinds", nargs="+", metavar="KIND", help="of spoiling; by default all"
    )
    parser.add_argument("--folder", type=Path, help="keeps the archives")


def run(options: argparse.Namespace) -> int:
    """Count the images, and print a table and JSON."""
    model = read_bundle(options.model)
    origin, fields = read_fields(options.part, options.limit)
    expected: dict[str, str | None] = {}
    images: dict[str, list[Image]] = {}
    for kind, (flag, make) in list_kinds().items():
        expected[kind] = flag
        images[kind] = list(spoil(kind, make, fields))
    expected["noise only"] = "empty"
    images["noise only"] = list(draw_blanks())[: options.limit]
    if options.kinds:
        images = {kind: images[kind] for kind in options.kinds}
    with open_folder(options) as name:
        folder = Path(name)
        archives, kinds = write_archives(folder, f"{origin}-{options.part}", images)
        say(f"counting {sum(map(len, images.values()))} images")
        with tempfile.TemporaryDirectory(prefix="run-", dir=folder) as runs:
            inputs = [f"{archive}:/*/*/images" for archive in archives]
            count = counted.count(inputs, model.paths.root, Path(runs) / "run")
            table = pd.read_csv(count.run.table("csv"), keep_default_na=False)
    rows = [
        summarise(str(kind), expected[str(kind)], part)
        for kind, part in table.groupby(table["dataset"].map(kinds), sort=False)
    ]
    print(f"{origin} images, {model.title}; % of images with each flag")
    keys = ["kind", "images", "wanted", "any", *FLAGS, "confidence"]
    print_table(keys, [[row[key] for key in keys] for row in rows])
    print(
        json.dumps(
            {
                "benchmark": "flags",
                "images": origin,
                "part": options.part,
                "model": model.title,
                "wanted_false": _WANTED_FALSE,
                "machine": describe_machine(),
                "rows": rows,
            }
        )
    )
    return 0


def summarise(kind: str, wanted: str | None, table: pd.DataFrame) -> dict[str, Any]:
    """Summarise the images of a kind: per cent with each flag, mean confidence."""
    flags = table["flags"].str.split(";")
    confidence = pd.to_numeric(table["confidence"], errors="coerce")
    return {
        "kind": kind,
        "images": len(table),
        "wanted": wanted or "none",
        "any": 100 * float((table["flags"] != "").mean()),
        **{
            name: 100 * float(flags.map(lambda found, n=name: n in found).mean())
            for name in FLAGS
        },
        "confidence": None if confidence.isna().all() else float(confidence.mean()),
    }
