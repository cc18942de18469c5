"""From a bundle and labelled images to the bundle's thresholds."""

import itertools
import logging
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nucleiseg.bundle import BundleInfo, read_bundle, write_tuned
from nucleiseg.config import Config, InstancesConfig
from nucleiseg.counting import prepare
from nucleiseg.devices import available_cores
from nucleiseg.errors import RunError
from nucleiseg.evaluation import Choice, Table, measure_found
from nucleiseg.instances import label_all_at_size, label_at_size
from nucleiseg.metrics import (
    Estimate,
    count_scores,
    instance_scores,
    match_label_images,
)
from nucleiseg.model import n_maps
from nucleiseg.progress import Progress
from nucleiseg.provenance import describe_environment
from nucleiseg.tuning.labelled_maps import LabelledMaps, predict_labelled

logger = logging.getLogger(__name__)

_THRESHOLDS = (0.3, 0.4, 0.5, 0.6, 0.7)
_SEED_THRESHOLDS = tuple(round(0.05 * k, 2) for k in range(4, 18))
_N_FOLDS = 2
# With fewer images a half is too few to choose on.
_LEAST_IMAGES = 4


@dataclass(frozen=True)
class Tuned:
    """What tuning came to."""

    bundle: BundleInfo
    before: InstancesConfig
    choice: Choice
    scores: dict[str, Estimate]
    """Cross-fitted: each half of the images with what the other half chose."""
    n_images: int


def tune(
    model: str | Path | None,
    images: Sequence[str],
    labels: str,
    config: Config,
    *,
    out: Path | None = None,
) -> Tuned:
    """Choose a bundle's thresholds on labelled images, and store them in it.

    Foreground threshold, seed threshold and smallest area are chosen jointly, for the
    highest sum of pooled AP at 0.50 and mean AP from 0.50 to 0.90, minus count error
    and |bias|.

    Parameters
    ----------
    model : str, Path or None
        See :func:`nucleiseg.bundle.read_bundle`.
    images : sequence of str
        `ARCHIVE:KEY` each.
    labels : str
        `ARCHIVE:KEY` of the labels of these images, in their order.
    config : Config
        Sections inference and shards are used.
    out : Path, optional
        Folder of a new bundle with the thresholds; by default they are stored in the
        bundle itself, which one in the box does not allow.

    Raises
    ------
    BundleError, RunError, ArchiveError
        Something does not fit, and nothing has been written.
    """
    info = read_bundle(model)
    prepared = prepare(images, model, config, workers=1)
    if prepared.plan.unreadable:
        failed = prepared.plan.describe(prepared.plan.unreadable[0])
        raise RunError(f"{failed} cannot be read; mend it, or name the others only")
    with tempfile.TemporaryDirectory(prefix="nucleiseg-tune-") as folder:
        found = predict_labelled(prepared, labels, Path(folder))
        if len(found) < _LEAST_IMAGES:
            raise RunError(
                f"{len(found)} labelled images are too few to choose thresholds on; "
                f"name {_LEAST_IMAGES} or more"
            )
        pairs = _make_pairs(info)
        table = Table(pairs, _measure(found, pairs))
        choice = table.choose()
        scores = _score_crossed(found, table)
    before = info.instances
    instances = _settings(choice.threshold, choice.seed_threshold).model_copy(
        update={"min_area_px": choice.min_area_px, "method": before.method}
    )
    tuning = {
        "images": list(images),
        "labels": labels,
        "n_images": len(found),
        "choice": choice.as_dict(),
        "cross_fitted": {
            name: [round(figure, 4) for figure in (one.value, one.low, one.high)]
            for name, one in scores.items()
        },
        "curve": table.curve(),
        "environment": describe_environment(),
    }
    bundle = write_tuned(info, instances, tuning, out=out)
    return Tuned(bundle, before, choice, scores, len(found))


def _make_pairs(info: BundleInfo) -> list[tuple[float, float]]:
    """Make the pairs of thresholds to try; without a marker map one seed each."""
    seeds = _SEED_THRESHOLDS if n_maps(info.model) == 2 else (0.5,)
    return list(itertools.product(_THRESHOLDS, seeds))


def _settings(threshold: float, seed_threshold: float) -> InstancesConfig:
    return InstancesConfig(threshold=threshold, seed_threshold=seed_threshold)


def _measure(
    found: list[LabelledMaps], pairs: list[tuple[float, float]]
) -> list[list[Any]]:
    """Measure the nuclei of every image for every pair of thresholds."""

    def measure(image: LabelledMaps) -> list[Any]:
        maps = image.load()
        measured = []
        for pair in pairs:
            labels, areas = label_all_at_size(maps, image.truth.shape, _settings(*pair))
            measured.append(measure_found(labels, image.truth, areas))
        return measured

    with (
        ThreadPoolExecutor(available_cores()) as pool,
        Progress(len(found), label="choosing", unit="images") as progress,
    ):
        results = []
        for result in pool.map(measure, found):
            results.append(result)
            progress.update(1)
    return results


def _score_crossed(found: list[LabelledMaps], table: Table) -> dict[str, Estimate]:
    """Score each half of every group of images with what the other half chooses."""
    folds = assign_folds([image.group for image in found])
    choices = [table.choose(np.flatnonzero(folds != fold)) for fold in range(_N_FOLDS)]
    predicted = (
        label_at_size(
            image.load(),
            image.truth.shape,
            _settings(choice.threshold, choice.seed_threshold).model_copy(
                update={"min_area_px": choice.min_area_px}
            ),
        )
        for image, fold in zip(found, folds, strict=True)
        for choice in [choices[fold]]
    )
    matches = match_label_images(predicted, (image.truth for image in found))
    nuclei = instance_scores(matches, rng=np.random.default_rng(0))
    counts = count_scores(
        matches.n_predicted, matches.n_true, rng=np.random.default_rng(0)
    )
    return {
        "AP(.5)": nuclei.ap_pooled[0],
        "mean AP(.5-.9)": nuclei.mean_ap_pooled_50_90,
        "F1(.5)": nuclei.f1_pooled[0],
        "count error": counts.count_error,
        "bias": counts.bias,
    }


def assign_folds(groups: Sequence[str]) -> NDArray[np.intp]:
    """Put the images of each group into halves, by turns."""
    seen: dict[str, int] = {}
    folds = []
    for group in groups:
        folds.append(seen.get(group, 0) % _N_FOLDS)
        seen[group] = seen.get(group, 0) + 1
    return np.array(folds, dtype=np.intp)
