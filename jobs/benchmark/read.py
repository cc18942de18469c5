"""What reading an archive costs: np.load, the pass, a seek, and forwards in batches.

    python -m jobs.benchmark read [--images 100000] [--rounds 3] [--folder DIR]

The images are synthetic fields of 128x128 px, each at a random place of the stack and
shifted, so that deflate finds as much in them as in real ones. Each measurement is a
process of its own, so that its peak memory is its own, and they take turns.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from jobs.benchmark.measuring import work_in
from nucleiseg import archives, synthetic
from nucleiseg.archives.index import find_points

_SIDE_PX = 128
_POOL_IMAGES = 512
_BATCH_IMAGES = 64
_RANGE_IMAGES = 256
_DTYPES = ("uint8", "float32")
_FORWARDS = {
    "forwards, deflated npz": "deflated.npz",
    "forwards, stored npz": "stored.npz",
    "forwards, gzip HDF5": "gzip.h5",
}
# np.load and the pass see the same file; the later steps need the pass.
_STEPS = ("np.load", "pass", "256 of the middle", *_FORWARDS)
# np.savez_compressed's own level takes five times as long and saves 5 %.
_LEVEL = 3


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--folder", type=Path, help="where to work")
    parser.add_argument("--step", choices=_STEPS, help=argparse.SUPPRESS)
    parser.add_argument("--of", type=Path, help=argparse.SUPPRESS)


def run(options: argparse.Namespace) -> int:
    """Measure every step, and print a table and JSON; or do one step."""
    if options.step is not None:
        print(json.dumps(measure_step(options.step, options.of, options.threads)))
        return 0
    found = []
    for dtype in _DTYPES:
        with work_in(options.folder) as folder:
            write_archives(Path(folder), options.images, np.dtype(dtype))
            found.append(measure(Path(folder), dtype, options))
    for facts in found:
        print_table(facts)
    print(json.dumps({"benchmark": "read", "dtypes": found}))
    return 0


def write_archives(folder: Path, n_images: int, dtype: np.dtype[Any]) -> None:
    """Write the same images deflated, stored and in gzip HDF5."""
    shape = (n_images, _SIDE_PX, _SIDE_PX)
    header = {"descr": dtype.str, "fortran_order": False, "shape": shape}
    with (
        zipfile.ZipFile(
            folder / "deflated.npz", "w", zipfile.ZIP_DEFLATED, compresslevel=_LEVEL
        ) as deflated,
        zipfile.ZipFile(folder / "stored.npz", "w") as stored,
        h5py.File(folder / "gzip.h5", "w") as file,
        deflated.open("X.npy", "w", force_zip64=True) as deflated_member,
        stored.open("X.npy", "w", force_zip64=True) as stored_member,
    ):
        dataset = file.create_dataset(
            "X",
            shape,
            dtype,
            chunks=(min(_BATCH_IMAGES, n_images), _SIDE_PX, _SIDE_PX),
            compression="gzip",
            compression_opts=_LEVEL,
        )
        for member in (deflated_member, stored_member):
            np.lib.format.write_array_header_1_0(member, header)
        start = 0
        for images in draw_images(n_images, dtype):
            deflated_member.write(images.data)
            stored_member.write(images.data)
            dataset[start : start + len(images)] = images
            start += len(images)


def draw_images(n_images: int, dtype: np.dtype[Any]) -> Iterator[np.ndarray[Any, Any]]:
    """Draw stacks of images; none is nearer to itself than deflate's 32 KB."""
    rng = np.random.default_rng(0)
    pool, _ = synthetic.draw_fields(_POOL_IMAGES, (_SIDE_PX, _SIDE_PX), seed=0)
    for start in range(0, n_images, _POOL_IMAGES):
        images = np.roll(pool, rng.integers(_SIDE_PX, size=2), axis=(1, 2))
        images = images[rng.permutation(_POOL_IMAGES)][: n_images - start]
        yield np.ascontiguousarray(images.astype(dtype))


def measure(folder: Path, dtype: str, options: argparse.Namespace) -> dict[str, Any]:
    """Measure every step in turn, several times, and give the medians."""
    rounds: dict[str, list[dict[str, float]]] = {step: [] for step in _STEPS}
    for _ in range(options.rounds):
        shutil.rmtree(folder / "index", ignore_errors=True)
        for step in _STEPS:
            rounds[step].append(measure_apart(step, folder, options.threads))
    path = folder / "deflated.npz"
    points = find_points(folder / "index", archives.fingerprint(path), "X")
    raw_bytes = options.images * _SIDE_PX**2 * np.dtype(dtype).itemsize
    steps = {
        step: {key: statistics.median(one[key] for one in ones) for key in ones[0]}
        for step, ones in rounds.items()
    }
    return {
        "dtype": dtype,
        "n_images": options.images,
        "n_threads": options.threads,
        "raw_mb": raw_bytes / 1e6,
        "deflated_mb": path.stat().st_size / 1e6,
        "index_share": points.stat().st_size / raw_bytes,
        "pass_speedup": steps["np.load"]["seconds"] / steps["pass"]["seconds"],
        "steps": steps,
    }


