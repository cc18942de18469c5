"""What `rivals` and `ladder` have in common: options and figures."""

import argparse
import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from jobs.benchmark.contest import Outcome, Rules
from jobs.benchmark.contest_images import write_contest
from nucleiseg.metrics import Estimate, count_scores, instance_scores

CONFIG = Path(__file__).parents[2] / "configs" / "nuclei-fluo.yaml"

FIGURES = ("ap_50", "mean_ap_50_90", "f1_50", "count_error", "bias")


def add_arguments(
    parser: argparse._ActionsContainer, *, core_minutes: float | None
) -> None:
    """Declare the options; without `core_minutes` that one has no default."""
    parser.add_argument(
        "--archive", type=Path, help="HDF5 or npz; default: the real images, or drawn"
    )
    parser.add_argument("--train-glob", default="/train/*/images", metavar="KEY")
    parser.add_argument(
        "--val-glob",
        default="/val/*/images",
        metavar="KEY",
        help="to score; labels are called `labels` where images are called `images`",
    )
    parser.add_argument("--limit", type=int, help="most images of a dataset")
    parser.add_argument(
        "--core-minutes",
        type=float,
        default=core_minutes,
        help="CPU time of each training, start-up included (%(default)s)",
    )
    parser.add_argument(
        "--config", type=Path, default=CONFIG, help="ours (%(default)s)"
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        dest="settings",
        metavar="section.key=value",
        help="one more setting of all our trainings",
    )
    parser.add_argument(
        "--folder", type=Path, help="keeps models and outcomes, to go on from"
    )


def make_rules(options: argparse.Namespace, folder: Path) -> Rules:
    """Lay out the images, and say what holds for all."""
    contest = write_contest(
        folder / "contest.h5",
        options.archive,
        options.train_glob,
        options.val_glob,
        options.limit,
    )
    return Rules(
        contest,
        folder,
        options.config,
        tuple(options.settings),
        60 * options.core_minutes,
    )


def write_json(
    benchmark: str,
    options: argparse.Namespace,
    rules: Rules,
    machine: dict[str, Any],
    rows: list[dict[str, Any]],
) -> str:
    """Write what was measured, and under which rules, as JSON."""
    return json.dumps(
        {
            "benchmark": benchmark,
            "images": rules.contest.origin,
            "core_minutes": options.core_minutes,
            "settings": options.settings,
            "machine": machine,
            "rows": rows,
        }
    )


def summarise(outcome: Outcome) -> dict[str, Any]:
    """Give the figures of a contestant, each with its 95 % bootstrap interval."""
    matches = outcome.matches
    nuclei = instance_scores(matches, rng=np.random.default_rng(0))
    counts = count_scores(
        matches.n_predicted, matches.n_true, rng=np.random.default_rng(0)
    )
    estimates = {
        "ap_50": nuclei.ap_pooled[0],
        "mean_ap_50_90": nuclei.mean_ap_pooled_50_90,
        "f1_50": nuclei.f1_pooled[0],
        "count_error": counts.count_error,
        "bias": counts.bias,
    }
    return {
        "name": outcome.contestant.name,
        "n_images": len(matches),
        "n_true": nuclei.n_true,
        "n_predicted": nuclei.n_predicted,
        **{name: as_list(one) for name, one in estimates.items()},
        "splits": nuclei.splits,
        "merges": nuclei.merges,
        "images_per_s": outcome.images_per_s,
        "peak_mb": outcome.peak_mb,
        "trained": outcome.trained,
        "thresholds": outcome.thresholds,
    }


def as_list(one: Estimate) -> list[float | None]:
    """Value, low and high end, for JSON: what is undefined is null."""
    figures = (one.value, one.low, one.high)
    return [round(x, 5) if math.isfinite(x) else None for x in figures]


def write_figure(figures: list[float | None], *, signed: bool = False) -> str:
    """Write a value and its interval."""
    sign = "+" if signed else ""
    value, *ends = ("-" if x is None else f"{x:{sign}.3f}" for x in figures)
    return f"{value} [{', '.join(ends)}]"
