"""Thin outlines of nuclei, drawn at the resolution of the display."""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from nucleiseg.report.pixels import Array, Grey, scaled_shape

COLOURS: tuple[tuple[int, int, int], ...] = (
    (255, 165, 20),  # orange
    (60, 200, 255),  # cyan
    (255, 120, 200),  # pink
    (245, 235, 70),  # yellow
)
"""RGB, told apart with any colour vision; after Okabe & Ito, brighter on black."""

_CLOSE_PX = 2  # nuclei parted by a watershed line of one pixel count as touching
_SMOOTH_PX = 0.6  # of a pixel: evens out the stairs, moves no border visibly
_BROAD_PX = 18  # nuclei this wide on display bear a line of two pixels
_SHIFT = 4  # cv2 draws at fractions of 1/2**4 px


class _Piece(NamedTuple):
    """One nucleus, cut out of its label image."""

    label: int
    top: int
    left: int
    mask: NDArray[np.uint8]


def count_labels(label_image: Array) -> int:
    """Return the number of different positive labels; 0 = background."""
    return int(np.unique(label_image[label_image > 0]).size)


def colour_indices(label_image: Array) -> dict[int, int]:
    """Give nuclei that touch, or nearly touch, different colours.

    Parameters
    ----------
    label_image : (H, W) integer ndarray, 0 = background

    Returns
    -------
    dict
        Label to index into `COLOURS`. Greedy in the order of labels, so that a
        nucleus that touches no other has the first colour.
    """
    neighbours: dict[int, set[int]] = {}
    for first, second in _touching(label_image):
        neighbours.setdefault(first, set()).add(second)
        neighbours.setdefault(second, set()).add(first)
    colours: dict[int, int] = {}
    for label in np.unique(label_image[label_image > 0]).tolist():
        taken = {colours.get(other) for other in neighbours.get(label, ())}
        free = (i for i in range(len(COLOURS)) if i not in taken)
        colours[label] = next(free, label % len(COLOURS))
    return colours


def draw_outlines(grey: Grey, label_image: Array, *, scale: float) -> Grey:
    """Draw the outline of every nucleus, inside its own border.

    Parameters
    ----------
    grey : (round(H * scale), round(W * scale)) uint8 ndarray
        The image on display.
    label_image : (H, W) integer ndarray, 0 = background
        At the resolution of the image, not of the display.
    scale : float
        Display pixels per image pixel.

    Returns
    -------
    (round(H * scale), round(W * scale), 3) uint8 ndarray, RGB

    Raises
    ------
    ValueError
        If the two do not belong together.
    """
    expected = scaled_shape(label_image.shape, scale)
    if grey.shape != expected:
        raise ValueError(f"picture has shape {grey.shape}, expected {expected}")
    canvas = np.ascontiguousarray(np.repeat(grey[..., None], 3, axis=2))
    if scale < 1:
        # Outlines finer than the display cost time and cannot be seen.
        label_image = _thin_out(label_image, grey.shape)
        scale = 1.0
    colours = colour_indices(label_image)
    trace_nuclei(
        canvas,
        label_image,
        {label: COLOURS[colour] for label, colour in colours.items()},
        scale=scale,
    )
    return canvas


def trace_nuclei(
    canvas: Grey,
    label_image: Array,
    colours: Mapping[int, tuple[int, int, int]],
    *,
    scale: float,
) -> None:
    """Draw the outlines of some nuclei over a picture, each in a colour of its own.

    Parameters
    ----------
    canvas : (round(H * scale), round(W * scale), 3) uint8 ndarray, RGB
        Drawn on.
    label_image : (H, W) integer ndarray, 0 = background
    colours : mapping
        Label to RGB, of the nuclei to draw.
    scale : float
        Display pixels per image pixel.
    """
    if scale < 1:
        label_image = _thin_out(label_image, canvas.shape[:2])
        scale = 1.0
    pieces = list(_pieces(label_image))
    thickness = _thickness(pieces, scale=scale)
    for piece in pieces:
        if piece.label not in colours:
            continue
        lines = _contours(piece, scale=scale, inset_px=thickness / 2)
        cv2.polylines(
            canvas,
            [np.rint(line * 2**_SHIFT).astype(np.int32) for line in lines],
            True,
            colours[piece.label],
            thickness,
            cv2.LINE_AA,
            _SHIFT,
        )


