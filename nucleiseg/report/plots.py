"""Plots of a training's history and of counts against the truth."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nucleiseg.metrics import count_scores
from nucleiseg.report.page import (
    FONT,
    INK,
    SOFT_INK,
    new_figure,
    pixels_of,
    write_png,
)

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

_TRAINING = "#0072b2"  # blue and vermilion of Okabe & Ito
_VALIDATION = "#d55e00"
_DPI = 200
_MANY_EPOCHS = 40  # from here markers on every epoch run into one another
_BAND = 0.1


def save_history(
    folder: Path, history: "pd.DataFrame | Mapping[str, ArrayLike]"
) -> list[Path]:
    """Save loss and accuracy over epochs as ``loss.png``, ``accuracy.png`` (N7).

    Parameters
    ----------
    folder : Path
    history : DataFrame, or mapping of columns
        ``epoch`` (integers from 1; counted where missing), ``loss``, ``val_loss``,
        ``accuracy``, ``val_accuracy``; others are ignored. NaN leaves a gap.

    Returns
    -------
    list of Path
        A plot is left out where history has neither of its two columns.

    Raises
    ------
    ValueError
        If history has none of the four columns.
    """
    saved = []
    for metric in ("loss", "accuracy"):
        curves = {
            c: _numbers(history[c]) for c in (metric, f"val_{metric}") if c in history
        }
        if not curves:
            continue
        length = len(next(iter(curves.values())))
        epochs = np.arange(1.0, length + 1)
        if "epoch" in history:
            epochs = _numbers(history["epoch"])
        picture = _history_picture(epochs, curves, metric=metric)
        saved.append(write_png(Path(folder) / f"{metric}.png", picture))
    if not saved:
        raise ValueError(
            f"history has the columns {list(history)}, expected at least one of "
            "loss, val_loss, accuracy, val_accuracy"
        )
    return saved


def save_count_scatter(path: Path, predicted: ArrayLike, truth: ArrayLike) -> Path:
    """Save predicted against true counts, one point an image.

    Parameters
    ----------
    path : Path
    predicted, truth : (n,) array_like of numbers
        In the same order. An image without a count in either (NaN, NA) is left out,
        and the plot says how many are.

    Returns
    -------
    Path

    Raises
    ------
    ValueError
        If the two differ in length.
    """
    ours, true = _numbers(predicted), _numbers(truth)
    if ours.shape != true.shape:
        raise ValueError(
            f"{ours.size} predicted counts but {true.size} true ones: "
            "both must be of the same images, in the same order"
        )
    has_both = np.isfinite(ours) & np.isfinite(true)
    ours, true = ours[has_both], true[has_both]
    top = 1.05 * float(max(1, ours.max(initial=0), true.max(initial=0)))
    figure = new_figure(1100, 1100, dpi=_DPI)
    axes = figure.add_axes((0.14, 0.12, 0.82, 0.82))
    line = np.array([0, top])
    axes.fill_between(
        line, (1 - _BAND) * line, (1 + _BAND) * line, color="#d9d9d9", linewidth=0
    )
    axes.plot(line, line, color=INK, linewidth=0.8, zorder=4)
    # Counts are whole: points fall on each other, and where many do it is darker.
    axes.scatter(true, ours, s=14, color=_TRAINING, alpha=0.4, linewidths=0, zorder=3)
    _dress(axes, x_label="true count", y_label="predicted count")
    axes.set(xlim=(0, top), ylim=(0, top), aspect="equal")
    axes.set_yticks(axes.get_xticks()[axes.get_xticks() <= top])
    words = _errors_words(ours, true, n_left_out=int((~has_both).sum()))
    _write(axes, (0.04, 0.96), words)
    _write(axes, (0.96, 0.04), "line: equal\nband: ±10 %", is_right=True)
    return write_png(path, pixels_of(figure))


def best_epoch(values: NDArray[np.float64], *, is_loss: bool) -> int | None:
    """Return the position of the first best finite value; None where there is none."""
    finite = np.isfinite(values)
    if not finite.any():
        return None
    cost = np.where(finite, values if is_loss else -values, np.inf)
    return int(np.argmin(cost))


def _history_picture(
    epochs: NDArray[np.float64],
    curves: Mapping[str, NDArray[np.float64]],
    *,
    metric: str,
) -> NDArray[np.uint8]:
    """Plot one metric of training and validation over epochs."""
    figure = new_figure(1200, 760, dpi=_DPI)
    axes = figure.add_axes((0.125, 0.14, 0.845, 0.76))
    marker = "o" if len(epochs) < _MANY_EPOCHS else ""
    for column, values in curves.items():
        is_validation = column.startswith("val_")
        axes.plot(
            epochs,
            np.where(np.isfinite(values), values, np.nan),
            color=_VALIDATION if is_validation else _TRAINING,
            label="validation" if is_validation else "training",
            linewidth=1.5,
            marker=marker,
            markersize=3,
        )
        if is_validation:
            _mark_best(axes, epochs, values, metric=metric)
    _dress(axes, x_label="epoch", y_label=metric)
    axes.set_xlim(0.5, epochs.max(initial=1, where=np.isfinite(epochs)) + 0.5)
    axes.legend(
        loc="lower left",
        bbox_to_anchor=(-0.01, 1.0),
        ncols=3,
        frameon=False,
        prop={"family": FONT, "size": 8},
        handlelength=1.4,
        borderaxespad=0.3,
    )
    return pixels_of(figure)


def _mark_best(
    axes: "Axes",
    epochs: NDArray[np.float64],
    values: NDArray[np.float64],
    *,
    metric: str,
) -> None:
    """Ring the best validation epoch and name it in the legend."""
    is_loss = metric == "loss"
    best = best_epoch(values, is_loss=is_loss)
    if best is None:
        return
    extreme = "lowest" if is_loss else "highest"
    axes.plot(
        [epochs[best]],
        [values[best]],
        label=f"{extreme}: {values[best]:.4g} at epoch {epochs[best]:.0f}",
        color=_VALIDATION,
        linestyle="none",
        marker="o",
        markersize=9,
        markerfacecolor="none",
        markeredgewidth=1.5,
    )


def _dress(axes: "Axes", *, x_label: str, y_label: str) -> None:
    """Give axes names, a light grid and whole numbers below."""
    from matplotlib.ticker import MaxNLocator

    axes.set_xlabel(x_label, fontfamily=FONT, fontsize=9, color=INK)
    axes.set_ylabel(y_label, fontfamily=FONT, fontsize=9, color=INK)
    whole = MaxNLocator(nbins=8, integer=True, min_n_ticks=1, steps=[1, 2, 5, 10])
    axes.xaxis.set_major_locator(whole)
    axes.grid(color="#e6e6e6", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("#9a9a9a")
    axes.tick_params(labelsize=8, labelfontfamily=FONT, color="#9a9a9a")


def _write(
    axes: "Axes", where: tuple[float, float], words: str, *, is_right: bool = False
) -> None:
    """Write words into a corner of axes: upper left, or lower right."""
    axes.text(
        *where,
        words,
        transform=axes.transAxes,
        horizontalalignment="right" if is_right else "left",
        verticalalignment="bottom" if is_right else "top",
        fontfamily=FONT,
        fontsize=8 if is_right else 9,
        color=SOFT_INK if is_right else INK,
        linespacing=1.4,
    )


def _errors_words(
    predicted: NDArray[Any], truth: NDArray[Any], *, n_left_out: int
) -> str:
    """Put the errors of (n,) counts into words, a line each."""
    words = [f"n = {truth.size:,} images"]
    if truth.size:
        scores = count_scores(predicted, truth)
        words.append(f"MAE {scores.mae.value:.2f}")
        if np.isfinite(scores.bias.value):  # undefined without any true nucleus
            words.append(f"bias {100 * scores.bias.value:+.1f} %".replace("-", "−"))
    if n_left_out:
        words.append(f"{n_left_out:,} without a count left out")
    return "\n".join(words)


def _numbers(values: Any) -> NDArray[np.float64]:
    """Return a column as (n,) float64, a missing value as NaN."""
    import pandas as pd

    column = pd.Series(values).astype("Float64")
    return np.asarray(column.to_numpy(na_value=np.nan), dtype=np.float64)
