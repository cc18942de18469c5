"""Where a nucleus goes: alone, or just touching one that is there already."""

import cv2
import numpy as np
from numpy.typing import NDArray

MIN_AREA_PX = 10
"""Smaller pieces, left over at the border or under a neighbour, are not drawn."""

Window = tuple[slice, ...]
"""Rows and columns cut out of an image."""

_MAX_OVERLAP = 0.12
_N_TRIES = 12


def find_place(
    mask: NDArray[np.uint8],
    labels: NDArray[np.uint16],
    centres: list[NDArray[np.float64]],
    rng: np.random.Generator,
    cluster_share: float,
) -> tuple[int, int] | None:
    """Find the corner of a patch where its nucleus lies alone, or just touches."""
    reach = cv2.dilate(mask, np.ones((3, 3), np.uint8))
    half = np.divide(mask.shape, 2)
    is_clustered = bool(centres) and rng.random() < cluster_share
    for _ in range(_N_TRIES):
        if is_clustered:
            start = centres[rng.integers(len(centres))]
            turn = rng.uniform(0, 2 * np.pi)
            step = np.array([np.sin(turn), np.cos(turn)])
        else:
            margin = 0.6 * half
            start = rng.uniform(-margin, labels.shape + margin)
            step = np.zeros(2)
        # From its neighbour's centre a nucleus moves outwards until they touch.
        for distance in range(int(4 * half[0]) if is_clustered else 1):
            y, x = np.rint(start + distance * step - half).astype(int).tolist()
            n_visible, n_taken, n_near = _count_conflicts((y, x), mask, reach, labels)
            if n_visible - n_taken < MIN_AREA_PX or n_taken > _MAX_OVERLAP * n_visible:
                continue
            if is_clustered == (n_near > 0):
                return y, x
            break
    return None


def overlap_windows(
    corner: tuple[int, int], patch_shape: tuple[int, ...], shape: tuple[int, ...]
) -> tuple[Window, Window]:
    """Cut a patch at the field's border: its window of the field, and of itself."""
    field, patch = [], []
    for at, size, side in zip(corner, patch_shape, shape, strict=True):
        start = min(max(at, 0), side)
        stop = min(max(at + size, start), side)
        field.append(slice(start, stop))
        patch.append(slice(start - at, stop - at))
    return tuple(field), tuple(patch)


def _count_conflicts(
    corner: tuple[int, int],
    mask: NDArray[np.uint8],
    reach: NDArray[np.uint8],
    labels: NDArray[np.uint16],
) -> tuple[int, int, int]:
    """Count the pixels inside the field, those taken, and those taken or next to it."""
    field, patch = overlap_windows(corner, mask.shape, labels.shape)
    taken = (labels[field] > 0).view(np.uint8)
    return (
        int(np.count_nonzero(mask[patch])),
        int(np.count_nonzero(mask[patch] & taken)),
        int(np.count_nonzero(reach[patch] & taken)),
    )
