"""Maps of labelled images, predicted once and kept in a folder."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nucleiseg.counting import Prepared, claim
from nucleiseg.devices import available_cores
from nucleiseg.errors import ArchiveError, RunError
from nucleiseg.evaluation import LabelDataset, open_labels, read_pieces
from nucleiseg.inference import Engine
from nucleiseg.progress import Progress
from nucleiseg.runs import CountRun
from nucleiseg.shards import DatasetShare


@dataclass(frozen=True)
class LabelledMaps:
    """One image's maps in the network's size, and its true nuclei."""

    group: str
    """Name of its dataset."""
    maps_path: Path
    """npy file, (h, w, C) float16."""
    truth: NDArray[np.integer[Any]]
    """(H, W) label image."""

    def load(self) -> NDArray[np.float32]:
        """Read the maps, (h, w, C) float32."""
        maps: NDArray[np.float32] = np.load(self.maps_path).astype(np.float32)
        return maps


def predict_labelled(
    prepared: Prepared, labels: str, folder: Path
) -> list[LabelledMaps]:
    """Predict images that have labels, as a count of them would.

    Parameters
    ----------
    prepared : Prepared
        A planned count of the images.
    labels : str
        `ARCHIVE:KEY` of their labels, a glob where there are several datasets.
    folder : Path
        Takes the run and the maps.

    Raises
    ------
    RunError
        Images and labels do not fit each other.
    ArchiveError
        An image or label cannot be read.
    """
    run = CountRun(folder / "run")
    claim(run, prepared.plan, prepared.config, prepared.model)
    truths = open_labels(labels)
    shares = prepared.plan.dataset_shares
    _check(shares, truths)
    found: list[LabelledMaps] = []
    with (
        contextlib.closing(Engine(run, n_threads=available_cores())) as engine,
        Progress(prepared.plan.n_images, label="predicting", unit="images") as progress,
    ):
        for share, truth in zip(shares, truths, strict=True):
            for index, labels_of_image in enumerate(_read_labels(truth)):
                path = folder / f"{len(found):06d}.npy"
                try:
                    maps = engine.predict_maps(share, index)
                except ArchiveError as error:
                    raise ArchiveError(
                        f"{truth.group}: image {index}: {error}"
                    ) from error
                np.save(path, maps.astype(np.float16))
                found.append(LabelledMaps(truth.group, path, labels_of_image))
                progress.update(1)
    return found


def _read_labels(truth: LabelDataset) -> Iterator[NDArray[np.integer[Any]]]:
    for piece in read_pieces(truth):
        # A copy: a view would hold the whole piece.
        yield from (image.astype(np.int32) for image in piece)


def _check(
    shares: tuple[DatasetShare, ...] | list[DatasetShare], truths: list[LabelDataset]
) -> None:
    images = [(share.n_images, *share.image_shape) for share in shares]
    labels = [(one.info.n_images, *one.info.image_shape) for one in truths]
    if images != labels:
        names = ", ".join(share.dataset for share in list(shares)[:4])
        groups = ", ".join(one.group for one in truths[:4])
        raise RunError(
            f"images {names} are {images[:4]} and labels {groups} are {labels[:4]}; "
            "name the labels of the same images, in the same order (images, rows, "
            "columns)"
        )
