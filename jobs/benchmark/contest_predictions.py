"""Label images of one half by a contestant's model, and what predicting took."""

import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from jobs.benchmark import counted
from jobs.benchmark.contest_images import Contest, Labels
from jobs.benchmark.measuring import run_apart
from nucleiseg.atomic import read_json
from nucleiseg.labels import name_dataset
from nucleiseg.runs import Bundle, TrainRun

_STARDIST = "jobs.benchmark.stardist_rival"


@dataclass(frozen=True)
class Predicted:
    """What a model says of one half."""

    labels: dict[str, Labels]
    """By group, (n, H, W)."""
    seconds: float
    """From the first image to the last label image, without start-up."""
    peak_mb: float
    """Of the largest process."""
    thresholds: dict[str, Any]


def run_part(words: Sequence[object]) -> tuple[dict[str, Any], float]:
    """Run one of our programs; give what it prints last, and its peak memory, MB."""
    ran = run_apart([sys.executable, "-m", *words])
    return json.loads(ran.output.splitlines()[-1]), ran.largest_mb


def predict_ours(
    contest: Contest, home: Path, half: str, *, tuned_on: str | None
) -> Predicted:
    """Run `nucleiseg segment`, after `nucleiseg tune` on another half if wanted."""
    bundle = TrainRun(home).bundle
    with tempfile.TemporaryDirectory(prefix="predict-", dir=home) as name:
        place = Path(name)
        if tuned_on is not None:
            tuned = Bundle(place / "tuned")
            command = [sys.executable, "-m", "nucleiseg", "tune", bundle.root]
            command += ["--out", tuned.root, "--images", contest.images(tuned_on)]
            run_apart([*command, "--labels", contest.labels(tuned_on)])
            bundle = tuned
        count = counted.count(
            contest.images(half), bundle.root, place / "run", labels=True
        )
        labels = {}
        with h5py.File(count.run.labels()) as file:
            for stack in contest.read(half):
                key = f"/{half}/{stack.group}/images"
                found = file[name_dataset(contest.path.name, key)][()]
                labels[stack.group] = found.astype(np.int32)
        return Predicted(
            labels,
            count.n_images / count.rate,
            count.ran.largest_mb,
            dict(read_json(bundle.info)["instances"]),
        )


def predict_stardist(
    contest: Contest, home: Path, half: str, *, tuned_on: str
) -> Predicted:
    """Run StarDist with thresholds that it chose on another half."""
    thresholds, _ = run_part([_STARDIST, "tune", contest.path, home, tuned_on])
    with tempfile.TemporaryDirectory(prefix="predict-", dir=home) as name:
        out = Path(name) / "labels.npz"
        words = [_STARDIST, "predict", contest.path, home, half]
        found, peak_mb = run_part([*words, json.dumps(thresholds), out])
        with np.load(out) as file:
            labels = {group: file[group].astype(np.int32) for group in file.files}
    return Predicted(labels, found["seconds"], peak_mb, thresholds)
