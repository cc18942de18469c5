"""Counts and AP of images reduced and enlarged, with and without rescaling.

    python -m jobs.benchmark scales [--model BUNDLE] [--factors 0.5 0.7 1 1.5 2]

Labelled images are reduced (means over areas) and enlarged (interpolated linearly), and
counted three times: with the diameter of their nuclei *estimated*, as by default; with
the true one *given*, the median of the labels; and at the size they have, as if it were
the *network's own*. By default they are the real validation images, else drawn ones.
"""

import argparse
import json
import math
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from jobs.benchmark import counted
from jobs.benchmark.measuring import describe_machine, print_table, say
from jobs.benchmark.models import open_folder
from jobs.benchmark.spoiling import Field, read_fields
from nucleiseg.bundle import BundleInfo, read_bundle
from nucleiseg.instances import restore_labels
from nucleiseg.labels import name_dataset
from nucleiseg.metrics import (
    InstanceMatches,
    concatenate_matches,
    count_scores,
    instance_scores,
    match_instances,
)
from nucleiseg.preprocess import choose_scale, rescale, scaled_shape
from nucleiseg.shards import read_plan

_WAYS = ("estimated", "given", "network's own")


@dataclass(frozen=True)
class ScaledSet:
    """Images of one size, reduced or enlarged, and their labels in one archive."""

    factor: float
    path: Path
    group: str
    """Holds `images` and `labels`."""
    diameter_px: float
    """Median over their true nuclei."""

    @property
    def name(self) -> str:
        """As an input of a count."""
        return f"{self.path}:/{self.group}/images"


@dataclass(frozen=True)
class Outcome:
    """What was found in the images of one set."""

    matches: InstanceMatches
    scale: float
    """By how much they were enlarged for the network."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "--model", metavar="BUNDLE", help="by default the one in the box"
    )
    parser.add_argument("--part", default="val", help="of the real images")
    parser.add_argument("--limit", type=int, help="most images of a size")
    parser.add_argument(
        "--factors", type=float, nargs="+", default=[0.5, 0.7, 1.0, 1.5, 2.0]
    )
    parser.add_argument("--folder", type=Path, help="keeps the archives")


def run(options: argparse.Namespace) -> int:
    """Count in each way, and print a table and JSON."""
    model = read_bundle(options.model)
    if model.preprocess.diameter_px is None:
        raise SystemExit(
            f"{model.title} was trained on images of any scale and rescales none; use "
            "a model with preprocess.diameter_px"
        )
    origin, fields = read_fields(options.part, options.limit)
    rows = []
    with open_folder(options) as name:
        folder = Path(name)
        sets = [
            one
            for factor in options.factors
            for one in write_sets(
                folder / f"{origin}-times{factor:g}.h5", fields, factor
            )
        ]
        with tempfile.TemporaryDirectory(prefix="runs-", dir=folder) as runs:
            found = count_all(sets, model, Path(runs))
        for factor in options.factors:
            chosen = [one for one in sets if one.factor == factor]
            for way in _WAYS:
                outcomes = [found[way][one] for one in chosen]
                rows.append({"factor": factor, "way": way, **summarise(outcomes)})
    print(f"{origin} images, {model.title}; the network's diameter is ", end="")
    print(f"{model.preprocess.diameter_px:g} px")
    keys = [key for key in rows[0] if key != "scales"]
    print_table([*keys, "scales"], [[*map(row.get, keys), _join(row)] for row in rows])
    print(
        json.dumps(
            {
                "benchmark": "scales",
                "images": origin,
                "part": options.part,
                "model": model.title,
                "machine": describe_machine(),
                "diameters_px": [
                    [one.factor, one.group, one.diameter_px] for one in sets
                ],
                "rows": rows,
            }
        )
    )
    return 0


def _join(row: dict[str, Any]) -> str:
    return " ".join(f"{scale:.2f}" for scale in row["scales"])


def write_sets(path: Path, fields: list[Field], factor: float) -> list[ScaledSet]:
    """Write fields reduced or enlarged, by the size they had before.

    Sets without any nucleus have no diameter, and are left out.
    """
    sets = []
    with h5py.File(path, "w") as file:
        for shape in dict.fromkeys(field.image.shape for field in fields):
            pairs = [
                resize(field, factor) for field in fields if field.image.shape == shape
            ]
            diameters = [find_diameters(labels) for _, labels in pairs]
            group = f"{shape[0]}x{shape[1]}"
            stacks: dict[str, NDArray[Any]] = {
                "images": np.stack([image for image, _ in pairs]),
                "labels": np.stack([labels for _, labels in pairs]),
            }
            for key, values in stacks.items():
                chunks = (1, *values.shape[1:])
                file.create_dataset(
                    f"{group}/{key}", data=values, chunks=chunks, compression="gzip"
                )
            if np.concatenate(diameters).size:
                median_px = float(np.median(np.concatenate(diameters)))
                sets.append(ScaledSet(factor, path, group, round(median_px, 2)))
    return sets


def resize(field: Field, factor: float) -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
    """Reduce or enlarge an image, and take for each pixel the label at its centre."""
    height, width = field.image.shape
    shape = scaled_shape((height, width), factor)
    image = rescale(field.image.astype(np.float32), shape)
    labels = restore_labels(field.labels.astype(np.int32), shape)
    return np.rint(image).astype(np.uint8), labels


def find_diameters(labels: NDArray[np.int32]) -> NDArray[np.float64]:
    """Find the diameters of circles of the nuclei's areas."""
    areas = np.bincount(labels.ravel())[1:]
    return 2 * np.sqrt(areas[areas > 0] / math.pi)


