"""The scores of each dataset, as aligned tables for the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nucleiseg.evaluation.wording import interval, number_of, percent

if TYPE_CHECKING:
    from nucleiseg.evaluation.results import DatasetScores
    from nucleiseg.metrics import CountScores, InstanceScores


def write_dataset_tables(datasets: tuple[DatasetScores, ...]) -> list[list[str]]:
    """Write the lines of one table of counts and one of instances, or of neither."""
    if not datasets:
        return []
    rows = [
        (
            "counts by dataset",
            *("images", "true", "predicted", "error %", "95 % interval", "bias %"),
            *("MAE", "MAPE %", "R²", "±5 %", "±10 %"),
        ),
        *((dataset.name, *_count_cells(dataset.counts)) for dataset in datasets),
    ]
    tables = [_align(rows)]
    scored = [(d.name, d.instances) for d in datasets if d.instances is not None]
    if scored:
        rows = [
            (
                "instances by dataset, pooled",
                *("AP(.50)", "95 % interval", "AP .50–.95", "F1(.50)"),
                *("missed %", "false %", "splits", "merges"),
            ),
            *((name, *_instance_cells(scores)) for name, scores in scored),
        ]
        tables.append(_align(rows))
    return tables


def _count_cells(scores: CountScores) -> tuple[str, ...]:
    shares = (scores.within_5_percent, scores.within_10_percent)
    return (
        str(scores.n_images),
        str(scores.true_total),
        str(scores.predicted_total),
        number_of(100 * scores.count_error.value, 2),
        interval(scores.count_error, scale=100, digits=1),
        number_of(100 * scores.bias.value, 2),
        number_of(scores.mae.value, 2),
        number_of(100 * scores.mape.value, 2),
        number_of(scores.r2.value, 3),
        *(number_of(100 * share.value, 0) for share in shares),
    )


def _instance_cells(scores: InstanceScores) -> tuple[str, ...]:
    missed = sum(area.missed for area in scores.areas)
    false = sum(area.false_positives for area in scores.areas)
    return (
        number_of(scores.ap_pooled[0].value, 3),
        interval(scores.ap_pooled[0]),
        number_of(scores.mean_ap_pooled.value, 3),
        number_of(scores.f1_pooled[0].value, 3),
        percent(missed, scores.n_true),
        percent(false, scores.n_predicted),
        str(scores.splits),
        str(scores.merges),
    )


def _align(rows: list[tuple[str, ...]]) -> list[str]:
    """Set names flush left and numbers flush right, two spaces apart."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for name, *cells in rows:
        padded = [c.rjust(width) for c, width in zip(cells, widths[1:], strict=True)]
        lines.append("  ".join([name.ljust(widths[0]), *padded]))
    return lines
