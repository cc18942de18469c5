"""A training from its configuration to its model bundle, resumable in between."""

import contextlib
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nucleiseg.atomic import write_text
from nucleiseg.bundle import read_bundle
from nucleiseg.config import Config, refuse_unseeded
from nucleiseg.dataset import (
    Labelled,
    LabelledShapes,
    inspect_labelled,
    open_labelled,
    split_images,
    training_order,
)
from nucleiseg.devices import explain_exhaustion
from nucleiseg.errors import BundleError
from nucleiseg.model import build_unet, describe
from nucleiseg.runs import TrainRun
from nucleiseg.training.checkpoints import (
    Arrays,
    Checkpoint,
    load_newest,
)
from nucleiseg.training.circumstances import compare_circumstances, find_circumstances
from nucleiseg.training.claim import claim
from nucleiseg.training.events import Events
from nucleiseg.training.feeding import make_feeds
from nucleiseg.training.finish import finish, write_so_far
from nucleiseg.training.history import History, read_history
from nucleiseg.training.loop import Loop
from nucleiseg.training.numerics import choose_device
from nucleiseg.training.replicas import find_replicas
from nucleiseg.training.samples import save_samples
from nucleiseg.training.steps import Machine

logger = logging.getLogger(__name__)

# Checkpoints are written each epoch; a model that others can use costs more.
_BUNDLE_INTERVAL_S = 60.0


@dataclass(frozen=True)
class Preview:
    """What a training would do."""

    layers: str
    n_parameters: int
    n_training: int
    n_validation: int


@dataclass(frozen=True)
class TrainResult:
    """What a training came to."""

    run: TrainRun
    history: History
    scores: dict[str, Any]
    already_finished: bool


def preview(config: Config) -> Preview:
    """Build the network and split the data, and train nothing."""
    shapes = _inspect(config)
    split = split_images(shapes, config.data)
    with explain_exhaustion():
        network = build_unet(config.model, image_shape=shapes.image_shape)
    return Preview(
        describe(network),
        network.count_params(),
        split.training.size,
        split.validation.size,
    )


def _inspect(config: Config) -> LabelledShapes:
    """Look at the data, once the settings fit each other."""
    refuse_unseeded(config.instances, config.model)
    return inspect_labelled(config.data)


def prepare_run(config: Config, folder: Path) -> TrainRun:
    """Check data and configuration, and make the run directory; train nothing.

    Raises
    ------
    ConfigError, ArchiveError, RunError
        Something does not fit, or the directory holds another training.
    """
    shapes = _inspect(config)
    split_images(shapes, config.data)
    run = TrainRun(folder)
    claim(run, config, shapes)
    return run


def train(
    config: Config, folder: Path, *, must_stop: Callable[[], bool] = lambda: False
) -> TrainResult:
    """Train a U-Net, or go on where an earlier call was interrupted.

    Parameters
    ----------
    config : Config
        Sections data, preprocess, model, training and instances are used.
    folder : Path
        The run directory; the model bundle is its subfolder `model`.
    must_stop : callable
        Asked after each step, and now and then before and after all steps, whether to
        stop, to be gone on with later.

    Raises
    ------
    StoppedError
        It was asked to stop.
    ConfigError, ArchiveError, RunError
        Before any work, when something does not fit.
    """
    shapes = _inspect(config)
    run = TrainRun(folder)
    claim(run, config, shapes)
    checkpoint = load_newest(run)
    history = checkpoint.history if checkpoint else History()
    if checkpoint is not None and read_history(run) != history:
        # A kill came between the checkpoint and this file.
        write_text(run.history, history.to_csv())
    if finished := _read_finished(run, config, history):
        return finished
    start_s = time.monotonic()
    labelled = open_labelled(shapes, config, run, must_stop=must_stop)
    with contextlib.closing(labelled):
        last = _run_epochs(run, config, labelled, checkpoint, must_stop)
        scores = finish(run, config, last, labelled, must_stop)
    logger.info(
        "model bundle %s after %.0f s", run.bundle.root, time.monotonic() - start_s
    )
    return TrainResult(run, last.history, scores, already_finished=False)


def _read_finished(
    run: TrainRun, config: Config, history: History
) -> TrainResult | None:
    training = config.training
    if not run.bundle.info.exists() or not history.is_over(
        training.epochs, training.early_stopping_epochs
    ):
        return None
    try:
        info = read_bundle(run.bundle.root)
    except BundleError as error:
        logger.warning("%s: it is made again from the last checkpoint", error)
        return None
    found = (info.training["epochs"], info.training["config"]["keep"], info.instances)
    if found != (history.epochs, training.keep, config.instances):
        return None
    return TrainResult(run, history, info.scores, already_finished=True)


def _run_epochs(
    run: TrainRun,
    config: Config,
    labelled: Labelled,
    checkpoint: Checkpoint | None,
    must_stop: Callable[[], bool],
) -> Checkpoint:
    """Train the steps that are left; give the last state."""
    training = config.training
    if checkpoint is not None and checkpoint.history.is_over(
        training.epochs, training.early_stopping_epochs
    ):
        # Left is to score the model, where it was trained.
        choose_device(training.device)
        if training.tensorboard:
            # A kill may have come between the last checkpoint and its events.
            events = Events(run)
            events.begin(checkpoint.history)
            events.close()
        return checkpoint
    replicas = find_replicas(
        training.replicas,
        batch_size=training.batch_size,
        wanted_device=training.device,
    )
    circumstances = find_circumstances(config, replicas)
    if checkpoint is not None:
        compare_circumstances(checkpoint.circumstances, circumstances, run)
    part = labelled.training
    order = training_order(part.n_crops, training, part)
    logger.info(
        "training on %d images, validating on %d, %d x %s, computing in %s",
        order.n_images,
        labelled.validation.n_crops,
        replicas.count,
        replicas.device,
        circumstances.precision,
    )
    so_far = _BundleSoFar(run, config, labelled)
    if checkpoint is None:
        save_samples(run, config, labelled, order)
    with explain_exhaustion(), labelled.name_failures():
        machine = Machine(
            config,
            replicas,
            precision=circumstances.precision,
            image_shape=labelled.image_shape,
            n_steps=training.epochs * order.n_batches,
        )
        if checkpoint is not None:
            machine.restore(checkpoint.variables)
            logger.info(
                "going on after step %d, %d of %d epochs done",
                checkpoint.step,
                checkpoint.history.epochs,
                training.epochs,
            )
        feeds = make_feeds(config, replicas, labelled, order)
        loop = Loop(run, training, machine, feeds, circumstances, checkpoint, so_far)
        return loop.run(must_stop)


class _BundleSoFar:
    """Writes the best model so far, where others can use it, now and then."""

    def __init__(
        self,
        run: TrainRun,
        config: Config,
        labelled: Labelled,
    ) -> None:
        self._run = run
        self._config = config
        self._labelled = labelled
        self._written_s = float("-inf")

    def __call__(self, history: History, weights: Arrays) -> None:
        if time.monotonic() - self._written_s < _BUNDLE_INTERVAL_S:
            return
        write_so_far(self._run, self._config, history, weights, self._labelled)
        self._written_s = time.monotonic()
