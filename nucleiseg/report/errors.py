"""Pictures of what a prediction got wrong, each kind of error in its own colour."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nucleiseg.metrics import Fates, judge_nuclei
from nucleiseg.report.outlines import trace_nuclei
from nucleiseg.report.page import SOFT_INK, Line, legend, page, panel, write_png
from nucleiseg.report.pixels import (
    LONGEST_SIDE_PX,
    Array,
    Grey,
    as_pair,
    as_plane,
    display_scale,
    rescale,
    scaled_shape,
    stretch,
)

RGB = tuple[int, int, int]

ERROR_COLOURS: dict[str, RGB] = {
    "hit": (0, 140, 115),  # green, the darkest: errors stand out
    "missed": (235, 60, 0),  # vermilion
    "false": (255, 240, 60),  # yellow
    "split": (200, 60, 255),  # violet
    "merged": (40, 235, 255),  # cyan
}
"""RGB, told apart on black with any colour vision: found by search, so that seen with
normal vision or without one kind of cones, any two are 38 apart in CIELAB (Okabe and
Ito's own, made for white, come as near as 15)."""

_HALF_PX = LONGEST_SIDE_PX // 2
_WIDE = 1.6  # width by height from which the two pictures stand below each other
_CLEAR_PX = 30  # of nuclei smaller than this on display, outlines run into one another
_FINEST_SIDE_PX = 2600


class _Kinds(NamedTuple):
    """What to draw of one image: the kind of each nucleus that is drawn."""

    true: dict[int, str]
    predicted: dict[int, str]
    n_shown: dict[str, int]


def save_errors(
    path: Path,
    image: ArrayLike | None,
    predicted: ArrayLike,
    truth: ArrayLike,
    *,
    title: str,
) -> Path:
    """Save one field with hits, misses, false nuclei, splits and merges outlined.

    A *hit* is outlined as predicted, a *missed* nucleus as it is in the truth, a
    *false* one as predicted. Of a *split* nucleus the true outline and those of its
    pieces are drawn, of a *merge* the predicted outline and those of the true nuclei in
    it. What is split or merged is drawn as that only, though it may be a hit or a miss
    as well: the legend counts what is drawn.

    Parameters
    ----------
    path : Path
    image : (H, W) ndarray, any real dtype and range, or None
        Stretched for display, and shown beside; without it outlines are on black.
    predicted, truth : (H, W) integer ndarray, 0 = background
        Label images.
    title : str
        Where the image is from: archive, dataset and index.

    Returns
    -------
    Path
    """
    found, true = as_pair(predicted, truth, name="truth")
    fates = judge_nuclei(found, true)
    kinds = _sort_nuclei(fates)
    is_wide = found.shape[1] >= _WIDE * found.shape[0]
    limit = LONGEST_SIDE_PX if is_wide else _HALF_PX
    scale = _clear_scale(true, display_scale(found.shape, limit=limit))
    grey = _show(image, found, scale)
    errors = draw_errors(grey, found, true, fates, scale=scale)
    small = int(np.clip(errors.shape[1] // 40, 14, 26))
    union = len(fates.is_right) + len(fates.is_found) - int(fates.is_found.sum())
    heads = [
        f"{len(fates.predicted_labels):,} predicted, {len(fates.true_labels):,} true",
        f"AP(.50) {fates.is_found.sum() / union:.2f}" if union else "no nuclei",
    ]
    panels = [
        panel(
            picture,
            [Line(head, small + 6, is_bold=True), Line(words, small, SOFT_INK)],
        )
        for picture, head, words in zip(
            (grey, errors), heads, (title, "errors at IoU 0.5"), strict=True
        )
    ]
    entries = [
        (f"{name} {kinds.n_shown[name]:,}", colour)
        for name, colour in ERROR_COLOURS.items()
    ]
    below = legend(entries, size_px=small, width=panels[1].shape[1])
    gap = np.full((small // 2, *below.shape[1:]), 255, np.uint8)
    panels[1] = np.vstack([panels[1], gap, below])
    return write_png(path, page([[one] for one in panels] if is_wide else [panels]))


def save_ways(
    path: Path,
    image: ArrayLike,
    ways: Sequence[tuple[str, ArrayLike]],
    truth: ArrayLike,
    *,
    title: str,
) -> Path:
    """Save one field as several ways see it, the errors of each outlined.

    Parameters
    ----------
    path : Path
    image : (H, W) ndarray, any real dtype and range
    ways : sequence of (name, (H, W) integer ndarray)
        What each found, as label images.
    truth : (H, W) integer ndarray, 0 = background
    title : str
        Where the image is from.

    Returns
    -------
    Path

    Notes
    -----
    Outlines are those of :func:`save_errors`.
    """
    plane, true = as_pair(as_plane(image, "image"), truth, name="truth")
    scale = _clear_scale(true, display_scale(true.shape, limit=_HALF_PX))
    grey = stretch(rescale(plane, scale))
    small = int(np.clip(grey.shape[1] // 28, 14, 26))
    n_true = np.unique(true[true > 0]).size
    lines = [Line(f"{n_true:,} nuclei", small + 6, is_bold=True)]
    panels = [panel(grey, [*lines, Line(title, small, SOFT_INK)])]
    for name, labels in ways:
        found, _ = as_pair(labels, true, name="truth")
        fates = judge_nuclei(found, true)
        shown = _sort_nuclei(fates).n_shown
        lines = [
            Line(f"{len(fates.predicted_labels):,} found", small + 6, is_bold=True),
            Line(name, small, SOFT_INK),
        ]
        picture = draw_errors(grey, found, true, fates, scale=scale)
        entries = [
            (f"{kind} {shown[kind]:,}", rgb) for kind, rgb in ERROR_COLOURS.items()
        ]
        below = legend(entries, size_px=small, width=picture.shape[1])
        gap = np.full((small // 2, *below.shape[1:]), 255, np.uint8)
        panels.append(np.vstack([panel(picture, lines), gap, below]))
    return write_png(path, page([panels]))


def draw_errors(
    grey: Grey, predicted: Array, truth: Array, fates: Fates, *, scale: float
) -> Grey:
    """Outline the nuclei of both sides by what became of them.

    Parameters
    ----------
    grey : (round(H * scale), round(W * scale)) uint8 ndarray
        The image on display.
    predicted, truth : (H, W) integer ndarray, 0 = background
    fates : Fates
        Of both.
    scale : float
        Display pixels per image pixel.

    Returns
    -------
    (round(H * scale), round(W * scale), 3) uint8 ndarray, RGB
    """
    canvas = np.ascontiguousarray(np.repeat(grey[..., None], 3, axis=2))
    kinds = _sort_nuclei(fates)
    # Hits first, so that no error is hidden under one.
    for names in (("hit",), ("false", "missed"), ("split", "merged")):
        for labels, sorted_labels in (
            (predicted, kinds.predicted),
            (truth, kinds.true),
        ):
            colours = {
                label: ERROR_COLOURS[name]
                for label, name in sorted_labels.items()
                if name in names
            }
            if colours:
                trace_nuclei(canvas, labels, colours, scale=scale)
    return canvas


def _sort_nuclei(fates: Fates) -> _Kinds:
    """Give each nucleus that is drawn its one kind, splits and merges first."""
    is_merged, is_split = fates.is_merged, fates.is_split & ~fates.is_merged
    is_missed = ~fates.is_found & ~is_merged & ~is_split
    true = _name_labels(
        fates.true_labels, merged=is_merged, split=is_split, missed=is_missed
    )
    is_merge, is_piece = fates.is_merge, fates.is_piece & ~fates.is_merge
    is_alone = ~is_merge & ~is_piece
    predicted = _name_labels(
        fates.predicted_labels,
        merged=is_merge,
        split=is_piece,
        hit=is_alone & fates.is_right,
        false=is_alone & ~fates.is_right,
    )
    shown = {
        "hit": is_alone & fates.is_right,
        "missed": is_missed,
        "false": is_alone & ~fates.is_right,
        "split": is_split,
        "merged": is_merged,
    }
    return _Kinds(true, predicted, {name: int(x.sum()) for name, x in shown.items()})


def _name_labels(
    labels: NDArray[np.int64], **kinds: NDArray[np.bool_]
) -> dict[int, str]:
    """Name the kind of each label that is of one."""
    return {
        label: name
        for name, is_kind in kinds.items()
        for label in labels[is_kind].tolist()
    }


def _clear_scale(truth: Array, scale: float) -> float:
    """Double a scale at which the usual nucleus would be small, if there is room."""
    areas = np.unique(truth[truth > 0], return_counts=True)[1]
    if not areas.size or np.sqrt(np.median(areas)) * scale >= _CLEAR_PX:
        return scale
    # Below 1 pixels are merged, and above it repeated: only whole factors look alike.
    has_room = scale >= 1 and 2 * scale * max(truth.shape) <= _FINEST_SIDE_PX
    return 2 * scale if has_room else scale


def _show(image: ArrayLike | None, labels: Array, scale: float) -> Grey:
    """Return the image on display, or black."""
    if image is None:
        return np.zeros(scaled_shape(labels.shape, scale), np.uint8)
    plane, _ = as_pair(as_plane(image, "image"), labels, name="predicted")
    return stretch(rescale(plane, scale))
