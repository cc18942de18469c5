"""Training input: crops a second on one core, and peak memory whatever the archive.

    python -m jobs.benchmark input [--images 2000 50000] [--rounds 3] [--folder DIR]

Images and instance labels of 128x128 px, uint8 and uint16, in a deflated npz and in
gzip HDF5. Each measurement is a process of its own on one core: it opens the archive,
passes over it, and makes one epoch of batches, streamed through --memory-mb of memory,
without TensorFlow. Rates are of the batches alone. Memory is wanted within 5 % of that
of the smallest archive; all of them must be larger than --memory-mb.

--trained measures `nucleiseg train` itself in place of that: one epoch, augmented, with
the smallest network, on all cores, the process with all its libraries.

--limit-mb N trains, beside that, some steps in a process that may allocate N MB, from
an HDF5 archive three times as large. TensorFlow and its threads take 1 GB of them.
"""

import argparse
import json
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import h5py
import numpy as np
import pandas as pd

from jobs.benchmark.measuring import (
    Ran,
    describe_machine,
    middle,
    pin,
    print_table,
    run_apart,
    say,
    warn_if_busy,
    work_in,
)
from nucleiseg import synthetic
from nucleiseg.config import AugmentationConfig, load_config
from nucleiseg.dataset import (
    Gatherer,
    inspect_labelled,
    open_labelled,
    training_order,
)
from nucleiseg.errors import ConfigError
from nucleiseg.runs import TrainRun

