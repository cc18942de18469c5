"""From a bundle and labelled images to its thresholds and its calibration."""

import itertools
import logging
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from nucleiseg.bundle import BundleInfo, find_tuned, read_bundle, write_tuned
from nucleiseg.config import Config, InstancesConfig
from nucleiseg.counting import prepare
from nucleiseg.devices import available_cores
from nucleiseg.errors import RunError
from nucleiseg.evaluation import AREAS_PX, Choice, Found, Table, measure_found
from nucleiseg.instances import label_all_at_size
from nucleiseg.model import n_maps
from nucleiseg.progress import Progress
from nucleiseg.provenance import describe_environment
from nucleiseg.tuning.confidence import calibrate
from nucleiseg.tuning.crossing import Crossed, apply_choice, cross, label_and_judge
from nucleiseg.tuning.labelled_maps import LabelledMaps, predict_labelled

logger = logging.getLogger(__name__)

_THRESHOLDS = (0.3, 0.4, 0.5, 0.6, 0.7)
_SEED_THRESHOLDS = tuple(round(0.05 * k, 2) for k in range(4, 18))
# With fewer images a half is too few to choose on.
_LEAST_IMAGES = 4


@dataclass(frozen=True)
class Tuned:
    """What tuning came to."""

    bundle: BundleInfo
    before: InstancesConfig
    choice: Choice
    crossed: Crossed
    n_images: int


def tune(
    model: str | Path | None,
    images: Sequence[str],
    labels: str,
    config: Config,
    *,
    out: Path | None = None,
) -> Tuned:
    """Choose thresholds and calibrate the confidence on labelled images; store both.

    Foreground threshold, seed threshold and smallest area are chosen jointly, for the
    highest sum of pooled AP at 0.50 and mean AP from 0.50 to 0.90, minus count error
    and |bias|. The calibration is that of the nuclei that are found with them.

    Parameters
    ----------
    model : str, Path or None
        See :func:`nucleiseg.bundle.read_bundle`.
    images : sequence of str
        `ARCHIVE:KEY` each.
    labels : str
        `ARCHIVE:KEY` of the labels of these images, in their order.
    config : Config
        Sections inference and shards are used, and `instances.views`, which is kept
        with the thresholds. Of these, what is set in `instances` stays as it is set.
    out : Path, optional
        Folder of a new bundle with both; by default they are stored in the
        bundle itself, which one in the box does not allow.

    Raises
    ------
    BundleError, RunError, ArchiveError
        Something does not fit, and nothing has been written.
    """
    info = read_bundle(model)
    # Before all images are predicted, not after.
    find_tuned(info, out)
    prepared = prepare(images, model, config, workers=1)
    if prepared.plan.unreadable:
        failed = prepared.plan.describe(prepared.plan.unreadable[0])
        raise RunError(f"{failed} cannot be read; mend it, or name the others only")
    if prepared.plan.n_images < _LEAST_IMAGES:
        raise RunError(
            f"{prepared.plan.n_images} labelled images are too few to choose "
            f"thresholds on; name {_LEAST_IMAGES} or more"
        )
    before = info.instances.model_copy(
        update={"views": prepared.config.instances.views}
    )
    with tempfile.TemporaryDirectory(prefix="nucleiseg-tune-") as folder:
        found = predict_labelled(prepared, labels, Path(folder))
        pairs, areas_px = _make_candidates(info, config.instances)
        table = Table(pairs, _measure(found, pairs, before), areas_px)
        choice = table.choose()
        instances = apply_choice(choice, before)
        crossed = cross(found, table, before)
        calibration = calibrate(
            [label_and_judge(image, instances)[1] for image in found]
        )
    if calibration is None:
        logger.warning("no nuclei were found, and the confidence is not calibrated")
    tuning = {
        "images": list(images),
        "labels": labels,
        "n_images": len(found),
        "choice": choice.as_dict(),
        "cross_fitted": crossed.as_dict(),
        "curve": table.curve(),
        "environment": describe_environment(),
    }
    bundle = write_tuned(info, instances, tuning, calibration=calibration, out=out)
    return Tuned(bundle, info.instances, choice, crossed, len(found))


def _make_candidates(
    info: BundleInfo, wanted: InstancesConfig
) -> tuple[list[tuple[float, float]], Sequence[int]]:
    """Make the pairs of thresholds and the smallest areas to try.

    Where nothing is seeded one seed each; and of what somebody has set, that alone.
    """
    is_seeded = n_maps(info.model) == 2 and info.instances.method != "components"
    thresholds: Sequence[float] = _THRESHOLDS
    seeds = _SEED_THRESHOLDS if is_seeded else (info.instances.seed_threshold,)
    areas_px: Sequence[int] = AREAS_PX
    if "threshold" in wanted.model_fields_set:
        thresholds = (wanted.threshold,)
    if is_seeded and "seed_threshold" in wanted.model_fields_set:
        seeds = (wanted.seed_threshold,)
    if "min_area_px" in wanted.model_fields_set:
        areas_px = (wanted.min_area_px,)
    return list(itertools.product(thresholds, seeds)), areas_px


def _measure(
    found: list[LabelledMaps], pairs: list[tuple[float, float]], before: InstancesConfig
) -> list[list[Found]]:
    """Measure the nuclei of every image for every pair of thresholds."""
    candidates = [
        before.model_copy(update={"threshold": threshold, "seed_threshold": seed})
        for threshold, seed in pairs
    ]

    def measure(image: LabelledMaps) -> list[Found]:
        maps = image.load()
        measured = []
        for settings in candidates:
            labels, areas = label_all_at_size(maps, image.truth.shape, settings)
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
