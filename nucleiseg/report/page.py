"""Words and pictures on one page, and the file it goes to."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import cv2
import numpy as np

from nucleiseg.atomic import atomic_path
from nucleiseg.report.pixels import Grey

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FONT = "DejaVu Sans"  # comes with matplotlib: the same letters on every machine
INK = "#1a1a1a"
SOFT_INK = "#5f5f5f"

_MARGIN_PX = 16
_GAP_PX = 20
_NARROWEST_PX = 320  # room for a count and a short title above a narrow picture
_WHITE = 255


class Line(NamedTuple):
    """One line of words above a picture."""

    text: str
    size_px: int
    colour: str = INK
    is_bold: bool = False


def panel(picture: Grey, lines: Sequence[Line]) -> Grey:
    """Set lines of words above a picture, all flush left.

    Parameters
    ----------
    picture : (H, W) or (H, W, 3) uint8 ndarray, grey or RGB
    lines : sequence of Line
        A line too long for the picture is set smaller, then shortened in the middle.
        An empty one takes no room.

    Returns
    -------
    (H + head, max(W, 320), 3) uint8 ndarray, RGB, the picture unchanged at the bottom
    """
    if picture.ndim == 2:
        picture = np.repeat(picture[..., None], 3, axis=2)
    width = max(picture.shape[1], _NARROWEST_PX)
    strips = [_strip(line, width) for line in lines if line.text]
    return np.vstack([*strips, pad_to(picture, picture.shape[0], width)])


def page(rows: Sequence[Sequence[Grey]]) -> Grey:
    """Lay panels out in rows on white, all columns of a row aligned at the top.

    Parameters
    ----------
    rows : sequence of sequences of (H, W, 3) uint8 ndarray
        At least one panel.

    Returns
    -------
    (H, W, 3) uint8 ndarray, RGB
    """
    columns = max(len(row) for row in rows)
    widths = [
        max(row[i].shape[1] for row in rows if i < len(row)) for i in range(columns)
    ]
    bands = []
    for row in rows:
        height = max(cell.shape[0] for cell in row)
        cells = [pad_to(cell, height, w) for cell, w in zip(row, widths, strict=False)]
        bands.append(_join(cells, axis=1))
    full = max(band.shape[1] for band in bands)
    body = _join([pad_to(band, band.shape[0], full) for band in bands], axis=0)
    edge = ((_MARGIN_PX, _MARGIN_PX), (_MARGIN_PX, _MARGIN_PX), (0, 0))
    return np.pad(body, edge, constant_values=_WHITE)


def legend(
    entries: Sequence[tuple[str, tuple[int, int, int]]], *, size_px: int, width: int
) -> Grey:
    """Set words, each beside a patch of its colour, in as many rows as are needed.

    Parameters
    ----------
    entries : sequence of (text, RGB)
    size_px : int
        Of the words.
    width : int
        Of the legend; an entry wider than it is shortened.

    Returns
    -------
    (H, width, 3) uint8 ndarray, RGB
    """
    rows: list[list[Grey]] = [[]]
    for text, colour in entries:
        cell = _legend_entry(text, colour, size_px=size_px, width=width)
        taken = sum(other.shape[1] + _GAP_PX for other in rows[-1])
        if rows[-1] and taken + cell.shape[1] > width:
            rows.append([])
        rows[-1].append(cell)
    bands = [_join(row, axis=1) for row in rows]
    return np.vstack([pad_to(band, band.shape[0], width) for band in bands])


def pad_to(picture: Grey, height: int, width: int) -> Grey:
    """Add white below and to the right until an RGB picture has this size."""
    missing = ((0, height - picture.shape[0]), (0, width - picture.shape[1]), (0, 0))
    return np.pad(picture, missing, constant_values=_WHITE)


def new_figure(width_px: int, height_px: int, *, dpi: int) -> "Figure":
    """Return an empty white figure of exactly this size, on a canvas of its own."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    # Agg truncates: a hair more keeps 115 px from becoming 114.
    size = ((width_px + 0.01) / dpi, (height_px + 0.01) / dpi)
    figure = Figure(figsize=size, dpi=dpi, facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def pixels_of(figure: "Figure") -> Grey:
    """Draw a figure of `new_figure` and return it as (H, W, 3) uint8, RGB."""
    canvas: Any = figure.canvas
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def write_png(path: Path, picture: Grey) -> Path:
    """Write an RGB or grey picture beside its name and rename it; return the path.

    The file holds pixels only, no date and no version, so the same picture gives
    the same bytes.

    Raises
    ------
    OSError
        If the file cannot be written; nothing is left behind.
    """
    path = Path(path)
    if picture.ndim == 3:
        picture = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
    is_encoded, data = cv2.imencode(".png", picture)
    assert is_encoded  # cv2 encodes every uint8 array to PNG
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as beside:
        beside.write_bytes(data.tobytes())
    return path


def _join(pictures: Sequence[Grey], *, axis: int) -> Grey:
    """Join RGB pictures of one height (axis 1) or width (axis 0) with white gaps."""
    shape = list(pictures[0].shape)
    shape[axis] = _GAP_PX
    gap = np.full(shape, _WHITE, np.uint8)
    parts = [part for picture in pictures for part in (gap, picture)][1:]
    return np.concatenate(parts, axis=axis)


def _legend_entry(
    text: str, colour: tuple[int, int, int], *, size_px: int, width: int
) -> Grey:
    """Set one entry of a legend, no wider than its words."""
    words = _strip(Line(text, size_px), width - 2 * size_px)
    inked = np.flatnonzero((words < _WHITE).any(axis=(0, 2)))
    words = words[:, : inked[-1] + 1 if inked.size else 1]
    # On black, as the lines are: yellow on white would hardly be seen.
    patch = np.zeros((size_px, round(1.5 * size_px), 3), np.uint8)
    edge = max(2, size_px // 6)
    patch[edge:-edge, edge:-edge] = colour
    above = (words.shape[0] - size_px) // 2
    patch = np.pad(
        patch,
        ((above, words.shape[0] - size_px - above), (0, size_px // 2), (0, 0)),
        constant_values=_WHITE,
    )
    return np.hstack([patch, words])


def _strip(line: Line, width: int) -> Grey:
    """Set one line as a strip of pixels of this width."""
    height = round(line.size_px * 1.5)
    figure = new_figure(width, height, dpi=72)  # at 72 dpi a point is a pixel
    text = figure.text(
        0,
        0.36,
        _printable(line.text),
        fontsize=line.size_px,
        fontfamily=FONT,
        fontweight="bold" if line.is_bold else "normal",
        color=line.colour,
        parse_math=False,  # a $ in a file name is a $
    )

    def overhang() -> float:
        return float(text.get_window_extent().width) / width

    if overhang() > 1:
        text.set_fontsize(max(line.size_px / overhang(), 0.75 * line.size_px))
    whole = text.get_text()
    keep = len(whole)
    while overhang() > 1 and keep > 2:
        keep = min(keep - 1, int(keep / overhang()))
        tail = keep * 2 // 3  # the end of a name tells images apart, not its start
        text.set_text(whole[: keep - tail] + "…" + whole[len(whole) - tail :])
    return pixels_of(figure)


def _printable(text: str) -> str:
    """Replace what the font lacks, and line ends, by a box: no letter vanishes."""
    from matplotlib.font_manager import FontProperties, findfont, get_font

    known = get_font(findfont(FontProperties(family=FONT))).get_charmap()
    return "".join(c if c.isprintable() and ord(c) in known else "□" for c in text)