def count_all(
    sets: list[ScaledSet], model: BundleInfo, runs: Path
) -> dict[str, dict[ScaledSet, Outcome]]:
    """Count all sets in each way."""
    wanted_px = model.preprocess.diameter_px
    assert wanted_px is not None
    found = {
        "estimated": count_sets(sets, None, model, runs / "estimated"),
        "network's own": count_sets(sets, wanted_px, model, runs / "own"),
    }
    given = {}
    share = model.preprocess.rescaling
    scales = {
        one: choose_scale(one.diameter_px, wanted_px, share=share) for one in sets
    }
    # One run has one diameter: sets that it enlarges alike are counted together.
    for scale in sorted({*scales.values()}):
        alike = [one for one in sets if scales[one] == scale]
        if scale == 1:
            given.update({one: found["network's own"][one] for one in alike})
        else:
            root = runs / f"given{scale:.3f}"
            given.update(count_sets(alike, alike[0].diameter_px, model, root))
    return {**found, "given": given}


def count_sets(
    sets: list[ScaledSet], diameter_px: float | None, model: BundleInfo, root: Path
) -> dict[ScaledSet, Outcome]:
    """Count sets with one diameter, None: estimated; and match their label images."""
    say(f"counting {len(sets)} sets with diameter {diameter_px or 'estimated'}")
    settings = [] if diameter_px is None else [f"inference.diameter_px={diameter_px}"]
    names = [one.name for one in sets]
    count = counted.count(names, model.paths.root, root, settings, labels=True)
    archives = {
        Path(archive.path): archive.name
        for archive in read_plan(count.run.plan).archives
    }
    scales = {
        (scale["archive"], dataset): scale["scale"]
        for scale in count.scales
        for dataset in scale["datasets"]
    }
    outcomes = {}
    with h5py.File(count.run.labels()) as file:
        for one in sets:
            archive, dataset = archives[one.path], f"/{one.group}/images"
            with h5py.File(one.path) as source:
                truth = source[f"{one.group}/labels"][()]
            labels = file[name_dataset(archive, dataset)][()].astype(np.int32)
            outcomes[one] = Outcome(
                match_instances(labels, truth), scales[archive, dataset]
            )
    return outcomes


def summarise(outcomes: Iterable[Outcome]) -> dict[str, Any]:
    """Score what was found in several sets together."""
    outcomes = list(outcomes)
    matches = concatenate_matches([one.matches for one in outcomes])
    nuclei = instance_scores(matches)
    counts = count_scores(matches.n_predicted, matches.n_true)
    return {
        "images": len(matches),
        "nuclei": int(matches.n_true.sum()),
        "found": int(matches.n_predicted.sum()),
        "count_error": counts.count_error.value,
        "bias": counts.bias.value,
        "ap_50": nuclei.ap_pooled[0].value,
        "mean_ap_50_90": nuclei.mean_ap_pooled_50_90.value,
        "scales": [one.scale for one in outcomes],
    }
