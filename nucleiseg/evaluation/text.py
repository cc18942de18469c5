"""The scores as an aligned table for the terminal."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from nucleiseg.evaluation.wording import list_reasons

if TYPE_CHECKING:
    from nucleiseg.evaluation.results import DatasetScores, Evaluation
    from nucleiseg.metrics import CountScores, Estimate, InstanceScores


def write_table(evaluation: Evaluation) -> str:
    """Write an aligned table for the terminal, without a newline at its end."""
    sections = [_head_lines(evaluation), _count_lines(evaluation.counts)]
    if evaluation.instances is not None:
        sections.append(_instance_lines(evaluation.instances))
    if evaluation.datasets:
        sections.append(_dataset_lines(evaluation.datasets))
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
        f"{'splits':<30}{scores.splits:>9} of {scores.n_true} true nuclei",
        f"{'merges':<30}{scores.merges:>9} of {scores.n_predicted} predicted nuclei",
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
        a, b, c, d = (_number(estimate.value, 3) for estimate in estimates)
        lines.append(f"{threshold:<5.2f}{a:>12}{b:>12}{c:>15}{d:>15}")
    return lines


def _dataset_lines(datasets: tuple[DatasetScores, ...]) -> list[str]:
    width = max(len("dataset"), *(len(dataset.name) for dataset in datasets))
    lines = [
        f"{'dataset':<{width}}{'images':>9}{'true':>11}{'predicted':>11}"
        f"{'count error %':>15}{'bias %':>9}"
    ]
    for d in datasets:
        error, bias = _number(100 * d.count_error, 2), _number(100 * d.bias, 2)
        lines.append(
            f"{d.name:<{width}}{d.n_images:>9}{d.true_total:>11}{d.predicted_total:>11}"
            f"{error:>15}{bias:>9}"
        )
    return lines


def _line(name: str, estimate: Estimate, unit: str = "", remark: str = "") -> str:
    """Write one figure: name, value, unit, interval; fractions as percent."""
    scale, digits = (100, 2) if unit == "%" else (1, 3)
    value, low, high = (
        _number(scale * number, digits)
        for number in (estimate.value, estimate.low, estimate.high)
    )
    return f"{name:<30}{value:>9} {unit:<16}[{low}, {high}]  {remark}".rstrip()


def _number(value: float, digits: int) -> str:
    return "–" if math.isnan(value) else f"{value:.{digits}f}"
