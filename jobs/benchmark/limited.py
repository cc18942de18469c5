"""A few steps of training, from an archive larger than the process may allocate.

The limit is RLIMIT_DATA: what a process maps privately and may write, heap, stacks of
threads and blocks of images alike. RLIMIT_AS would be met by the libraries alone, of
which TensorFlow maps 1.5 GB, and by addresses that are only reserved; RLIMIT_RSS means
nothing to Linux; a cgroup takes rights that a batch job seldom has, and its limit is
that of the page cache, too.
"""

import argparse
import contextlib
import itertools
import json
import resource
import sys
from pathlib import Path
from typing import Any

import h5py

from jobs.benchmark.input import IMAGE_BYTES, SIDE_PX, draw
from jobs.benchmark.measuring import run_apart, say, work_in
from nucleiseg.config import load_config
from nucleiseg.errors import StoppedError
from nucleiseg.runs import TrainRun
from nucleiseg.training import train
from nucleiseg.training.checkpoints import load_newest

_TIMES = 3
_STEPS = 30


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Write an archive of three times the limit, and train from it under the limit."""
    n_images = _TIMES * options.limit_mb * 10**6 // IMAGE_BYTES + 1
    say(f"training within {options.limit_mb} MB from {n_images:,} images")
    with work_in(options.folder, "limit-") as place:
        archive = Path(place) / "train.h5"
        _write_archive(archive, n_images)
        command = [sys.executable, "-m", "jobs.benchmark", "input", "--within"]
        command += ["--of", str(archive), "--memory-mb", str(options.memory_mb)]
        ran = run_apart([*command, "--limit-mb", str(options.limit_mb)])
        archive_mb = archive.stat().st_size / 1e6
    return {
        "archive_mb": archive_mb,
        "limit_mb": options.limit_mb,
        **json.loads(ran.output.splitlines()[-1]),
        "peak_mb": ran.largest_mb,
    }


def _write_archive(path: Path, n_images: int) -> None:
    """Write images and labels without compression: as large as they are."""
    shape = (n_images, SIDE_PX, SIDE_PX)
    with h5py.File(path, "w") as file:
        images = file.create_dataset("X", shape, "uint8")
        labels = file.create_dataset("y", shape, "uint16")
        start = 0
        for pair in draw(n_images):
            stop = start + len(pair[0])
            images[start:stop], labels[start:stop] = pair
            start = stop


def train_within(archive: Path, *, limit_mb: int, memory_mb: int) -> dict[str, Any]:
    """Train some steps in this process, which cannot have more memory afterwards."""
    n_bytes = limit_mb * 10**6
    resource.setrlimit(resource.RLIMIT_DATA, (n_bytes, n_bytes))
    _refuse_without_limit(n_bytes)
    config = load_config(
        None,
        [
            *(f"data.archive={archive}", f"data.memory_mb={memory_mb}"),
            *("model.base_filters=2", "training.device=cpu"),
        ],
    )
    run = TrainRun(archive.parent / "run")
    steps = itertools.count()

    def must_stop() -> bool:
        # The pass before, after which images are split, asks, too.
        return run.split.exists() and next(steps) >= _STEPS

    with contextlib.suppress(StoppedError):
        train(config, run.root, must_stop=must_stop)
    state = load_newest(run)
    assert state is not None, "it stopped without a state"
    return {"steps": state.step, "allocated_mb": _read_status("VmData") / 1024}


def _refuse_without_limit(n_bytes: int) -> None:
    """Refuse where memory beyond the limit can be had: nothing would be shown."""
    try:
        bytearray(n_bytes)
    except MemoryError:
        return
    raise RuntimeError("RLIMIT_DATA does not hold here; Linux 4.7 or later is needed")


def _read_status(name: str) -> int:
    """Read a figure of this process, KB."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1])
    raise KeyError(name)
