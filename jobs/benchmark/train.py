"""Speed of a training, beside the notebook's way and the bare compiled step.

    python -m jobs.benchmark train [--base-filters 64 16] [--set section.key=value] ...

Three things are measured in turn, some steps of each, in one process, so that other
work on the machine meets them alike:

a  the notebook's way: `model.fit` on arrays in memory, RMSprop, in float32;
b  the bare compiled step of (c) on one batch that stays on the device;
c  the loop of `nucleiseg train`, with the settings given by --set: reading, normalised
   and augmented batches on their way to the device, the step, watching it.

Given are medians of rounds, of ratios those within each round. What an epoch ends
with, validation and a checkpoint, is not in it.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from jobs.benchmark.measuring import describe_machine, print_table, say, warn_if_busy
from nucleiseg import synthetic
from nucleiseg.config import Config, load_config
from nucleiseg.dataset import inspect_labelled, open_labelled, training_order
from nucleiseg.devices import import_tensorflow
from nucleiseg.model import build_unet
from nucleiseg.preprocess import normalise_stack
from nucleiseg.runs import TrainRun
from nucleiseg.training.circumstances import find_circumstances
from nucleiseg.training.feeding import make_feeds
from nucleiseg.training.loop import Loop
from nucleiseg.training.replicas import find_replicas
from nucleiseg.training.steps import Machine, Sums
from nucleiseg.training.watching import Watch

_N_DRAWN = 32
# Batches that are ready when it is (c)'s turn again: they are not timed.
_AHEAD = 6
# Of the bare step's rate, by base filters; of the notebook's where the CPU has AMX.
_WANTED_SHARE = {64: 0.95, 16: 0.90}
_WANTED_GAIN = {64: 3.0}

Rival = Callable[[int], float]
"""Does so many steps; the seconds they took."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--base-filters", type=int, nargs="+", default=[64, 16])
    parser.add_argument("--steps", type=int, default=16, help="a turn (%(default)s)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--side", type=int, default=128, metavar="PX")
    parser.add_argument(
        "--set", action="append", default=[], dest="settings", metavar="KEY=VALUE"
    )


def run(options: argparse.Namespace) -> int:
    """Measure, and print a table and JSON."""
    machine = describe_machine()
    warn_if_busy(machine)
    rows = []
    with tempfile.TemporaryDirectory(prefix="train-") as name:
        archive = _draw_archive(Path(name), options.side)
        for filters in options.base_filters:
            config = load_config(
                None,
                [
                    f"data.archive={archive}",
                    # The same network and loss for all three.
                    "model.head=mask",
                    f"model.base_filters={filters}",
                    # Neither end nor checkpoint comes into it.
                    "training.epochs=10000",
                    # The same fields again and again, see below.
                    "data.overlap=keep",
                    "training.checkpoint_min=1e6",
                    *options.settings,
                ],
            )
            root = Path(name) / str(filters)
            rows.append(_measure(config, root, options, machine))
    print(f"images/s, medians of {options.rounds}; a notebook, b bare step, c train")
    header = "filters precision a b c c/b wanted c/a wanted".split()
    print_table(header, [tuple(row.values()) for row in rows])
    print(json.dumps({"benchmark": "train", "machine": machine, "rows": rows}))
    return 0


def _draw_archive(folder: Path, side_px: int) -> Path:
    path = folder / "train.npz"
    images, labels = synthetic.draw_fields(_N_DRAWN, (side_px, side_px), seed=1)
    # Drawing is slow, and what is on the images makes no difference.
    images, labels = np.tile(images, (8, 1, 1)), np.tile(labels, (8, 1, 1))
    np.savez(path, X=images, y=(labels > 0).astype("uint8"))
    return path


