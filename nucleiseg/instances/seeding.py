"""Nuclei grown from seeds: components of the mask, parted where they hold several.

Nearly all components hold one seed or none and are a nucleus as they are; only the
others are flooded.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from nucleiseg.instances.flooding import flood


@dataclass(frozen=True, eq=False)
class Nuclei:
    """The nuclei of an image, or of a block of one, of any area."""

    n_labels: int
    """Nuclei, and one for the background."""
    labels: NDArray[np.int32]
    """(H, W), C-contiguous, 0 = background, 1…n_labels - 1 = nuclei."""
    seeds: NDArray[np.bool_]
    """(H, W) the pixels whose 8-connected components are one nucleus each; without a
    marker map the whole mask."""
    is_seeded: NDArray[np.bool_]
    """(n_labels,) whether the nucleus grew from a seed."""


def label_mask(mask: NDArray[np.bool_]) -> tuple[int, NDArray[np.int32]]:
    """Label the 8-connected components of a mask.

    Parameters
    ----------
    mask : (H, W) bool ndarray
        C-contiguous.

    Returns
    -------
    n_labels : int
        Components, and one for the background.
    labels : (H, W) int32 ndarray
        0 = background, 1…n_labels - 1 = components, in OpenCV's order: that of their
        first pixels, by pairs of rows.
    """
    n_labels, labels = cv2.connectedComponents(mask.view(np.uint8), connectivity=8)
    return int(n_labels), labels


def take_components(mask: NDArray[np.bool_]) -> Nuclei:
    """Take each 8-connected component of a mask for a nucleus, (H, W) C-contiguous."""
    n_labels, labels = label_mask(mask)
    return Nuclei(n_labels, labels, mask, np.ones(n_labels, dtype=np.bool_))


def grow_seeds(
    mask: NDArray[np.bool_], marker: NDArray[np.float32], seed_threshold: float
) -> Nuclei:
    """Part the components of a mask that hold several seeds.

    Parameters
    ----------
    mask : (H, W) bool ndarray
        C-contiguous.
    marker : (H, W) float32 ndarray, in [0, 1]
        High in the middle of each nucleus.
    seed_threshold : float
        The 8-connected components of higher pixels within the mask are seeds.

    Returns
    -------
    Nuclei
        A component without a seed is one nucleus. They are numbered component by
        component, and within one in the order of its seeds.
    """
    n_components, components = label_mask(mask)
    seeds = marker > seed_threshold
    seeds &= mask
    n_seeds, seed_labels = label_mask(seeds)
    places = np.flatnonzero(seeds)
    # Component of each seed, whichever of its pixels says so.
    owners = np.zeros(n_seeds, dtype=np.int32)
    owners[seed_labels.ravel()[places]] = components.ravel()[places]
    per_component = np.bincount(owners[1:], minlength=n_components)
    per_component[0] = 1
    if per_component.max() <= 1:
        return Nuclei(n_components, components, seeds, per_component > 0)

    n_nuclei = np.maximum(per_component, 1)
    firsts = np.cumsum(n_nuclei) - n_nuclei
    order = np.argsort(owners[1:], kind="stable")
    sorted_owners = owners[1:][order]
    numbers = np.zeros(n_seeds, dtype=np.int32)
    # Within its component, a seed comes so many places after the first of it.
    rank = np.arange(n_seeds - 1) - np.searchsorted(sorted_owners, sorted_owners)
    numbers[1:][order] = firsts[sorted_owners] + rank

    # In components with one seed there is nothing to flood.
    numbers[per_component[owners] <= 1] = 0
    labels = np.zeros(mask.shape, dtype=np.int32)
    labels.ravel()[places] = numbers[seed_labels.ravel()[places]]
    # A block of a large image is large: what is not needed is not kept.
    del seed_labels, places
    is_whole = (per_component <= 1).take(components)
    flood(marker, ~is_whole, labels)
    np.copyto(labels, firsts.astype(np.int32).take(components), where=is_whole)
    is_seeded = np.repeat(per_component > 0, n_nuclei)
    return Nuclei(len(is_seeded), labels, seeds, is_seeded)
