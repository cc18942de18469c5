"""The scores as an aligned table for the terminal."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from nucleiseg.evaluation.dataset_text import write_dataset_tables
from nucleiseg.evaluation.wording import interval, list_reasons, number_of, percent

if TYPE_CHECKING:
    from nucleiseg.evaluation.results import Evaluation
    from nucleiseg.metrics import AreaScores, CountScores, Estimate, InstanceScores


def write_table(evaluation: Evaluation) -> str:
    """Write an aligned table for the terminal, without a newline at its end."""
    sections = [_head_lines(evaluation), _count_lines(evaluation.counts)]
    if evaluation.instances is not None:
        sections.append(_instance_lines(evaluation.instances))
        sections.append(_size_lines(evaluation.instances.areas))
    sections += write_dataset_tables(evaluation.datasets)
    if evaluation.notes:
        sections.append([f"note: {note}" for note in evaluation.notes])
    return "\n\n".join("\n".join(lines) for lines in sections)


def _head_lines(evaluation: Evaluation) -> list[str]:
    n_all = evaluation.n_images + sum(evaluation.left_out.values())
    counts = evaluation.counts
    lines = [
        f"predicted  {evaluation.predicted}",
        f"truth      {evaluation.truth}",
        f"compared   {evaluation.n_images} of {n_all} images: "
        f"{counts.true_total} true, {counts.predicted_total} predicted nuclei",
    ]
    if evaluation.left_out:
        lines.append(
            f"left out   {n_all - evaluation.n_images} images, {evaluation.n_failed} "
            f"of them failed: {list_reasons(evaluation.left_out)}"
        )
    return lines


def _count_lines(scores: CountScores) -> list[str]:
    skipped = f"{scores.n_without_nuclei} images without true nuclei left out"
    return [
        f"{'counts':<30}{'value':>9} {'':<16}95 % interval over images",
        _line("MAE", scores.mae, "nuclei an image"),
        _line("MAPE", scores.mape, "%", skipped if scores.n_without_nuclei else ""),
        _line("count error Σ|e|/Σtrue", scores.count_error, "%"),
        _line("bias Σe/Σtrue", scores.bias, "%"),
        _line("R²", scores.r2),
        _line("exact", scores.exact, "%"),
        _line("within ±5 %", scores.within_5_percent, "%"),
        _line("within ±10 %", scores.within_10_percent, "%"),
    ]


def _instance_lines(scores: InstanceScores) -> list[str]:
    lines = [
        f"{'instances':<30}{'value':>9} {'':<16}95 % interval over images",
        _line("AP(.50) pooled", scores.ap_pooled[0]),
        _line("F1(.50) pooled", scores.f1_pooled[0]),
        _line("mean AP .50–.95 pooled", scores.mean_ap_pooled),
        _line("mean AP .50–.90 pooled", scores.mean_ap_pooled_50_90),
        _line("mean AP .50–.95 per image", scores.mean_ap_per_image),
        _line("mean AP .50–.90 per image", scores.mean_ap_per_image_50_90),
        _share("splits", scores.splits, scores.split_share, f"{scores.n_true} true"),
        _share(
            "merges",
            scores.merges,
            scores.merge_share,
            f"{scores.n_predicted} predicted",
        ),
        f"{'empty on both sides':<30}{scores.n_empty:>9} images, 1 each in per image",
        "",
        "IoU ≥   AP pooled   F1 pooled   AP per image   F1 per image",
    ]
    columns = (
        scores.ap_pooled,
        scores.f1_pooled,
        scores.ap_per_image,
        scores.f1_per_image,
    )
    for threshold, *estimates in zip(scores.thresholds, *columns, strict=True):
        a, b, c, d = (number_of(estimate.value, 3) for estimate in estimates)
        lines.append(f"{threshold:<5.2f}{a:>12}{b:>12}{c:>15}{d:>15}")
    return lines


def _size_lines(areas: tuple[AreaScores, ...]) -> list[str]:
    """Write misses and false positives by size, of the classes that have nuclei."""
    lines = [
        f"{'by area, px':<14}{'diameter, px':>14}{'true':>9}{'missed':>9}{'%':>8}"
        f"{'predicted':>12}{'false':>8}{'%':>8}"
    ]
    for area in areas:
        if area.n_true + area.n_predicted == 0:
            continue
        missed = percent(area.missed, area.n_true)
        false = percent(area.false_positives, area.n_predicted)
        lines.append(
            f"{_range(area.least_px, area.largest_px):<14}"
            f"{_diameters(area.least_px, area.largest_px):>14}"
            f"{area.n_true:>9}{area.missed:>9}{missed:>8}"
            f"{area.n_predicted:>12}{area.false_positives:>8}{false:>8}"
        )
    return lines


def _range(least: int, largest: int | None) -> str:
    return f"from {least}" if largest is None else f"{least}–{largest}"


def _diameters(least_px: int, largest_px: int | None) -> str:
    """Give the diameters of discs of such areas: what one sees of a nucleus."""
    if largest_px is None:
        return f"from {_diameter(least_px):.0f}"
    return f"{_diameter(least_px):.0f}–{_diameter(largest_px):.0f}"


def _diameter(area_px: int) -> float:
    return math.sqrt(4 * area_px / math.pi)


def _share(name: str, number: int, share: Estimate, whole: str) -> str:
    """Write how many of all nuclei, the share and its interval."""
    return (
        f"{name:<30}{number:>9} of {whole} nuclei: {number_of(100 * share.value, 2)} % "
        f"{interval(share, scale=100, digits=2)}"
    )


def _line(name: str, estimate: Estimate, unit: str = "", remark: str = "") -> str:
    """Write one figure: name, value, unit, interval; fractions as percent."""
    scale, digits = (100, 2) if unit == "%" else (1, 3)
    value = number_of(scale * estimate.value, digits)
    between = interval(estimate, scale=scale, digits=digits)
    return f"{name:<30}{value:>9} {unit:<16}{between}  {remark}".rstrip()
