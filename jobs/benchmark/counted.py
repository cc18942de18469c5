"""``nucleiseg count`` as a user runs it, measured."""

import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from jobs.benchmark.measuring import Ran, pin, run_apart
from nucleiseg.atomic import read_json
from nucleiseg.inference import Compute, read_compute
from nucleiseg.runs import CountRun
from nucleiseg.shards import read_plan


@dataclass(frozen=True)
class Counted:
    """What a count took and gave."""

    run: CountRun
    ran: Ran
    stages: dict[str, Any]
    """The worker's own times; see :class:`nucleiseg.inference.StageTimes`."""

    @property
    def n_images(self) -> int:
        """Images that were counted."""
        return int(self.stages["n_images"])

    @property
    def rate(self) -> float:
        """Images a second from the first one asked for to the last row.

        Without start-up and index, with whatever is lost between shards.
        """
        return self.n_images / float(self.stages["span_s"])

    @property
    def rate_by_clock(self) -> float:
        """Images a second of a worker while it has a shard, by its own clock."""
        return self.n_images / float(self.stages["wall_s"])

    @property
    def rate_with_start(self) -> float:
        """Images a second of the whole program."""
        return self.n_images / self.ran.wall_s

    @property
    def core_ms(self) -> dict[str, float]:
        """Core milliseconds an image, by stage."""
        return {name: float(ms) for name, ms in self.stages["core_ms"].items()}

    @property
    def scales(self) -> list[dict[str, Any]]:
        """By how much images were enlarged, by groups of datasets."""
        return list(read_json(self.run.manifest).get("scales", []))

    def counts(self) -> "pd.Series[int]":
        """Nuclei of each image, missing where it failed."""
        table = pd.read_csv(self.run.table("csv"), dtype={"count": "Int64"})
        return table["count"]

    def rate_between_parts(self, n_skipped: int = 1) -> float | None:
        """Images a second of all workers, by when their partial tables were written.

        It sees what no worker's own clock does: time lost between shards.

        Parameters
        ----------
        n_skipped : int
            The clock starts with so many shards done.

        Returns
        -------
        float or None
            None where there are too few shards to tell.
        """
        parts = sorted(
            (self.run.part(number).stat().st_mtime_ns, shard.n_images)
            for number, shard in enumerate(read_plan(self.run.plan).shards)
        )
        if len(parts) < n_skipped + 2:
            return None
        seconds = (parts[-1][0] - parts[n_skipped - 1][0]) / 1e9
        return sum(n_images for _, n_images in parts[n_skipped:]) / seconds

    @property
    def compute(self) -> Compute:
        """Device and precision, among others."""
        return read_compute(self.run)

    @property
    def batch(self) -> int:
        """Images of a batch."""
        return _read_batch(self.run)


def count(
    archive: Path | str | Sequence[str],
    model: Path,
    root: Path,
    settings: Sequence[str] = (),
    *,
    n_workers: int = 1,
    n_cores: int | None = None,
    labels: bool = False,
) -> Counted:
    """Count an archive, or several, into a new run directory with the command line.

    Parameters
    ----------
    archive : Path or str, or sequence of str
        `ARCHIVE` or `ARCHIVE:KEY`.
    model : Path
    root : Path
        The run directory; not there yet.
    settings : sequence of str
        Each `section.key=value`.
    n_workers : int
    n_cores : int, optional
        Cores of the whole command; None: all.
    labels : bool
        Whether label images are made, too, as `segment` does.

    Raises
    ------
    RuntimeError
        It failed, or there was nothing left to count.
    """
    if root.exists():
        raise RuntimeError(
            f"{root} is there, and a run that goes on measures nothing; use another "
            "--folder"
        )
    inputs = [archive] if isinstance(archive, Path | str) else archive
    verb = "segment" if labels else "count"
    command = _make_command(verb, inputs, model, root, settings, n_workers)
    ran = run_apart([*pin(n_cores), *command])
    run = CountRun(root)
    return Counted(run, ran, read_json(run.jobs.progress)["stages"])


def find_batch(
    archive: Path, model: Path, root: Path, settings: Sequence[str] = ()
) -> int:
    """Begin a count, and interrupt it as soon as it has chosen how to compute.

    Parameters are those of :func:`count`.

    Returns
    -------
    int
        Images of a batch.

    Raises
    ------
    RuntimeError
        It failed before that.
    """
    command = _make_command("count", [archive], model, root, settings, 1)
    run = CountRun(root)
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as process:
        while process.poll() is None and not run.compute.exists():
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        _, words = process.communicate()
    if not run.compute.exists():
        raise RuntimeError(f"{' '.join(command)} failed: {words.strip()}")
    return _read_batch(run)


def _make_command(
    verb: str,
    inputs: Sequence[Path | str],
    model: Path,
    root: Path,
    settings: Sequence[str],
    n_workers: int,
) -> list[str]:
    command = [sys.executable, "-m", "nucleiseg", verb, *map(str, inputs)]
    command += ["--model", str(model), "--run", str(root), "--workers", str(n_workers)]
    for setting in settings:
        command += ["--set", setting]
    return command


def _read_batch(run: CountRun) -> int:
    shape = read_plan(run.plan).shards[0].image_shape
    return read_compute(run).batch_shape(shape)[0]
