"""By how much the images of a run are enlarged: found when a dataset is first met."""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from nucleiseg.archives import Reader
from nucleiseg.config import InferenceConfig, InstancesConfig, PreprocessConfig
from nucleiseg.errors import ArchiveError
from nucleiseg.inference.estimating import Predict, estimate_diameter
from nucleiseg.inference.outages import get_errno, refuse_outage
from nucleiseg.inference.scale_records import (
    DatasetScale,
    group_datasets,
    publish_scale,
    read_scale,
)
from nucleiseg.inference.sureness import is_surer_unscaled
from nucleiseg.preprocess import choose_scale, limit_scale, normalise
from nucleiseg.runs import CountRun
from nucleiseg.shards import DatasetShare, Entry, Plan

logger = logging.getLogger(__name__)

# Images that are looked at: fewer of very large ones.
_MOST_IMAGES = 8
_LEAST_IMAGES = 3
_SAMPLE_PIXELS = 2**25

FloatImage = NDArray[np.float32]
Group = tuple[DatasetShare, ...]
OpenDataset = Callable[[int, str], Reader]
"""Opens a dataset by the number of its archive and its key."""


class Scales:
    """Finds the scales of a run's datasets, or takes what another worker found.

    Parameters
    ----------
    run : CountRun
    plan : Plan
    preprocess : PreprocessConfig
        Of the model: with the diameter of its nuclei, or images keep their size.
    instances : InstancesConfig
    compute : str
        Identity of the compute setting.
    open_dataset : callable
    predict : callable
    """

    def __init__(
        self,
        run: CountRun,
        plan: Plan,
        preprocess: PreprocessConfig,
        instances: InstancesConfig,
        *,
        compute: str,
        open_dataset: OpenDataset,
        predict: Predict,
    ) -> None:
        self._run = run
        self._plan = plan
        self._preprocess = preprocess
        self._instances = instances
        self._compute = compute
        self._open_dataset = open_dataset
        self._predict = predict
        self._known: dict[Group, float] = {}

    def find(self, source: Entry | DatasetShare) -> float:
        """Find by how much the network sees the images of a shard enlarged.

        The same for all workers, whoever looks first: it depends on the dataset, the
        model and the compute setting only.

        Raises
        ------
        RunError
            What was found is damaged, or another run's.
        IncompleteError
            The file system is away.
        """
        wanted_px = self._preprocess.diameter_px
        if wanted_px is None:
            return 1.0
        group = self._groups[source.archive, str(source.dataset)]
        if group not in self._known:
            place = (self._run, self._plan, group)
            known = read_scale(*place, compute=self._compute)
            if known is None:
                found = self._look(group, wanted_px)
                logger.info("%s", found)
                known = publish_scale(*place, found, compute=self._compute)
            self._known[group] = known.scale
        return self._known[group]

    @cached_property
    def _groups(self) -> dict[tuple[int, str], Group]:
        return {
            (share.archive, share.dataset): group
            for group in group_datasets(self._plan)
            for share in group
        }

    @cached_property
    def _in_blocks(self) -> set[tuple[int, str]]:
        """Datasets whose images are counted in blocks."""
        shards = self._plan.shards
        firsts = shards.select(shards.is_block & (shards.n_new_images > 0))
        return {(shard.archive, str(shard.dataset)) for shard in firsts}

    def _look(self, group: Group, wanted_px: float) -> DatasetScale:
        archive = self._plan.archives[group[0].archive].name
        names = tuple(share.dataset for share in group)
        settings = InferenceConfig.model_validate(self._plan.settings["inference"])
        given_px = settings.diameter_px
        kept = DatasetScale(archive, names, 1.0, None, wanted_px, "no nuclei")
        if (group[0].archive, group[0].dataset) in self._in_blocks:
            return replace(kept, diameter_px=given_px, way="in blocks")
        if given_px is not None:
            scale = find_scale(given_px, self._preprocess, group[0].image_shape)
            return replace(kept, scale=scale, diameter_px=given_px, way="given")
        images = list(self._read_sample(group))
        found = estimate_diameter(images, self._predict, self._instances, wanted_px)
        kept = replace(kept, n_nuclei=found.n_nuclei, n_images=len(images))
        if found.diameter_px is None:
            return kept
        scale = find_scale(found.diameter_px, self._preprocess, group[0].image_shape)
        diameter_px = round(found.diameter_px, 2)
        kept = replace(kept, scale=scale, diameter_px=diameter_px, way="estimated")
        # Without a calibration nobody knows what its scores are worth.
        if (
            scale > 1
            and (calibration := self._plan.calibration) is not None
            and is_surer_unscaled(
                images, scale, self._predict, self._instances, calibration
            )
        ):
            return replace(kept, scale=1.0, worse_scale=scale)
        return kept

    def _read_sample(self, group: Group) -> Iterator[FloatImage]:
        """Read images spread evenly over a group, normalised; those that can be.

        Raises
        ------
        IncompleteError
            The file system is away, or gives none of them: what is found binds all
            images of the group, and `retry` does not look again.
        """
        is_any_read = False
        sector: ArchiveError | None = None
        for share, indices in spread(group):
            for index in indices:
                try:
                    with self._open_dataset(share.archive, share.dataset) as reader:
                        pixels = reader.read(index, index + 1)[0]
                    is_any_read = True
                    yield normalise(pixels, self._preprocess)
                except ArchiveError as error:
                    refuse_outage(error)
                    if get_errno(error) is not None:
                        sector = error
                    # Counting meets and names it, too.
                    logger.info("image %d is not looked at: %s", index, error)
        if sector is not None and not is_any_read:
            refuse_outage(sector, of_file=True)


def find_scale(
    diameter_px: float, preprocess: PreprocessConfig, image_shape: tuple[int, int]
) -> float:
    """Find by how much images with nuclei of a diameter are enlarged.

    Parameters
    ----------
    diameter_px : float
        Of their nuclei.
    preprocess : PreprocessConfig
        With the diameter of the network's.
    image_shape : (int, int)
        As stored.
    """
    assert preprocess.diameter_px is not None
    scale = choose_scale(
        diameter_px, preprocess.diameter_px, share=preprocess.rescaling
    )
    return limit_scale(scale, image_shape)


def spread(group: Sequence[DatasetShare]) -> list[tuple[DatasetShare, list[int]]]:
    """Choose the images to look at, evenly over all datasets of a group."""
    ends = np.cumsum([share.n_images for share in group])
    height, width = group[0].image_shape
    most = max(_LEAST_IMAGES, min(_MOST_IMAGES, _SAMPLE_PIXELS // (height * width)))
    number = min(most, int(ends[-1]))
    places = (2 * np.arange(number) + 1) * int(ends[-1]) // (2 * number)
    owners = np.searchsorted(ends, places, side="right")
    chosen = []
    for owner in np.unique(owners):
        first = int(ends[owner]) - group[owner].n_images
        indices = (places[owners == owner] - first).tolist()
        chosen.append((group[int(owner)], indices))
    return chosen
