"""What is known of how large a dataset's nuclei are, in a file that binds all workers.

Datasets of less than four million pixels are looked at together with those of the same
archive and image shape: for a plate whose wells are datasets of a few images each, or
an archive with a dataset an image, looking would else cost more than counting.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from nucleiseg.atomic import create_private, publish_json, read_json
from nucleiseg.errors import RunError
from nucleiseg.runs import CountRun
from nucleiseg.shards import DatasetShare, Plan

_POOLED_PIXELS = 2**22

Way = Literal["given", "estimated", "no nuclei", "in blocks"]


@dataclass(frozen=True)
class DatasetScale:
    """What is known of a dataset, or of several small ones that are alike."""

    archive: str
    """As the table names it."""
    datasets: tuple[str, ...]
    """Those it holds for."""
    scale: float
    """By how much the network sees the images enlarged."""
    diameter_px: float | None
    """Of their nuclei, as stored; None where none were found, or nobody looked."""
    wanted_px: float
    """Of the network's nuclei."""
    way: Way
    """How the diameter is known, or why the images keep their size."""
    n_nuclei: int = 0
    """Nuclei that were measured."""
    n_images: int = 0
    """Images that were looked at."""
    worse_scale: float | None = None
    """What the diameter speaks for, where the network was surer of them unscaled."""

    def __str__(self) -> str:
        name = f"{self.archive}:{self.datasets[0]}"
        if len(self.datasets) > 1:
            name += f" and {len(self.datasets) - 1} like it"
        if self.way == "in blocks":
            return f"{name}: images keep their size, as all that are counted in blocks"
        if self.diameter_px is None:
            why = "no nuclei were found to measure"
            if self.n_nuclei:
                why = (
                    f"the {self.n_nuclei:,} nuclei found on {self.n_images:,} of them "
                    "are too few, or too far from the network's, to measure "
                    "(--diameter says theirs)"
                )
            return f"{name}: images keep their size, {why}"
        what = "keep their size"
        if self.scale != 1:
            what = f"are enlarged {self.scale:.2f} times"
        if self.scale < 1:
            what = f"are reduced to {self.scale:.2f}"
        said = (
            f"{name}: images {what}, nuclei of {self.diameter_px:.3g} px "
            f"({self.way}), the network's {self.wanted_px:.3g}"
        )
        if self.worse_scale is not None:
            said += f"; enlarged {self.worse_scale:.2f} times it is less sure of them"
        return said


def group_datasets(plan: Plan) -> list[tuple[DatasetShare, ...]]:
    """Group the datasets of a plan by what is looked at together, in its order."""
    groups: dict[object, list[DatasetShare]] = {}
    for share in plan.dataset_shares:
        height, width = share.image_shape
        is_small = share.n_images * height * width < _POOLED_PIXELS
        others = share.image_shape if is_small else share.dataset
        groups.setdefault((share.archive, others), []).append(share)
    return [tuple(group) for group in groups.values()]


def publish_scale(
    run: CountRun,
    plan: Plan,
    group: Sequence[DatasetShare],
    found: DatasetScale,
    *,
    compute: str,
) -> DatasetScale:
    """Leave a scale for all workers, or take that of who came first.

    Parameters
    ----------
    run : CountRun
    plan : Plan
    group : sequence of DatasetShare
        What it was found for.
    found : DatasetScale
    compute : str
        Identity of the compute setting it was found with.
    """
    path = _find_path(run, plan, group)
    create_private(path.parent)
    publish_json(path, {**asdict(found), "plan": plan.identity, "compute": compute})
    known = read_scale(run, plan, group, compute=compute)
    assert known is not None
    return known


def read_scale(
    run: CountRun,
    plan: Plan,
    group: Sequence[DatasetShare],
    *,
    compute: str | None = None,
) -> DatasetScale | None:
    """Read the scale of a group of datasets; None where nobody has looked yet.

    Raises
    ------
    RunError
        The file is damaged, or belongs to another plan or compute setting.
    """
    path = _find_path(run, plan, group)
    if not path.exists():
        return None
    values: dict[str, Any] = read_json(path)
    expected = {"plan": plan.identity, "compute": compute}
    try:
        for key, value in expected.items():
            found = values.pop(key)
            if value is not None and found != value:
                raise RunError(
                    f"{path} belongs to another {key} ({found!r}, expected {value!r}); "
                    "use another --run"
                )
        return DatasetScale(**{**values, "datasets": tuple(values["datasets"])})
    except (KeyError, TypeError, AttributeError) as error:
        raise RunError(f"{path} is damaged ({error}); use another --run") from error


def read_scales(
    run: CountRun, plan: Plan, *, most: int | None = None
) -> list[DatasetScale]:
    """Read what is known so far, in the order of the plan.

    Parameters
    ----------
    run : CountRun
    plan : Plan
    most : int, optional
        Groups of datasets to ask for; None: all.

    Returns
    -------
    list of DatasetScale
        Nothing where the model has no diameter.

    Raises
    ------
    RunError
        A file is damaged, or belongs to another plan.
    """
    if not run.scales.is_dir():
        return []
    found = (read_scale(run, plan, group) for group in group_datasets(plan)[:most])
    return [scale for scale in found if scale is not None]


def _find_path(run: CountRun, plan: Plan, group: Sequence[DatasetShare]) -> Path:
    first = group[0]
    names = [str(plan.archives[first.archive].fingerprint), str(first.image_shape)]
    names += [share.dataset for share in group]
    text = "\n".join(names).encode("utf-8", "surrogateescape")
    return run.scales / f"{hashlib.sha256(text).hexdigest()[:32]}.json"
