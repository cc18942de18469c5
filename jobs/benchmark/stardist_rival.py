"""StarDist, as a program of its own: train, choose thresholds, predict.

    python -m jobs.benchmark.stardist_rival train CONTEST FOLDER CORE_SECONDS
    python -m jobs.benchmark.stardist_rival tune CONTEST FOLDER HALF
    python -m jobs.benchmark.stardist_rival predict CONTEST FOLDER HALF THRESHOLDS OUT

Network, loss, batches and learning rate are StarDist's own defaults, on every second
pixel (`grid`), 32 rays and percentiles 1 to 99.8, as in its examples; flips, quarter
turns, intensities and noise change the training images, as there. Each prints one line
of JSON.

Schmidt et al., Cell Detection with Star-convex Polygons, MICCAI 2018.
"""

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jobs.benchmark.budget import Budget, follow_budget
from jobs.benchmark.contest_images import TRAIN, Contest
from nucleiseg.config import PreprocessConfig
from nucleiseg.devices import import_tensorflow
from nucleiseg.preprocess import normalise

_GRID = (2, 2)
_N_RAYS = 32
_PATCH_PX = 256
# Patches have sides of a multiple: of the grid, and of three halvings after it.
_MULTIPLE = 16
_STEPS_AN_EPOCH = 100
_NAME = "stardist"

Array = NDArray[Any]


def train(contest: Contest, folder: Path, budget: Budget) -> dict[str, Any]:
    """Train, write the model, and say what was seen."""
    start_s = time.monotonic()
    import_tensorflow()
    from stardist.models import Config2D, StarDist2D

    images, labels = _read(contest, TRAIN)
    shortest = min(min(image.shape) for image in images)
    side = min(_PATCH_PX, shortest // _MULTIPLE * _MULTIPLE)
    config = Config2D(
        n_rays=_N_RAYS,
        grid=_GRID,
        train_patch_size=(side, side),
        train_tensorboard=False,
        # Lowered by the budget, below; and the last weights are kept, not those best
        # in a validation for which the budget is too small.
        train_reduce_lr=None,
        train_checkpoint=None,
        train_checkpoint_epoch=None,
    )
    model = StarDist2D(config, name=_NAME, basedir=str(folder))
    model.prepare_for_training()
    stop = _make_callback(config.train_learning_rate, budget)
    model.callbacks.append(stop)
    rng = np.random.default_rng(0)
    model.train(
        images,
        labels,
        # It must have some: next to nothing, which it computes once an epoch.
        validation_data=(images[:1], labels[:1]),
        augmenter=lambda image, label_image: _augment(image, label_image, rng),
        seed=0,
        epochs=10_000,
        steps_per_epoch=_STEPS_AN_EPOCH,
    )
    n_crops = stop.n_steps * config.train_batch_size
    return {
        "steps": stop.n_steps,
        "crops": n_crops,
        "megapixels": n_crops * side**2 / 1e6,
        "core_s": budget.used_s,
        "wall_s": time.monotonic() - start_s,
        "precision": "float32",
        "parameters": model.keras_model.count_params(),
    }


def _make_callback(highest_rate: float, budget: Budget) -> Any:
    import keras

    class FollowBudget(keras.callbacks.Callback):  # type: ignore[misc]
        """Sets the learning rate, counts steps, and stops when the budget is used."""

        n_steps = 0

        def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
            rate = follow_budget(highest_rate, budget.share)
            self.model.optimizer.learning_rate = rate

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            self.n_steps += 1
            if budget.is_used:
                self.model.stop_training = True

    return FollowBudget()


def _read(contest: Contest, part: str) -> tuple[list[Array], list[Array]]:
    """Read a part: normalised images, and labels."""
    images: list[Array] = []
    labels: list[Array] = []
    for stack in contest.read(part):
        images += [_normalise(image) for image in stack.images]
        labels += list(stack.labels)
    return images, labels


def _normalise(image: Array) -> NDArray[np.float32]:
    # The same percentiles as ours.
    return np.asarray(normalise(image, PreprocessConfig()), dtype=np.float32)


def _augment(
    image: Array, labels: Array, rng: np.random.Generator
) -> tuple[Array, Array]:
    """Mirror and turn both at random, change the intensities, and add noise."""
    turns = int(rng.integers(4))
    pair = [np.rot90(one, turns) for one in (image, labels)]
    if rng.integers(2):
        pair = [one[:, ::-1] for one in pair]
    image, labels = pair
    image = image * rng.uniform(0.6, 2) + rng.uniform(-0.2, 0.2)
    noise = 0.02 * rng.uniform() * rng.standard_normal(image.shape)
    return (image + noise).astype(np.float32), labels


def tune(contest: Contest, folder: Path, half: str) -> dict[str, Any]:
    """Choose probability and overlap thresholds on one half of the images."""
    model = _load(folder)
    images, labels = _read(contest, half)
    model.optimize_thresholds(images, labels, save_to_json=False)
    return {"prob": float(model.thresholds.prob), "nms": float(model.thresholds.nms)}


def predict(
    contest: Contest, folder: Path, half: str, thresholds: dict[str, float], out: Path
) -> dict[str, Any]:
    """Predict one half of the images, and write their label images.

    Timed from the first image in memory to the last label image, once an image of each
    size has been predicted: what TensorFlow compiles for them is not in it.
    """
    model = _load(folder)
    stacks = list(contest.read(half))
    for stack in stacks:
        model.predict_instances(_normalise(stack.images[0]))
    start_s = time.perf_counter()
    found = {
        stack.group: np.stack(
            [
                model.predict_instances(
                    _normalise(image),
                    prob_thresh=thresholds["prob"],
                    nms_thresh=thresholds["nms"],
                )[0]
                for image in stack.images
            ]
        )
        for stack in stacks
    }
    seconds = time.perf_counter() - start_s
    np.savez_compressed(out, **found)  # type: ignore[arg-type]
    return {"n_images": sum(map(len, found.values())), "seconds": seconds}


def _load(folder: Path) -> Any:
    import_tensorflow()
    from stardist.models import StarDist2D

    return StarDist2D(None, name=_NAME, basedir=str(folder))


def main() -> int:
    """Do one part."""
    parser = argparse.ArgumentParser(prog="python -m jobs.benchmark.stardist_rival")
    parser.add_argument("part", choices=("train", "tune", "predict"))
    parser.add_argument("contest", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("words", nargs="+")
    options = parser.parse_args()
    contest, folder = Contest(options.contest, ""), options.folder
    if options.part == "train":
        found = train(contest, folder, Budget(float(options.words[0])))
    elif options.part == "tune":
        found = tune(contest, folder, options.words[0])
    else:
        half, thresholds, out = options.words
        found = predict(contest, folder, half, json.loads(thresholds), Path(out))
    print(json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
