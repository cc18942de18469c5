"""What coordinating costs: shards that hold no work, over real scheduler and workers.

    python -m jobs.benchmark cluster [--shards 10000] [--workers 4]

Everything is real but the shard: TLS, keys in a run directory, the bounded window,
worker processes. A shard's own cost (ledger, partial table) is measured beside it.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from nucleiseg.atomic import write_text
from nucleiseg.attempts import Attempts
from nucleiseg.cluster import GatheredTeam, gather
from nucleiseg.cluster.dask_team import Task
from nucleiseg.cluster.rendezvous import find_meeting
from nucleiseg.cluster.task import Report
from nucleiseg.config import Config
from nucleiseg.inference import ShardResult
from nucleiseg.runs import CountRun
from nucleiseg.shards import ArchiveRef, Entry, Plan, write_plan
from nucleiseg.tables import ImageRow, tabulate, write_partial


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--shards", type=int, default=10_000)
    parser.add_argument("--workers", type=int, default=4)


def run(options: argparse.Namespace) -> int:
    """Measure, and print a table and JSON."""
    with tempfile.TemporaryDirectory(prefix="nucleiseg-benchmark-") as folder:
        found = measure(Path(folder), options.shards, options.workers)
        found["ms_per_shard_on_disk"] = measure_disk(Path(folder) / "disk")
    print(f"{'shards done':>12} {'ms a shard':>12} {'coordinator, MB':>16}")
    for step in found["steps"]:
        print(
            f"{step['n_shards']:>12,} {step['ms_per_shard']:>12.2f} "
            f"{step['coordinator_mb']:>16.1f}"
        )
    print(
        f"{found['n_workers']} workers: {found['ms_per_shard']:.2f} ms a shard for "
        f"coordinator and dask; {found['ms_per_shard_on_disk']:.2f} ms for ledger and "
        "partial table in the worker"
    )
    print(json.dumps(found))
    return 0


def do_nothing(number: int) -> Report:
    """Compute an empty shard."""
    return Report("", ShardResult(number, 0, 0, 0.0, False))


class _EmptyTeam(GatheredTeam):
    """Hands out shards that hold no work."""

    def _submit(self, task: Task, finished: Any) -> Any:
        future = self._client.submit(do_nothing, task, pure=False)
        future.add_done_callback(lambda _: finished.put(task))
        return future


def measure(folder: Path, n_shards: int, n_workers: int) -> dict[str, Any]:
    """Hand out empty shards; note time and the coordinator's memory on the way."""
    steps: list[dict[str, float]] = []
    run = CountRun(folder)
    write_plan(run.plan, _plan(n_shards))
    write_text(run.config, Config().to_yaml())
    with gather(
        folder, "", interface=None, is_local=True, watch=lambda _: True
    ) as gathered:
        processes = [_start_worker(folder, n) for n in range(n_workers)]
        try:
            team = _EmptyTeam(
                folder,
                "",
                client=gathered._client,
                scheduler=gathered._scheduler,
                watch=lambda _: True,
            )
            gathered._client.wait_for_workers(n_workers, timeout=120)
            team.compute(_entries(200), on_done=lambda _: None)  # warm up
            note = _note_steps(steps, max(1, n_shards // 10))
            start_s = time.perf_counter()
            team.compute(_entries(n_shards), on_done=note)
            seconds = time.perf_counter() - start_s
        finally:
            for process in processes:
                process.terminate()
    return {
        "benchmark": "cluster",
        "n_shards": n_shards,
        "n_workers": n_workers,
        "ms_per_shard": 1000 * seconds / n_shards,
        "steps": steps,
    }


def _note_steps(
    steps: list[dict[str, float]], every: int
) -> Callable[[ShardResult], None]:
    n_done = 0
    last_s = time.perf_counter()

    def note(_: ShardResult) -> None:
        nonlocal n_done, last_s
        n_done += 1
        if n_done % every == 0:
            now_s = time.perf_counter()
            steps.append(
                {
                    "n_shards": n_done,
                    "ms_per_shard": 1000 * (now_s - last_s) / every,
                    "coordinator_mb": _resident_mb(),
                }
            )
            last_s = now_s

    return note


def _entries(number: int) -> list[Entry]:
    return [Entry(0, shard=n, dataset="X", start=n, stop=n + 1) for n in range(number)]


def _plan(n_shards: int) -> Plan:
    archive = ArchiveRef("/a.npz", "a.npz", "0")
    return Plan((archive,), tuple(_entries(n_shards)), {})


def _resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def _start_worker(folder: Path, number: int) -> "subprocess.Popen[bytes]":
    run = CountRun(folder)
    meeting = find_meeting(run)
    assert meeting is not None
    keys = meeting.keys(run)
    command = [sys.executable, "-m", "distributed.cli.dask_worker", meeting.address]
    command += ["--tls-ca-file", str(keys.certificate)]
    command += ["--tls-cert", str(keys.certificate), "--tls-key", str(keys.key)]
    command += [
        "--name",
        f"worker-{number}",
        "--nthreads",
        "1",
        "--no-dashboard",
        "--no-nanny",
    ]
    command += ["--local-directory", str(folder), "--death-timeout", "60"]
    return subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )


def measure_disk(folder: Path, n_shards: int = 200) -> float:
    """Milliseconds that a worker spends on ledger and partial table of a shard."""
    run = CountRun(folder)
    run.parts.mkdir(parents=True)
    entries = _entries(n_shards)
    plan = _plan(n_shards)
    attempts = Attempts(run)
    start_s = time.perf_counter()
    for entry in entries:
        assert entry.shard is not None
        attempts.history(entry.shard)
        with attempts.attempt(entry.shard, (entry.start, entry.stop), worker="w"):
            rows = [ImageRow(entry.start, None, "empty")]
        write_partial(run, plan, entry, tabulate(rows, plan), compute="c")
        attempts.clear(entry.shard)
    return 1000 * (time.perf_counter() - start_s) / n_shards
