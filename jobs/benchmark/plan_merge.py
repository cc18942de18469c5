"""What a million images cost beside their pixels: plan, status, merge.

    python -m jobs.benchmark plan-merge [--images 1000000] [--shards 10000] ...

Archives (stored npz of 8x8 px), plan and partial tables are real files with real
headers; only the counts are drawn. Each step is a process of its own, so that its peak
memory is its own.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from jobs.benchmark.measuring import work_in
from nucleiseg.bundle import BundleInfo, read_bundle, write_info
from nucleiseg.config import Config
from nucleiseg.instances import ImageSummary
from nucleiseg.monitoring import CountStatus, read_status
from nucleiseg.runs import Bundle, CountRun
from nucleiseg.shards import make_plan, read_plan, write_plan
from nucleiseg.tables import ImageRow, find_missing, merge, tabulate, write_partial

_COMPUTE = "benchmark"
_SIDE_PX = 8


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--images", type=int, default=1_000_000)
    parser.add_argument("--shards", type=int, default=10_000)
    parser.add_argument("--archives", type=int, default=200)
    parser.add_argument("--folder", type=Path, help="where to work; emptied by you")
    parser.add_argument("--step", choices=_STEPS, help=argparse.SUPPRESS)


def run(options: argparse.Namespace) -> int:
    """Measure every step, and print a table and JSON; or do one step."""
    if options.step is not None:
        print(json.dumps(measure_step(options)))
        return 0
    with work_in(options.folder) as folder:
        write_archives(Path(folder), options.images, options.archives)
        steps = [measure_apart(options, Path(folder), step) for step in _STEPS]
    print(
        f"{options.images:,} images, {options.shards:,} shards, "
        f"{options.archives:,} archives"
    )
    print(
        f"{'step':<24} {'seconds':>10} {'of cores':>10} {'with start-up':>14} "
        f"{'peak MB':>10}"
    )
    for found in steps:
        print(
            f"{found['step']:<24} {found['seconds']:>10.2f} {found['cpu_s']:>10.2f} "
            f"{found['wall_s']:>14.2f} {found['peak_mb']:>10.0f}"
        )
    sizes = {name: getattr(options, name) for name in ("images", "shards", "archives")}
    print(json.dumps({"benchmark": "plan-merge", **sizes, "steps": steps}))
    return 0


def write_archives(folder: Path, n_images: int, n_archives: int) -> None:
    """Write archives with all images divided between them, and a model bundle."""
    (folder / "archives").mkdir()
    bounds = np.linspace(0, n_images, n_archives + 1).astype(int)
    for number, n in enumerate(np.diff(bounds)):
        pixels = np.full((n, _SIDE_PX, _SIDE_PX), number % 256, dtype=np.uint8)
        np.savez(folder / "archives" / f"plate{number:06d}.npz", X=pixels)
    bundle = Bundle(folder / "bundle")
    bundle.root.mkdir()
    bundle.weights.write_bytes(b"no network is loaded")
    write_info(bundle, Config(), training={}, scores={})
    CountRun(folder / "run").parts.mkdir(parents=True)


def measure_apart(
    options: argparse.Namespace, folder: Path, step: str
) -> dict[str, Any]:
    """Measure one step in a process of its own."""
    command = [sys.executable, "-m", "jobs.benchmark", "plan-merge", "--step", step]
    command += ["--images", str(options.images), "--shards", str(options.shards)]
    command += ["--folder", str(folder)]
    start_s = time.perf_counter()
    answer = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
    wall_s = time.perf_counter() - start_s
    return {**json.loads(answer.stdout.splitlines()[-1]), "wall_s": wall_s}


def measure_step(options: argparse.Namespace) -> dict[str, Any]:
    """Do one step in this process."""
    start_s, start_cpu_s = time.perf_counter(), time.process_time()
    _STEPS[options.step](options)
    return {
        "step": options.step,
        "seconds": time.perf_counter() - start_s,
        "cpu_s": time.process_time() - start_cpu_s,
        "peak_mb": _peak_mb(),
    }


def _peak_mb() -> float:
    # Not getrusage, whose peak a process takes over from the one that started it.
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError("/proc/self/status has no VmHWM: this needs Linux")


def _run(options: argparse.Namespace) -> CountRun:
    return CountRun(options.folder / "run")


def _model(options: argparse.Namespace) -> BundleInfo:
    return read_bundle(options.folder / "bundle")


def _plan(options: argparse.Namespace) -> None:
    archives = sorted(str(path) for path in (options.folder / "archives").iterdir())
    images = -(-options.images // options.shards)
    config = Config.model_validate({"shards": {"images": images}})
    plan = make_plan(archives, config, _model(options))
    assert plan.n_images == options.images
    write_plan(_run(options).plan, plan)


def _read_plan(options: argparse.Namespace) -> None:
    assert read_plan(_run(options).plan).n_images == options.images


def _find_missing(options: argparse.Namespace) -> None:
    run = _run(options)
    find_missing(run, read_plan(run.plan))


def _write_partials(options: argparse.Namespace) -> None:
    run = _run(options)
    plan = read_plan(run.plan)
    rng = np.random.default_rng(0)
    for shard in plan.shards:
        counts = rng.integers(0, 90, shard.n_images).tolist()
        shares = rng.random(shard.n_images).round(4).tolist()
        rows = [
            ImageRow(index, ImageSummary(count, share, 12.5 + count, 1, 0.0, share))
            if count
            else ImageRow(index, None, "drawn to fail")
            for index, count, share in zip(
                range(shard.start, shard.stop), counts, shares, strict=True
            )
        ]
        write_partial(run, plan, shard, tabulate(rows, plan), compute=_COMPUTE)


def _read_status(options: argparse.Namespace) -> None:
    status = read_status(_run(options).root, now_s=time.time())
    assert isinstance(status, CountStatus)
    assert status.n_images_done == options.images


def _merge(table_format: Any) -> Callable[[argparse.Namespace], None]:
    def step(options: argparse.Namespace) -> None:
        run = _run(options)
        plan = read_plan(run.plan)
        merged = merge(run, plan, table_format, compute=_COMPUTE)
        assert merged.n_images == options.images

    return step


_STEPS: dict[str, Callable[[argparse.Namespace], None]] = {
    "plan": _plan,
    "read plan": _read_plan,
    "find missing, of none": _find_missing,
    "write partials": _write_partials,
    "find missing, of all": _find_missing,
    "status": _read_status,
    "merge to parquet": _merge("parquet"),
    "merge to csv": _merge("csv"),
}