def _thickness(pieces: Sequence[_Piece], *, scale: float) -> int:
    """Return one or two display pixels, by the width of the usual nucleus."""
    if not pieces:
        return 1
    width = float(np.median([np.sqrt(piece.mask.sum()) for piece in pieces]))
    return 2 if width * scale >= _BROAD_PX else 1


def _thin_out(label_image: Array, shape: tuple[int, ...]) -> Array:
    """Reduce a label image to `shape` by its nearest pixels."""
    rows, columns = (
        ((np.arange(new) + 0.5) * old / new).astype(np.intp)
        for new, old in zip(shape, label_image.shape, strict=True)
    )
    return label_image[np.ix_(rows, columns)]


def _touching(label_image: Array) -> set[tuple[int, int]]:
    """Return the pairs of labels at most `_CLOSE_PX` apart."""
    pairs: set[tuple[int, int]] = set()
    height, width = label_image.shape
    for down in range(_CLOSE_PX + 1):
        for right in range(-_CLOSE_PX, _CLOSE_PX + 1):
            if down >= height or abs(right) >= width:
                continue
            start, end = max(0, -right), width - max(0, right)
            one = label_image[: height - down, start:end]
            other = label_image[down:, start + right : end + right]
            differ = (one != other) & (one > 0) & (other > 0)
            found = np.stack([one[differ], other[differ]], axis=1)
            pairs.update((a, b) for a, b in np.unique(found, axis=0).tolist())
    return pairs


def _pieces(label_image: Array) -> Iterator[_Piece]:
    """Cut each nucleus out, in the order of labels, in one pass over the image."""
    rows, columns = np.nonzero(label_image > 0)
    labels, owner = np.unique(label_image[rows, columns], return_inverse=True)
    low = np.full((2, labels.size), np.iinfo(np.intp).max, np.intp)
    high = np.zeros((2, labels.size), np.intp)
    for axis, where in enumerate((rows, columns)):
        np.minimum.at(low[axis], owner, where)
        np.maximum.at(high[axis], owner, where)
    for i, label in enumerate(labels.tolist()):
        (top, left), (bottom, right) = low[:, i].tolist(), high[:, i].tolist()
        window = label_image[top : bottom + 1, left : right + 1] == label
        yield _Piece(label, top, left, window.astype(np.uint8))


def _contours(
    piece: _Piece, *, scale: float, inset_px: float
) -> list[NDArray[np.float64]]:
    """Return the closed outlines of one nucleus in display coordinates.

    Its mask is enlarged, smoothed by half a pixel and cut at one half, which turns
    the stairs of pixels into curves, then drawn in by half the width of the line:
    the line ends at the nucleus's own border, so two that touch show both lines.

    Returns
    -------
    list of (n, 2) float64 ndarray, x and y
        (0, 0) is the centre of the display's first pixel.
    """
    fine = int(np.clip(np.ceil(scale), 4, 8))  # sub-pixels a pixel
    mask = _enlarged(piece.mask, fine)
    reach = round(inset_px * fine / scale)
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 1, 2 * reach + 1))
    inner = cv2.erode(mask, disc)
    if not inner.any():  # a speck thinner than the line: better too wide than unseen
        inner = mask
    found, _ = cv2.findContours(inner, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    origin = np.array([piece.left - 2, piece.top - 2])
    lines = []
    for contour in found:
        # Lines of a few sub-pixels would be blended over each other into a smear.
        line = cv2.approxPolyDP(contour, 0.35 * fine / scale, True)[:, 0, :]
        lines.append(((line + 0.5) / fine + origin) * scale - 0.5)
    return lines


def _enlarged(mask: NDArray[np.uint8], fine: int) -> NDArray[np.uint8]:
    """Enlarge a mask, two pixels wider on each side, to `fine` sub-pixels a pixel."""
    padded = np.pad(mask, 2).astype(np.float32)
    size = (padded.shape[1] * fine, padded.shape[0] * fine)
    sharp = cv2.resize(padded, size, interpolation=cv2.INTER_NEAREST)
    smooth = cv2.GaussianBlur(sharp, (0, 0), _SMOOTH_PX * fine)
    # Smoothing wipes out a single pixel, which must be seen all the same.
    return np.asarray((smooth if smooth.max() > 0.5 else sharp) > 0.5, dtype=np.uint8)