def measure_apart(step: str, folder: Path, n_threads: int) -> dict[str, float]:
    """Measure a step in a process of its own."""
    command = [sys.executable, "-m", "jobs.benchmark", "read", "--step", step]
    command += ["--of", str(folder), "--threads", str(n_threads)]
    answer = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return dict(json.loads(answer.stdout))


def measure_step(step: str, folder: Path, n_threads: int) -> dict[str, float]:
    """Do a step; give its seconds, those of all cores, and the process's peak."""
    start_s, start_cpu_s = time.perf_counter(), time.process_time()
    if step == "np.load":
        with np.load(folder / "deflated.npz") as loaded:
            assert len(loaded["X"])
    elif step == "pass":
        path = folder / "deflated.npz"
        note = archives.pass_member(
            path,
            "X",
            folder=folder / "index",
            fingerprint=archives.fingerprint(path),
            n_threads=n_threads,
        )
        assert note.damage is None
    elif step in _FORWARDS:
        read_forwards(folder, folder / _FORWARDS[step])
    else:
        return {**read_middles(folder), "peak_mb": read_peak_mb()}
    return {
        "seconds": time.perf_counter() - start_s,
        "cpu_s": time.process_time() - start_cpu_s,
        "peak_mb": read_peak_mb(),
    }


def read_forwards(folder: Path, path: Path) -> None:
    """Read all of an archive as a worker does."""
    # A stored member's note would only say that its CRC was right.
    is_deflated = path.name == "deflated.npz"
    index = (folder / "index", archives.fingerprint(path)) if is_deflated else None
    with archives.open_reader(path, "X", index=index) as reader:
        n_images = reader.info.n_images
        for start in range(0, n_images, _BATCH_IMAGES):
            reader.read(start, min(start + _BATCH_IMAGES, n_images))


def read_middles(folder: Path, n_times: int = 9) -> dict[str, float]:
    """Open the archive and read a range out of its middle, each time another one."""
    path = folder / "deflated.npz"
    index = (folder / "index", archives.fingerprint(path))
    rng = np.random.default_rng(0)
    seconds, cpu_s = [], []
    for _ in range(n_times):
        start_s, start_cpu_s = time.perf_counter(), time.process_time()
        with archives.open_reader(path, "X", index=index) as reader:
            n_images = reader.info.n_images
            n_wanted = min(_RANGE_IMAGES, n_images)
            start = int(rng.integers(n_images // 4, n_images * 3 // 4))
            start = min(start, n_images - n_wanted)
            reader.read(start, start + n_wanted)
        seconds.append(time.perf_counter() - start_s)
        cpu_s.append(time.process_time() - start_cpu_s)
    return {"seconds": statistics.median(seconds), "cpu_s": statistics.median(cpu_s)}


def read_peak_mb() -> float:
    """Peak memory of this process; getrusage would give its parent's, if larger."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    line = next(line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024 / 1e6


def print_table(facts: dict[str, Any]) -> None:
    """Print what was measured for one dtype."""
    raw_mb = facts["raw_mb"]
    print(
        f"{facts['n_images']:,} images of {_SIDE_PX}x{_SIDE_PX} {facts['dtype']}: "
        f"{raw_mb:,.0f} MB raw, {facts['deflated_mb']:,.0f} MB deflated"
    )
    print(f"  {'':<26} {'seconds':>9} {'of cores':>9} {'raw MB/s':>9} {'peak MB':>9}")
    for step, found in facts["steps"].items():
        is_part = step not in ("np.load", "pass", *_FORWARDS)
        speed = "" if is_part else f"{raw_mb / found['seconds']:,.0f}"
        print(
            f"  {step:<26} {found['seconds']:>9.3f} {found['cpu_s']:>9.3f} "
            f"{speed:>9} {found['peak_mb']:>9.0f}"
        )
    print(
        f"  the pass is {facts['pass_speedup']:.1f} times as fast as np.load (wanted: "
        f"2); its index is {100 * facts['index_share']:.3f} % of the raw size (wanted: "
        "below 1); 256 images take "
        f"{facts['steps']['256 of the middle']['seconds']:.3f} s (wanted: below 0.1)"
    )
