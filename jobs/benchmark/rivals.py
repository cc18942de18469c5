"""StarDist, the notebook's way and ours: same images, same core-minutes, one run.

    python -m jobs.benchmark rivals --archive dsb2018_fluo.h5 --core-minutes 60

`ours` is the default head with its watershed, `notebook` the same U-Net with the head
`mask`, connected components, and neither augmentation nor a change of scale; `stardist`
needs `pip install 'nucleiseg[rivals]'`. Each is trained in a process of its own until
its CPU time is used, its learning rate falling along a cosine to that end. Each chooses
its thresholds by its own means on one half of the validation images and is scored on
the other, and the other way round. With --folder, what is finished is kept.
"""

import argparse
import importlib.util
from pathlib import Path
from typing import Any

from jobs.benchmark.contest import NOTEBOOK, Contestant, compete
from jobs.benchmark.contest_options import (
    FIGURES,
    make_rules,
    summarise,
    write_figure,
    write_json,
)
from jobs.benchmark.contest_options import add_arguments as add_contest_arguments
from jobs.benchmark.measuring import describe_machine, print_table
from jobs.benchmark.models import open_folder
from nucleiseg.errors import ConfigError

_RIVALS = {
    "stardist": Contestant("stardist", is_stardist=True),
    "notebook": Contestant("notebook", NOTEBOOK),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "--rivals", nargs="*", choices=_RIVALS, default=list(_RIVALS), help="of ours"
    )
    add_contest_arguments(parser, core_minutes=60)


def run(options: argparse.Namespace) -> int:
    """Train and score each, and print a table and JSON."""
    machine = describe_machine()
    contestants = [Contestant("ours"), *(_RIVALS[name] for name in options.rivals)]
    if "stardist" in options.rivals:
        _refuse_missing_stardist()
    with open_folder(options) as name:
        rules = make_rules(options, Path(name))
        rows = [summarise(compete(one, rules)) for one in contestants]
    first = rows[0]
    print(
        f"{first['n_images']} images of {rules.contest.origin}, {first['n_true']:,} "
        f"nuclei; {options.core_minutes:g} core-minutes of training each; thresholds "
        "of each half from the other"
    )
    _print_rows(rows)
    print(write_json("rivals", options, rules, machine, rows))
    return 0


def _refuse_missing_stardist() -> None:
    """Refuse before hours of work where StarDist is not installed."""
    if importlib.util.find_spec("stardist") is None:
        raise ConfigError(
            "stardist is not installed; pip install 'nucleiseg[rivals]', or leave it "
            "out: --rivals notebook"
        )


def _print_rows(rows: list[dict[str, Any]]) -> None:
    header = ["", "AP(.5)", "AP(.5-.9)", "F1(.5)", "count error", "bias"]
    header += ["splits", "merges", "images/s", "MB", "Mpx trained", "core-min"]
    print_table(
        header,
        [
            (
                row["name"],
                *(write_figure(row[key], signed=key == "bias") for key in FIGURES),
                *(row["splits"], row["merges"], row["images_per_s"], row["peak_mb"]),
                row["trained"]["megapixels"],
                row["trained"]["core_s"] / 60,
            )
            for row in rows
        ],
    )
