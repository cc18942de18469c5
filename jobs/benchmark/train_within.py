"""Train our network within a budget of CPU time, as a program of its own.

    python -m jobs.benchmark.train_within CONFIG FOLDER CORE_SECONDS

The steps are those of `nucleiseg train`: its crops, augmentation, loss and optimiser.
What differs is when it ends, and that the learning rate follows the budget. It leaves
a bundle, `FOLDER/model`, and prints one line of JSON.
"""

import argparse
import contextlib
import json
import sys
import time
from pathlib import Path
from typing import Any

from jobs.benchmark.budget import Budget, follow_budget
from nucleiseg.bundle import write_info
from nucleiseg.config import Config, load_config
from nucleiseg.dataset import inspect_labelled, open_labelled, training_order
from nucleiseg.model import save_weights
from nucleiseg.provenance import describe_environment
from nucleiseg.runs import TrainRun
from nucleiseg.training.circumstances import find_circumstances
from nucleiseg.training.feeding import make_feeds
from nucleiseg.training.replicas import find_replicas
from nucleiseg.training.steps import Machine, Sums


def train(config: Config, folder: Path, budget: Budget) -> dict[str, Any]:
    """Train, write the bundle, and say what was seen."""
    start_s = time.monotonic()
    run = TrainRun(folder)
    settings = config.training
    labelled = open_labelled(inspect_labelled(config.data), config, run)
    replicas = find_replicas(
        settings.replicas,
        batch_size=settings.batch_size,
        wanted_device=settings.device,
    )
    part = labelled.training
    order = training_order(part.n_crops, settings, part)
    precision = find_circumstances(config, replicas).precision
    sums, n_steps, n_crops = Sums.start(), 0, 0
    with contextlib.closing(labelled), labelled.name_failures():
        machine = Machine(
            config,
            replicas,
            precision=precision,
            image_shape=labelled.image_shape,
            n_steps=settings.epochs * order.n_batches,
        )
        for batch in make_feeds(config, replicas, labelled, order).training(0):
            machine._optimizer.learning_rate = follow_budget(
                settings.learning_rate, budget.share
            )
            sums = machine.train(sums, n_steps, batch)
            n_crops += order.indices(n_steps).size
            n_steps += 1
            if budget.is_used:
                break
        loss, _ = sums.mean()
    core_s = budget.used_s
    if (sums.faults.numpy() >= 0).any():
        raise RuntimeError(
            "training has diverged: loss or gradient is not finite; lower it with "
            "--set training.learning_rate=..."
        )
    height, width = labelled.image_shape
    trained = {
        "steps": n_steps,
        "crops": n_crops,
        "megapixels": n_crops * height * width / 1e6,
        "core_s": core_s,
        "wall_s": time.monotonic() - start_s,
        "mean_loss": loss,
        "precision": precision,
        "parameters": machine.network.count_params(),
    }
    _write_bundle(run, config, machine, trained)
    return trained


def _write_bundle(
    run: TrainRun, config: Config, machine: Machine, trained: dict[str, Any]
) -> None:
    run.bundle.root.mkdir(exist_ok=True)
    save_weights(run.bundle, config.model, machine.kept_weights())
    about = {
        "config": config.training.model_dump(mode="json"),
        "data": config.data.model_dump(mode="json"),
        "environment": describe_environment(),
    }
    write_info(run.bundle, config, training={**about, **trained}, scores={})


def main() -> int:
    """Train as the arguments say."""
    parser = argparse.ArgumentParser(prog="python -m jobs.benchmark.train_within")
    parser.add_argument("config", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("core_s", type=float)
    options = parser.parse_args()
    config = load_config(options.config)
    print(json.dumps(train(config, options.folder, Budget(options.core_s))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
