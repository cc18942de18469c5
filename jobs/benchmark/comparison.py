"""The rows of `count`: medians of what was measured, and what is wanted of them."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jobs.benchmark.counted import Counted
from jobs.benchmark.measuring import Ran, middle, print_table

# Of the bare network's rate, by base filters, with uint8 images; and with float32.
_WANTED_SHARE = {64: 0.97, 16: 0.92}
_WANTED_SHARE_FLOAT32 = 0.85
# Of the notebook's rate, with 64 base filters on a CPU with AMX; at equal precision.
_WANTED_GAIN, _WANTED_GAIN_FLOAT32 = 4.5, 1.0

_RIVALS = ("notebook", "bare", "count")


@dataclass
class Notebook:
    """The notebook's way with one network."""

    model: Path
    archive: Path
    found: list[dict[str, Any]] = field(default_factory=list)
    ran: list[Ran] = field(default_factory=list)


@dataclass
class Case:
    """One row of the table."""

    base_filters: int
    model: Path
    settings: list[str]
    """Of the count: its precision and batch shape among them."""
    form: str
    dtype: str
    archive: Path
    counts: list[Counted] = field(default_factory=list)
    bare: list[tuple[float, Ran]] = field(default_factory=list)


def summarise(
    case: Case, notebook: Notebook, machine: dict[str, Any]
) -> dict[str, Any]:
    """Give medians, ratios and what is wanted of them."""
    last = case.counts[-1]
    # Of one round each: the machine's speed drifts from round to round.
    share = middle(
        count.rate / rate
        for count, (rate, _) in zip(case.counts, case.bare, strict=True)
    )
    rate = middle(count.rate for count in case.counts)
    bare = middle(rate for rate, _ in case.bare)
    notebook_rate = middle(found["images_per_s"] for found in notebook.found)
    assert rate is not None
    assert bare is not None
    assert notebook_rate is not None
    counts, theirs = last.counts(), notebook.found[-1]["counts"]
    n_common = min(len(counts), len(theirs))
    is_equal = counts[:n_common].fillna(-1).to_numpy() == theirs[:n_common]
    wanted_share = _WANTED_SHARE.get(case.base_filters)
    if case.dtype == "float32" and wanted_share is not None:
        wanted_share = _WANTED_SHARE_FLOAT32
    return {
        "base_filters": case.base_filters,
        "device": last.compute.device,
        "precision": last.compute.precision,
        "format": case.form,
        "dtype": case.dtype,
        "n_images": last.n_images,
        "batch": last.batch,
        "notebook_images_per_s": notebook_rate,
        "bare_images_per_s": bare,
        "count_images_per_s": rate,
        "count_between_parts_images_per_s": middle(
            count.rate_between_parts() for count in case.counts
        ),
        "count_with_start_images_per_s": middle(
            count.rate_with_start for count in case.counts
        ),
        "share_of_bare": share,
        "wanted_share_of_bare": wanted_share,
        "gain_over_notebook": rate / notebook_rate,
        "wanted_gain_over_notebook": _wanted_gain(case, last, machine),
        "core_ms": {
            stage: middle(count.core_ms[stage] for count in case.counts)
            for stage in last.core_ms
        },
        "network_share_of_cores": _network_share(case),
        "notebook_peak_mb": middle(ran.peak_mb for ran in notebook.ran),
        "bare_peak_mb": middle(ran.peak_mb for _, ran in case.bare),
        "count_peak_mb": middle(count.ran.peak_mb for count in case.counts),
        "count_largest_process_mb": middle(
            count.ran.largest_mb for count in case.counts
        ),
        "nuclei_per_image": float(counts.mean()),
        "equal_to_notebook": float(is_equal.mean()),
    }


def _network_share(case: Case) -> float | None:
    """Share of the network in all core seconds of the count.

    On a CPU that is what c/b can come to at best, and other work on the machine, which
    moves c and b, hardly moves it.
    """
    return middle(
        count.core_ms["network"] / sum(count.core_ms.values()) for count in case.counts
    )


def _wanted_gain(case: Case, count: Counted, machine: dict[str, Any]) -> float | None:
    compute = count.compute
    if compute.precision == "float32":
        return _WANTED_GAIN_FLOAT32
    has_amx = compute.device == "cpu" and "amx_bf16" in machine["features"]
    return _WANTED_GAIN if has_amx and case.base_filters == 64 else None


def print_rows(rows: Sequence[dict[str, Any]], n_rounds: int) -> None:
    """Print the table."""
    print(
        f"images/s, core milliseconds an image and peak MB; medians of {n_rounds}; a "
        "the notebook's way, b the bare network, c nucleiseg count; network: its share "
        "of all core seconds"
    )
    header = "filters precision format dtype a b c c/b wanted c/a wanted".split()
    header += [
        "network",
        *(f"ms-{stage}" for stage in rows[0]["core_ms"]),
        "MB-a",
        "MB-b",
        "MB-c",
    ]
    print_table(
        header,
        [
            (
                *(row[key] for key in ("base_filters", "precision", "format", "dtype")),
                *(row[f"{rival}_images_per_s"] for rival in _RIVALS),
                row["share_of_bare"],
                row["wanted_share_of_bare"],
                row["gain_over_notebook"],
                row["wanted_gain_over_notebook"],
                row["network_share_of_cores"],
                *row["core_ms"].values(),
                *(row[f"{rival}_peak_mb"] for rival in _RIVALS),
            )
            for row in rows
        ],
    )