def _measure(
    config: Config, root: Path, options: argparse.Namespace, machine: dict[str, Any]
) -> dict[str, Any]:
    filters, size = config.model.base_filters, config.training.batch_size
    shapes = inspect_labelled(config.data)
    root.mkdir()
    labelled = open_labelled(shapes, config, TrainRun(root))
    images, masks = _read(config)
    replicas = find_replicas(1, batch_size=size, wanted_device=config.training.device)
    circumstances = find_circumstances(config, replicas)
    part = labelled.training
    order = training_order(part.n_crops, config.training, part)
    step = Machine(
        config,
        replicas,
        precision=circumstances.precision,
        image_shape=shapes.image_shape,
        n_steps=config.training.epochs * order.n_batches,
    )
    feeds = make_feeds(config, replicas, labelled, order)
    loop = Loop(
        TrainRun(root),
        config.training,
        step,
        feeds,
        circumstances,
        None,
        lambda history, weights: None,
    )
    rivals: dict[str, Rival] = {
        "notebook": _notebook(config, images, masks),
        "bare": _bare(step, images[:size], masks[:size]),
        "train": _train(loop, feeds.training(0), root),
    }
    for rival in rivals.values():
        rival(2)  # trace and warm up
    seconds: dict[str, list[float]] = {name: [] for name in rivals}
    for number in range(options.rounds):
        say(f"{filters} base filters, round {number + 1} of {options.rounds}")
        for name, rival in rivals.items():
            seconds[name].append(rival(options.steps))
    return _summarise(
        filters, circumstances.precision, seconds, options.steps * size, machine
    )


def _read(config: Config) -> tuple[Any, Any]:
    """All images, normalised, and masks: (N, H, W, 1) float32 each."""
    assert config.data.archive is not None
    with np.load(config.data.archive) as found:
        images, _ = normalise_stack(found["X"], config.preprocess)
        masks = (found["y"] > 0).astype(np.float32)
    return images[..., np.newaxis], masks[..., np.newaxis]


def _notebook(config: Config, images: Any, masks: Any) -> Rival:
    tensorflow = import_tensorflow()
    import keras

    size = config.training.batch_size
    network = build_unet(config.model, image_shape=images.shape[1:3])
    network.compile(
        optimizer=keras.optimizers.RMSprop(learning_rate=1e-4),
        loss="binary_crossentropy",
        metrics=["accuracy"],
    )
    pairs = tensorflow.data.Dataset.from_tensor_slices((images, masks))
    batches = pairs.batch(size).repeat()

    def fit_steps(n_steps: int) -> float:
        taken = batches.take(n_steps)
        start_s = time.perf_counter()
        network.fit(taken, epochs=1, shuffle=False, verbose=0)
        return time.perf_counter() - start_s

    return fit_steps


def _bare(machine: Machine, images: Any, masks: Any) -> Rival:
    constant = import_tensorflow().constant
    weights = np.full(len(images), 1 / len(images), np.float32)
    batch = (constant(images), constant(masks), constant(weights))

    def do_steps(n_steps: int) -> float:
        sums = Sums.start()
        start_s = time.perf_counter()
        for number in range(n_steps):
            sums = machine.train(sums, number, batch)
        sums.to_numpy()
        return time.perf_counter() - start_s

    return do_steps


def _train(loop: Loop, batches: Any, root: Path) -> Rival:
    order = loop._feeds.order
    watch = Watch(
        TrainRun(root),
        n_epochs=loop._settings.epochs,
        n_images=order.n_images,
        done=0,
        wants_tensorboard=False,
    )

    def do_steps(n_steps: int) -> float:
        # Those that were prefetched while it was the others' turn.
        for _ in range(_AHEAD):
            loop._do_step(next(batches), watch)
        loop._sums.to_numpy()
        n_images, start_s = watch.progress.done, time.perf_counter()
        for _ in range(n_steps):
            loop._do_step(next(batches), watch)
        loop._sums.to_numpy()
        seconds = time.perf_counter() - start_s
        # As many images as the others had: an epoch's last batch may be smaller.
        done = watch.progress.done - n_images
        return seconds * n_steps * order.batch_size / done

    return do_steps


def _summarise(
    filters: int,
    precision: str,
    seconds: dict[str, list[float]],
    n_images: int,
    machine: dict[str, Any],
) -> dict[str, Any]:
    def ratio(rival: str) -> float:
        pairs = zip(seconds[rival], seconds["train"], strict=True)
        return median(theirs / ours for theirs, ours in pairs)

    has_amx = "amx_bf16" in machine["features"]
    return {
        "base_filters": filters,
        "precision": precision,
        **{
            f"{rival}_images_per_s": n_images / median(found)
            for rival, found in seconds.items()
        },
        "share_of_bare": ratio("bare"),
        "wanted_share_of_bare": _WANTED_SHARE.get(filters),
        "gain_over_notebook": ratio("notebook"),
        "wanted_gain_over_notebook": _WANTED_GAIN.get(filters) if has_amx else None,
    }
