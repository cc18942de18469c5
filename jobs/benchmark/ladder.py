"""Each part of ours switched on in turn: what it gives, and what it costs.

    python -m jobs.benchmark ladder --archive dsb2018_fluo.h5 --core-minutes 15

The first rung is the notebook's way: a mask and its connected components. Each further
one adds a part to the rung below, is trained from the start for as long (the last one
takes the model below, and tunes its thresholds), and is compared with it on the same
images: differences of figures with 95 % intervals of a paired bootstrap, and what they
cost, training crops within the core-minutes and images a second. One training a rung
has its own luck: an interval says how sure the images are, not another seed. With
--folder, rungs that are finished are kept, and the same command goes on.
"""

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from jobs.benchmark.contest import (
    NOT_SCALED,
    NOTEBOOK,
    Contestant,
    Outcome,
    compete,
)
from jobs.benchmark.contest_options import (
    FIGURES,
    as_list,
    make_rules,
    summarise,
    write_figure,
    write_json,
)
from jobs.benchmark.contest_options import add_arguments as add_contest_arguments
from jobs.benchmark.measuring import describe_machine, print_table
from jobs.benchmark.models import open_folder
from nucleiseg.metrics import paired_bootstrap

# Settings that are not named are those of the configuration: of our default, all on.
_TRAINED = {
    "mask": NOTEBOOK,
    "augmentation": ("model.head=mask", *NOT_SCALED),
    "boundary": ("model.head=boundary", "training.border_weight=1", *NOT_SCALED),
    "border-weight": ("model.head=boundary", *NOT_SCALED),
    "distance": NOT_SCALED,
    "scale": (),
}
_NAMES = (*_TRAINED, "thresholds")


def list_rungs(last: str) -> list[Contestant]:
    """List the rungs from the first one to one of them."""
    rungs = [
        Contestant(name, settings, is_tuned=False)
        for name, settings in _TRAINED.items()
    ]
    tuned = replace(rungs[-1], name="thresholds", is_tuned=True)
    rungs.append(replace(tuned, trained_as=rungs[-1].name))
    return rungs[: _NAMES.index(last) + 1]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "--until", choices=_NAMES, default=_NAMES[-1], help="last rung (%(default)s)"
    )
    add_contest_arguments(parser, core_minutes=15)


def run(options: argparse.Namespace) -> int:
    """Climb, and print a table and JSON."""
    machine = describe_machine()
    with open_folder(options) as name:
        rules = make_rules(options, Path(name))
        outcomes = [compete(one, rules) for one in list_rungs(options.until)]
    rows = [
        {**summarise(outcome), "gain": compare(below, outcome)}
        for below, outcome in zip([None, *outcomes], outcomes, strict=False)
    ]
    first = rows[0]
    print(
        f"{first['n_images']} images of {rules.contest.origin}, {first['n_true']:,} "
        f"nuclei; {options.core_minutes:g} core-minutes of training a rung; +: beside "
        "the rung below, with its paired 95 % interval"
    )
    _print_rows(rows)
    print(write_json("ladder", options, rules, machine, rows))
    return 0


def compare(
    below: Outcome | None, outcome: Outcome
) -> dict[str, list[float | None]] | None:
    """Compare a rung with the one below on the same images, by a paired bootstrap."""
    if below is None:
        return None
    found = paired_bootstrap(
        below.matches, outcome.matches, rng=np.random.default_rng(0)
    )
    names = {"ap_50": "ap_pooled_50", "f1_50": "f1_pooled_50"}
    names["mean_ap_50_90"] = "mean_ap_pooled_50_90"
    return {key: as_list(found[names.get(key, key)].difference) for key in FIGURES}


def _print_rows(rows: Sequence[dict[str, Any]]) -> None:
    header = ["rung", "AP(.5)", "+", "AP(.5-.9)", "+", "count error", "+", "bias"]
    header += ["splits", "merges", "crops", "images/s"]
    table = []
    for row in rows:
        cells: list[object] = [row["name"]]
        for key in ("ap_50", "mean_ap_50_90", "count_error"):
            gain = row["gain"]
            cells.append(f"{row[key][0]:.3f}")
            cells.append(None if gain is None else write_figure(gain[key], signed=True))
        cells += [f"{row['bias'][0]:+.3f}", row["splits"], row["merges"]]
        table.append([*cells, row["trained"]["crops"], row["images_per_s"]])
    print_table(header, table)
