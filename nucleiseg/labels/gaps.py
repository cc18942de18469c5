"""Which label images of a file are empty because nothing is known of the image."""

import os
from dataclasses import dataclass
from pathlib import Path

import h5py

from nucleiseg.errors import RunError


@dataclass(frozen=True)
class Gaps:
    """What :meth:`LabelDataset.note` wrote beside the label images of a dataset."""

    failed: tuple[int, ...]
    """Positions of the images that failed, as many as are written down."""
    n_failed: int
    n_missing: int
    """Images that were not computed, of which the positions are not known."""


def read_gaps(path: Path, key: str) -> Gaps | None:
    """Read which images of a dataset of label images failed or are missing.

    Parameters
    ----------
    path : Path
        An archive of any kind.
    key : str
        Of a dataset in it.

    Returns
    -------
    Gaps or None
        None where the dataset was not written by :class:`LabelFile`.

    Raises
    ------
    RunError
        What is written there cannot be.
    """
    if not h5py.is_hdf5(path):
        return None
    is_set_by_site = "HDF5_USE_FILE_LOCKING" in os.environ
    with h5py.File(path, "r", locking=None if is_set_by_site else False) as file:
        attributes = dict(file[key].attrs)
    if "n_failed" not in attributes:
        return None
    try:
        return Gaps(
            tuple(int(index) for index in attributes.get("failed", ())),
            int(attributes["n_failed"]),
            int(attributes.get("n_missing", 0)),
        )
    except (TypeError, ValueError) as error:
        raise RunError(
            f"{path}:{key} has attributes n_failed, failed or n_missing that are no "
            f"whole numbers ({error}); make it again with nucleiseg segment"
        ) from error
