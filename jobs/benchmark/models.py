"""Networks to measure with: given, or trained enough that their maps look real."""

import argparse
import sys
import tempfile
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import numpy as np

from jobs.benchmark.archives import data_folder
from jobs.benchmark.measuring import run_apart, say
from nucleiseg import synthetic
from nucleiseg.bundle import read_bundle
from nucleiseg.runs import TrainRun

_N_DRAWN = 400

# Crops and epochs by base filters, so that training takes about two minutes on two
# cores with AMX: on a few steps alone the maps would be noise, and labelling noise
# takes longer than labelling nuclei.
_TRAINING = {4: (1000, 6), 16: (1000, 6), 64: (300, 3)}

_CONFIG = """\
data: {{archive: "{archive}"}}
preprocess: {{normalisation: {normalisation}}}
model: {{head: mask, base_filters: {base_filters}, dropout: 0.1}}
training: {{epochs: {epochs}, batch_size: 8}}
"""


def add_material(parser: argparse.ArgumentParser) -> None:
    """Declare the options that all benchmarks with a network have."""
    parser.add_argument(
        "--model", type=Path, nargs="+", default=[], metavar="BUNDLE", dest="models"
    )
    parser.add_argument(
        "--folder", type=Path, help="keeps archives and trained models for other rounds"
    )
    parser.add_argument(
        "--side", type=int, default=128, help="of the images, px (%(default)s)"
    )
    parser.add_argument(
        "--normalisation",
        choices=("percentile", "none"),
        default="percentile",
        help="of trained models (%(default)s)",
    )
    add_setting_argument(parser)
    # For tests: a network that has learnt next to nothing.
    parser.add_argument("--train-images", type=int, help=argparse.SUPPRESS)


def add_setting_argument(parser: argparse.ArgumentParser) -> None:
    """Declare the option for settings of the counts."""
    parser.add_argument(
        "--setting",
        dest="settings",
        action="append",
        default=[],
        metavar="section.key=value",
        help="one more setting of the counts",
    )


def open_folder(options: argparse.Namespace) -> AbstractContextManager[str | Path]:
    """Take the folder to work in; without the option one that goes afterwards."""
    if options.folder is None:
        return tempfile.TemporaryDirectory(prefix="nucleiseg-benchmark-")
    options.folder.mkdir(parents=True, exist_ok=True)
    return nullcontext(options.folder.absolute())


def find_models(
    options: argparse.Namespace, base_filters: list[int], folder: Path
) -> dict[int, Path]:
    """Find the bundles that the options name, or train one a number of base filters.

    Parameters
    ----------
    options : Namespace
    base_filters : list of int
        Of the networks to train.
    folder : Path
        Keeps what was trained for the next time.

    Returns
    -------
    dict
        Bundles by base filters.
    """
    if options.models:
        return {read_bundle(path).model.base_filters: path for path in options.models}
    return {
        filters: _train(
            filters, folder / "models", options.normalisation, options.train_images
        )
        for filters in base_filters
    }


def _train(
    base_filters: int, folder: Path, normalisation: str, limit: int | None
) -> Path:
    n_images, epochs = _TRAINING[min(_TRAINING, key=lambda n: abs(n - base_filters))]
    n_images, epochs = (n_images, epochs) if limit is None else (limit, 2)
    name = f"{base_filters}-{normalisation}-{n_images}"
    run = TrainRun(folder / name)
    if not run.bundle.info.exists():
        say(f"training a network with {base_filters} base filters in {run.root}")
        folder.mkdir(parents=True, exist_ok=True)
        archive = _make_archive(folder / f"{name}.npz", n_images)
        config = folder / f"{name}.yaml"
        config.write_text(
            _CONFIG.format(
                archive=archive.absolute(),
                normalisation=normalisation,
                base_filters=base_filters,
                epochs=epochs,
            ),
            encoding="utf-8",
        )
        command = [sys.executable, "-m", "nucleiseg", "train", config]
        run_apart([*command, "--run", run.root])
    return run.bundle.root


def _make_archive(path: Path, n_images: int) -> Path:
    real = data_folder() / "X_and_y.npz"
    if real.exists():
        with np.load(real) as archive:
            images, masks = archive["X"][:n_images], archive["y"][:n_images]
    else:
        n_drawn = min(n_images, _N_DRAWN)
        images, labels = synthetic.draw_fields(n_drawn, (128, 128), seed=2)
        masks = labels > 0
    np.savez(path, X=images, y=masks.astype(np.uint8))
    return path
