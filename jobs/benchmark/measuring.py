"""Programs measured as a whole: time, and the memory of all their processes."""

import itertools
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from nucleiseg.devices import available_cores, find_features
from nucleiseg.provenance import describe_environment

# Peaks never fall, so that a look at the end of a process would be enough.
_LOOK_EVERY_S = 0.1
_TOLD_LINES = 15
_BUSY = 0.25


@dataclass(frozen=True)
class Ran:
    """A program that ran to its end."""

    output: str
    wall_s: float
    peak_mb: float
    """Peaks of all its processes together; what they share is counted in each."""
    largest_mb: float
    """Peak of the largest of its processes."""


def run_apart(command: Sequence[object]) -> Ran:
    """Run a program to its end, and watch its processes.

    Raises
    ------
    RuntimeError
        It failed; the message has the end of what it said.
    """
    words = [str(word) for word in command]
    peaks: dict[int, float] = {}
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as errors:
        start_s = time.perf_counter()
        with subprocess.Popen(words, stdout=output, stderr=errors) as process:
            try:
                while True:
                    _note_peaks(process.pid, peaks)
                    try:
                        process.wait(_LOOK_EVERY_S)
                        break
                    except subprocess.TimeoutExpired:
                        continue
            except BaseException:
                process.terminate()
                raise
        wall_s = time.perf_counter() - start_s
        output.seek(0)
        errors.seek(0)
        told = errors.read()
        if process.returncode != 0:
            end = "\n".join(told.splitlines()[-_TOLD_LINES:])
            raise RuntimeError(
                f"{' '.join(words)} ended with {process.returncode}, expected 0; run "
                f"it by hand to see why. Its last words:\n{end}"
            )
        return Ran(output.read(), wall_s, sum(peaks.values()), max(peaks.values()))


def _note_peaks(pid: int, peaks: dict[int, float]) -> None:
    """Note the peak memory of a process, and of all that it started."""
    # Not getrusage: what a process forks inherits its peak there. Those that were seen
    # are looked at again though their parent is gone.
    known, waiting = set(peaks), [pid, *peaks]
    while waiting:
        pid = waiting.pop()
        try:
            status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
            children = [
                int(word)
                for path in Path(f"/proc/{pid}/task").glob("*/children")
                for word in path.read_text(encoding="ascii").split()
            ]
        except (FileNotFoundError, ProcessLookupError):
            continue
        for line in status.splitlines():
            if line.startswith("VmHWM:"):
                peaks[pid] = int(line.split()[1]) / 1024
        waiting += [child for child in children if child not in known]
        known |= {*children}


def pin(n_cores: int | None) -> list[str]:
    """Words that start a program on so many cores only; None: on all.

    Raises
    ------
    RuntimeError
        There are not so many, or taskset is missing.
    """
    if n_cores is None:
        return []
    if n_cores > available_cores():
        raise RuntimeError(
            f"{n_cores} cores are asked for, and this process may use "
            f"{available_cores()}; ask for fewer workers"
        )
    if shutil.which("taskset") is None:
        raise RuntimeError("taskset not found, which pins to cores; install util-linux")
    cores = sorted(os.sched_getaffinity(0))[:n_cores]
    return ["taskset", "--cpu-list", ",".join(map(str, cores))]


def describe_machine() -> dict[str, Any]:
    """Describe what figures depend on: processor, GPUs, versions, load before."""
    text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    names = [
        line.partition(":")[2].strip()
        for line in text.splitlines()
        if line.startswith("model name")
    ]
    return {
        **describe_environment(),
        "processor": names[0] if names else "unknown",
        "features": sorted(find_features("cpu")),
        "gpus": _list_gpus(),
        "load_before": os.getloadavg()[0],
    }


def _list_gpus() -> list[str]:
    if shutil.which("nvidia-smi") is None:
        return []
    answer = subprocess.run(
        ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"],
        capture_output=True,
        text=True,
        check=False,
    )
    return answer.stdout.split("\n")[:-1] if answer.returncode == 0 else []


def work_in(
    folder: Path | None, prefix: str = "nucleiseg-benchmark-"
) -> "tempfile.TemporaryDirectory[str]":
    """Make a folder that goes afterwards, within another, which is made where needed.

    Parameters
    ----------
    folder : Path or None
        As `--folder` names it; None: where the system keeps temporary files.
    prefix : str
    """
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
    return tempfile.TemporaryDirectory(prefix=prefix, dir=folder)


def warn_if_busy(machine: dict[str, Any]) -> None:
    """Say where others were at work too: rates then follow them, not what is measured.

    Seen: the same count at 0.75 and at 1.1 of the bare network, one after the other.
    """
    if machine["load_before"] > _BUSY * machine["cores"]:
        say(
            f"the machine was busy before: load {machine['load_before']:.1f} on "
            f"{machine['cores']} cores; measure again when it is idle"
        )


def say(words: str) -> None:
    """Say how far it is, beside the table and not in it."""
    print(words, file=sys.stderr, flush=True)


def print_table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print rows below their header, numbers with three digits that say something."""
    cells = [list(header), *([_write(cell) for cell in row] for row in rows)]
    columns = itertools.zip_longest(*cells, fillvalue="")
    widths = [max(map(len, column)) for column in columns]
    for row in cells:
        line = "  ".join(f"{cell:>{n}}" for cell, n in zip(row, widths, strict=True))
        print(line.rstrip())


def _write(cell: object) -> str:
    if cell is None:
        return "-"
    if not isinstance(cell, float):
        return str(cell)
    return f"{cell:,.0f}" if abs(cell) >= 100 else f"{cell:#.3g}"


def middle(values: Iterable[float | None]) -> float | None:
    """Median of what is known; None where nothing is."""
    known = [value for value in values if value is not None]
    return median(known) if known else None