SIDE_PX = 128
# Images uint8 and labels uint16.
IMAGE_BYTES = 3 * SIDE_PX**2
_POOL_IMAGES = 512
_FORMS = ("deflated", "hdf5")
_WANTED_GROWTH = 0.05
_WANTED_RATE = 500
# Every part on, as strong as one would train with.
_ALL = {
    "flips": True,
    "quarter_turns": True,
    "rotation_deg": 180.0,
    "scale": 1.25,
    "elastic_px": 6.0,
    "brightness": 0.1,
    "contrast": 1.5,
    "gamma": 1.5,
    "blur_px": 1.5,
    "noise": 0.05,
    "background": 0.2,
    "inversion": 0.1,
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--images", type=int, nargs="*", default=[2_000, 50_000])
    parser.add_argument("--memory-mb", type=int, default=64)
    parser.add_argument("--formats", nargs="+", choices=_FORMS, default=list(_FORMS))
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--folder", type=Path, help="where to work")
    parser.add_argument("--trained", action="store_true", help="of a whole training")
    parser.add_argument("--limit-mb", type=int, metavar="N")
    parser.add_argument("--of", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--changed", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--within", action="store_true", help=argparse.SUPPRESS)


def run(options: argparse.Namespace) -> int:
    """Measure all archives, and print a table and JSON; or read one."""
    if options.within:
        # It trains: what it imports is no part of the other measurements.
        from jobs.benchmark import limited

        found = limited.train_within(
            options.of, limit_mb=options.limit_mb, memory_mb=options.memory_mb
        )
        print(json.dumps(found))
        return 0
    if options.of is not None:
        print(json.dumps(read_epoch(options.of, options.memory_mb, options.changed)))
        return 0
    _refuse_held(options.images, options.memory_mb)
    machine = describe_machine()
    warn_if_busy(machine)
    rows = []
    for form in options.formats:
        for is_changed in (True,) if options.trained else (False, True):
            rows += measure(options, form, is_changed)
    if rows:
        print_table(list(rows[0]), [list(row.values()) for row in rows])
    within = None
    if options.limit_mb:
        from jobs.benchmark import limited

        within = limited.measure(options)
        print_table(list(within), [list(within.values())])
    found = {"benchmark": "input", "machine": machine, "rows": rows, "within": within}
    print(json.dumps(found))
    return 0


def _refuse_held(sizes: list[int], memory_mb: int) -> None:
    """Refuse archives that fit into memory, before any is drawn."""
    for n_images in sizes:
        held_mb = n_images * IMAGE_BYTES / 1e6
        if held_mb <= memory_mb:
            raise ConfigError(
                f"{n_images} images take {held_mb:.1f} MB and --memory-mb is "
                f"{memory_mb}: nothing would be streamed; use more --images"
            )


def measure(
    options: argparse.Namespace, form: str, is_changed: bool
) -> list[dict[str, Any]]:
    """Measure archives of all sizes in one format."""
    rows: list[dict[str, Any]] = []
    for n_images in options.images:
        say(f"{form}: {n_images:,} images{', augmented' if is_changed else ''}")
        with work_in(options.folder, "input-") as place:
            archive = write_archive(Path(place), n_images, form)
            make = _train if options.trained else _read
            found, ran = zip(
                *(
                    make(archive, options.memory_mb, is_changed)
                    for _ in range(options.rounds)
                ),
                strict=True,
            )
        peak_mb = middle(one.largest_mb for one in ran)
        assert peak_mb is not None
        first_mb = rows[0]["peak_mb"] if rows else peak_mb
        rows.append(
            {
                "format": form,
                "augmented": is_changed,
                "images": n_images,
                "pass_images_per_s": middle(one.get("pass_rate") for one in found),
                "images_per_s": middle(one["rate"] for one in found),
                "wanted_above": None if options.trained else _WANTED_RATE,
                "peak_mb": peak_mb,
                "growth": peak_mb / first_mb - 1,
                "wanted_within": _WANTED_GROWTH,
            }
        )
    return rows


def _read(
    archive: Path, memory_mb: int, is_changed: bool
) -> tuple[dict[str, float], Ran]:
    """Make the batches of an epoch in a process of its own, on one core."""
    command = [*pin(1), sys.executable, "-m", "jobs.benchmark", "input"]
    command += ["--of", str(archive), "--memory-mb", str(memory_mb)]
    command += ["--changed"] if is_changed else []
    ran = run_apart(command)
    return json.loads(ran.output), ran


def _train(
    archive: Path, memory_mb: int, is_changed: bool
) -> tuple[dict[str, float], Ran]:
    """Train for an epoch as a user would."""
    config = {
        # What is drawn is the same fields again and again.
        "data": {"archive": str(archive), "memory_mb": memory_mb, "overlap": "keep"},
        "model": {"base_filters": 1},
        "training": {"epochs": 1},
        "augmentation": _ALL if is_changed else {},
    }
    with tempfile.TemporaryDirectory(prefix="run-", dir=archive.parent) as place:
        path, run = Path(place) / "config.yaml", TrainRun(Path(place) / "run")
        # JSON is YAML.
        path.write_text(json.dumps(config), encoding="utf-8")
        ran = run_apart(
            [sys.executable, "-m", "nucleiseg", "train", path, "--run", run.root]
        )
        rates = pd.read_csv(run.rates)
    return {"rate": float(rates["images_per_s"].iloc[-1])}, ran


def read_epoch(archive: Path, memory_mb: int, is_changed: bool) -> dict[str, float]:
    """Make all batches of an epoch; give images a second, of the pass and of it."""
    # As one core would: OpenCV's own threads would only take turns.
    cv2.setNumThreads(1)
    config = load_config(
        None, [f"data.archive={archive}", f"data.memory_mb={memory_mb}"]
    )
    start_s = time.perf_counter()
    labelled = open_labelled(
        inspect_labelled(config.data), config, TrainRun(archive.parent / "run")
    )
    pass_s = time.perf_counter() - start_s
    part = labelled.training
    order = training_order(part.n_crops, config.training, part)
    store = labelled.make_store(part, order, first_batch=0, n_batches=order.n_batches)
    settings = AugmentationConfig.model_validate(_ALL if is_changed else {})
    gatherer = Gatherer(labelled, part, order, store, settings)
    start_s = time.perf_counter()
    for batch in range(order.n_batches):
        gatherer.gather(batch)
    epoch_s = time.perf_counter() - start_s
    return {
        "pass_rate": labelled.shapes.n_images / pass_s,
        "rate": order.n_images / epoch_s,
    }


def write_archive(folder: Path, n_images: int, form: str) -> Path:
    """Write images and labels to train on."""
    shape = (n_images, SIDE_PX, SIDE_PX)
    if form == "hdf5":
        path = folder / "train.h5"
        with h5py.File(path, "w") as file:
            for key, dtype in (("X", "uint8"), ("y", "uint16")):
                chunks = (1, SIDE_PX, SIDE_PX)
                file.create_dataset(key, shape, dtype, chunks=chunks, compression=1)
            start = 0
            for images, labels in draw(n_images):
                file["X"][start : start + len(images)] = images
                file["y"][start : start + len(images)] = labels
                start += len(images)
        return path
    path = folder / "train.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for place, (key, dtype) in enumerate((("X", "|u1"), ("y", "<u2"))):
            header = {"descr": dtype, "fortran_order": False, "shape": shape}
            with archive.open(f"{key}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array_header_1_0(member, header)
                for pair in draw(n_images):
                    member.write(pair[place].data)
    return path


def draw(n_images: int) -> Iterator[tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]]:
    """Draw stacks of images and labels, each stack the same nuclei elsewhere."""
    rng = np.random.default_rng(0)
    n_drawn = min(_POOL_IMAGES, n_images)
    images, labels = synthetic.draw_fields(n_drawn, (SIDE_PX, SIDE_PX), seed=0)
    for start in range(0, n_images, _POOL_IMAGES):
        shift = rng.integers(SIDE_PX, size=2)
        order = rng.permutation(len(images))[: n_images - start]
        yield (
            np.ascontiguousarray(np.roll(images, shift, axis=(1, 2))[order]),
            np.ascontiguousarray(np.roll(labels, shift, axis=(1, 2))[order]),
        )
