"""Pictures of images, masks and predictions, each one call, each written whole."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from nucleiseg.report.outlines import count_labels, draw_outlines
from nucleiseg.report.page import SOFT_INK, Line, page, panel, write_png
from nucleiseg.report.pixels import (
    LONGEST_SIDE_PX,
    Array,
    Grey,
    as_pair,
    as_plane,
    bounds,
    display_scale,
    overlay,
    rescale,
    stretch,
    to_255,
    to_grey,
)

_HALF_PX = 760  # two panels and what is around them stay near 1600 px
_SCALED = ", image scaled from its 0.1–99.9 percentiles"


def save_inspection(
    folder: Path,
    image: ArrayLike,
    mask: ArrayLike | None = None,
    *,
    name: str,
    note: str = "",
) -> list[Path]:
    """Save one training image, its mask and the mask over the image (step N2).

    Parameters
    ----------
    folder : Path
    image : (H, W) ndarray, any real dtype and range
        Values in 0–255 are taken as they are; others are scaled by their own
        0.1–99.9 percentiles first, and the caption says so.
    mask : (H, W) ndarray, 0 = background, optional
        A mask, or a label image: all that is above 0 is nucleus.
    name : str
        Files are called ``<name>_image.png``, ``<name>_mask.png`` and
        ``<name>_overlay.png``; without a mask only the first is written.
    note : str
        What else a reader must know, such as that it is a part of an image.

    Returns
    -------
    list of Path
    """
    plane = as_plane(image, "image")
    base, is_scaled = to_255(plane)
    values = (
        (f"{note}: " if note else "")
        + _range_words(plane)
        + (_SCALED if is_scaled else "")
    )
    target = Path(folder)
    saved = [_save_plain(target / f"{name}_image.png", base, words=[name, values])]
    if mask is None:
        return saved
    _, nuclei = as_pair(plane, mask, name="mask")
    nuclei = (nuclei > 0).astype(np.uint8)
    share = f"mask: {100 * nuclei.mean():.1f} % nucleus"
    over = "image/255 + 0.25 · mask" + (_SCALED if is_scaled else "")
    mixed = overlay(base, nuclei, 0.25)
    return [
        *saved,
        _save_plain(
            target / f"{name}_mask.png", nuclei, words=[name, share], limits=(0, 1)
        ),
        _save_plain(target / f"{name}_overlay.png", mixed, words=[name, over]),
    ]


def save_soft_prediction(
    folder: Path, image: ArrayLike, probability: ArrayLike, *, name: str
) -> list[Path]:
    """Save the notebook's two pictures of a prediction over its image (step N8).

    Parameters
    ----------
    folder : Path
    image : (H, W) ndarray, any real dtype and range
        Scaled as in `save_inspection` where it is not in 0–255.
    probability : (H, W) or (H, W, 1) ndarray, in [0, 1]
        Probability map of nucleus.
    name : str
        Files are called ``<name>_soft.png`` (``image/255 + 0.5 p``) and
        ``<name>_rounded.png`` (``image/255 + 0.25 round(p)``).

    Returns
    -------
    list of Path
    """
    plane, soft = as_pair(image, probability, name="probability")
    base, is_scaled = to_255(plane)
    note = _SCALED if is_scaled else ""
    pictures = {
        "soft": (overlay(base, soft, 0.5), "image/255 + 0.5 · p"),
        "rounded": (overlay(base, np.round(soft), 0.25), "image/255 + 0.25 · round(p)"),
    }
    return [
        _save_plain(
            Path(folder) / f"{name}_{kind}.png", mixed, words=[name, how + note]
        )
        for kind, (mixed, how) in pictures.items()
    ]


def save_prediction(
    path: Path,
    image: ArrayLike,
    probability: ArrayLike | None,
    label_image: ArrayLike,
    *,
    count: int,
    title: str,
    show_probability: bool = False,
) -> Path:
    """Save one image with its nuclei outlined and counted, ready for a slide (N8).

    Parameters
    ----------
    path : Path
    image : (H, W) ndarray, any real dtype and range
        Stretched for display.
    probability : (H, W) or (H, W, 1) ndarray, in [0, 1], or None
        Probability map of nucleus.
    label_image : (H, W) integer ndarray, 0 = background
        Nuclei that touch are outlined in different colours.
    count : int
        The count to print: the table's, which may leave out what the labels show.
    title : str
        Where the image is from: archive · dataset · index.
    show_probability : bool
        Add the probability map (black 0, white 1) as a second panel.

    Returns
    -------
    Path
    """
    limit = _HALF_PX if show_probability else LONGEST_SIDE_PX
    plane, labels = as_pair(image, label_image, name="label_image")
    scale = display_scale(plane.shape, limit=limit)
    picture = _outlined(plane, labels, scale=scale)
    panels = [panel(picture, _heading(picture, count, title=title))]
    if show_probability:
        if probability is None:
            raise ValueError("show_probability needs a probability map, found None")
        _, soft = as_pair(plane, probability, name="probability")
        grey = to_grey(rescale(soft, scale), 0, 1)
        words = [
            Line("probability of nucleus", _head_px(grey)),
            Line(" ", _small(grey)),
        ]
        panels.append(panel(grey, words))
    return write_png(path, page([panels]))


def save_comparison(
    path: Path,
    image: ArrayLike,
    left_labels: ArrayLike,
    right_labels: ArrayLike,
    *,
    left_title: str,
    right_title: str,
) -> Path:
    """Save one field twice, with the outlines and counts of two label images.

    Parameters
    ----------
    path : Path
    image : (H, W) ndarray, any real dtype and range
    left_labels, right_labels : (H, W) integer ndarray, 0 = background
        For instance the truth and a prediction.
    left_title, right_title : str

    Returns
    -------
    Path
    """
    panels = []
    for labels, title in ((left_labels, left_title), (right_labels, right_title)):
        plane, nuclei = as_pair(image, labels, name=f"label image of {title!r}")
        scale = display_scale(plane.shape, limit=_HALF_PX)
        picture = _outlined(plane, nuclei, scale=scale)
        heading = _heading(picture, count_labels(nuclei), title=title)
        panels.append(panel(picture, heading))
    return write_png(path, page([panels]))


def save_montage(
    path: Path,
    pictures: Sequence[tuple[ArrayLike, ArrayLike, str]],
    *,
    columns: int = 3,
) -> Path:
    """Save several images with outlines and counts on one page, for a README.

    Parameters
    ----------
    path : Path
    pictures : sequence of (image, label_image, title)
        ``image`` (H, W), any real dtype; ``label_image`` (H, W) integers, 0 =
        background. Sizes may differ: each is brought to the width of its column.
    columns : int

    Returns
    -------
    Path

    Raises
    ------
    ValueError
        If there are no pictures or no columns.
    """
    if not pictures or columns < 1:
        raise ValueError(
            f"{len(pictures)} pictures in {columns} columns: "
            "a montage needs at least one of each"
        )
    cell = LONGEST_SIDE_PX // min(columns, len(pictures)) - 20
    panels = []
    for image, label_image, title in pictures:
        plane, labels = as_pair(image, label_image, name=f"label image of {title!r}")
        picture = _outlined(plane, labels, scale=cell / max(plane.shape))
        heading = _heading(picture, count_labels(labels), title=title)
        panels.append(panel(picture, heading))
    rows = [panels[i : i + columns] for i in range(0, len(panels), columns)]
    return write_png(path, page(rows))


def _outlined(image: Array, label_image: Array, *, scale: float) -> Grey:
    """Return a stretched image with outlines, on display pixels."""
    # Stretched after reducing: the percentiles are those of what is seen.
    grey = stretch(rescale(image, scale))
    return draw_outlines(grey, label_image, scale=scale)


def _save_plain(
    path: Path,
    picture: Array,
    *,
    words: list[str],
    limits: tuple[float, float] | None = None,
) -> Path:
    """Save a picture in grey, from its minimum to its maximum as imshow does."""
    shown = rescale(picture, display_scale(picture.shape))
    low, high = limits if limits is not None else bounds(shown)
    grey = to_grey(shown, low, high)
    name, caption = words
    lines = [Line(name, _small(grey)), Line(caption, _small(grey), SOFT_INK)]
    return write_png(path, page([[panel(grey, lines)]]))


def _heading(picture: Grey, count: int, *, title: str) -> list[Line]:
    """Return the count, large, and under it the title, small."""
    words = f"{count:,} nucleus" if count == 1 else f"{count:,} nuclei"
    return [
        Line(words, _head_px(picture), is_bold=True),
        Line(title, _small(picture), SOFT_INK),
    ]


def _head_px(picture: Grey) -> int:
    """Return the size of a heading that suits the width of a picture."""
    return int(np.clip(picture.shape[1] // 22, 24, 56))


def _small(picture: Grey) -> int:
    """Return the size of the words under a heading."""
    return int(np.clip(picture.shape[1] // 48, 14, 26))


def _range_words(image: Array) -> str:
    """Describe an image: its size, dtype and range of values."""
    low, high = bounds(image)
    height, width = image.shape
    return f"{height} × {width} px, {image.dtype}, values {low:g} to {high:g}"
