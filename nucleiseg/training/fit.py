"""A training from its configuration to its model bundle, resumable in between."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nucleiseg.bundle import read_bundle
from nucleiseg.config import Config
from nucleiseg.dataset import (
    BatchOrder,
    Labelled,
    inspect_labelled,
    make_batches,
    open_labelled,
    split_images,
    training_order,
    usable_images,
)
from nucleiseg.devices import explain_exhaustion, find_precision, import_tensorflow
from nucleiseg.errors import BundleError, ConfigError, RunError
from nucleiseg.model import build_unet, describe
from nucleiseg.progress import Progress
from nucleiseg.runs import TrainRun
from nucleiseg.training.callbacks import make_callbacks
from nucleiseg.training.claim import claim
from nucleiseg.training.finish import finish, write_so_far
from nucleiseg.training.replicas import Replicas, find_replicas
from nucleiseg.training.samples import save_samples
from nucleiseg.training.state import (
    Checkpoint,
    History,
    drop_other_best,
    load_newest,
    save_best,
    save_checkpoint,
)

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
    shapes = inspect_labelled(config.data)
    split = split_images(shapes, config.data)
    with explain_exhaustion():
        network = build_unet(config.model, image_shape=shapes.image_shape)
    return Preview(
        describe(network),
        network.count_params(),
        split.training.size,
        split.validation.size,
    )


def _never() -> bool:
    return False


def prepare_run(config: Config, folder: Path) -> TrainRun:
    """Check data and configuration, and make the run directory; train nothing.

    Raises
    ------
    ConfigError, ArchiveError, RunError
        Something does not fit, or the directory holds another training.
    """
    shapes = inspect_labelled(config.data)
    split_images(shapes, config.data)
    run = TrainRun(folder)
    claim(run, config, shapes)
    return run


def train(
    config: Config, folder: Path, *, must_stop: Callable[[], bool] = _never
) -> TrainResult:
    """Train a U-Net, or go on where an earlier call was interrupted.

    Parameters
    ----------
    config : Config
        Sections data, preprocess, model, training and instances are used.
    folder : Path
        The run directory; the model bundle is its subfolder `model`.
    must_stop : callable
        Asked after each epoch whether to stop, to be gone on with later.

    Raises
    ------
    StoppedError
        It was asked to stop.
    ConfigError, ArchiveError, RunError
        Before any work, when something does not fit.
    """
    shapes = inspect_labelled(config.data)
    run = TrainRun(folder)
    claim(run, config, shapes)
    checkpoint = load_newest(run)
    history = checkpoint.history if checkpoint else History()
    if finished := _read_finished(run, config, history):
        return finished
    start_s = time.monotonic()
    labelled = open_labelled(shapes, config, run)
    _run_epochs(run, config, labelled, checkpoint, history, must_stop)
    scores = finish(run, config, history, labelled)
    logger.info(
        "model bundle %s after %.0f s", run.bundle.root, time.monotonic() - start_s
    )
    return TrainResult(run, history, scores, already_finished=False)


def _read_finished(
    run: TrainRun, config: Config, history: History
) -> TrainResult | None:
    if not run.bundle.info.exists() or history.epochs < config.training.epochs:
        return None
    try:
        info = read_bundle(run.bundle.root)
    except BundleError as error:
        logger.warning("%s: it is made again from the last checkpoint", error)
        return None
    found = (info.training["epochs"], info.training["config"]["keep"], info.instances)
    if found != (history.epochs, config.training.keep, config.instances):
        return None
    return TrainResult(run, history, info.scores, already_finished=True)


def _run_epochs(
    run: TrainRun,
    config: Config,
    labelled: Labelled,
    checkpoint: Checkpoint | None,
    history: History,
    must_stop: Callable[[], bool],
) -> None:
    training = config.training
    remaining = training.epochs - history.epochs
    if remaining <= 0:
        return
    replicas = find_replicas(
        training.replicas,
        batch_size=training.batch_size,
        wanted_device=training.device,
    )
    network, variables = _build(config, replicas, labelled.image_shape)
    if checkpoint is not None:
        _restore(variables, checkpoint)
        logger.info("after %d epochs, from %s", history.epochs, checkpoint.path)
    n_crops = labelled.training.n_crops, labelled.validation.n_crops
    order = training_order(n_crops[0], training, replicas.count, labelled.training)
    check = BatchOrder(
        usable_images(n_crops[1], replicas.count),
        training.batch_size,
        shuffle=False,
        seed=0,
    )
    if not order.n_images or not check.n_images:
        raise ConfigError(
            f"{n_crops[0]} training and {n_crops[1]} validation images are too "
            f"few for {replicas.count} replicas"
        )
    logger.info(
        "training on %d images, validating on %d, %d x %s",
        order.n_images,
        check.n_images,
        replicas.count,
        replicas.device,
    )

    save_samples(run, config, labelled, order)
    bundle_s = float("-inf")

    def save() -> None:
        if history.best_epoch == history.epochs:
            save_best(run, network.get_weights(), history)
        save_checkpoint(run, history, [_to_numpy(value) for value in variables])
        # The state before this one may be needed, too, with its own best weights.
        drop_other_best(run, [history, History(history.rows[:-1])])
        nonlocal bundle_s
        is_best = history.best_epoch == history.epochs
        if is_best and time.monotonic() - bundle_s >= _BUNDLE_INTERVAL_S:
            write_so_far(run, config, history, network.get_weights(), labelled)
            bundle_s = time.monotonic()

    with (
        explain_exhaustion(),
        labelled.name_failures(),
        Progress(
            training.epochs * order.n_images,
            label="training",
            unit="images",
            done=history.epochs * order.n_images,
        ) as progress,
    ):
        network.fit(
            make_batches(
                labelled,
                labelled.training,
                order,
                first_batch=history.epochs * order.n_batches,
                n_batches=remaining * order.n_batches,
                augmentation=config.augmentation,
            ),
            shuffle=False,
            initial_epoch=history.epochs,
            epochs=training.epochs,
            steps_per_epoch=order.n_batches,
            validation_data=make_batches(
                labelled,
                labelled.validation,
                check,
                first_batch=0,
                n_batches=check.n_batches,
            ),
            verbose=0,
            callbacks=make_callbacks(
                history,
                n_epochs=training.epochs,
                images_per_batch=lambda batch: order.indices(batch).size,
                progress=progress,
                save=save,
                must_stop=must_stop,
            ),
        )


def _build(
    config: Config, replicas: Replicas, image_shape: tuple[int, int]
) -> tuple[Any, list[Any]]:
    """Build and compile the network; with it all variables of a training state."""
    tensorflow = import_tensorflow()
    import keras

    training = config.training
    precision = find_precision(training.precision, replicas.device)
    logger.info("computing in %s", precision)
    if precision == "float32":
        # Ampere and later GPUs would round to 10 bits and call it float32.
        tensorflow.config.experimental.enable_tensor_float_32_execution(False)
    keras.utils.set_random_seed(training.seed)
    optimizers = {"rmsprop": keras.optimizers.RMSprop, "adam": keras.optimizers.Adam}
    with replicas.scope():
        network = build_unet(config.model, precision=precision, image_shape=image_shape)
        variables = _state_variables(network)
        optimizer = optimizers[training.optimizer](training.learning_rate)
        if precision == "float16":
            optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
        # Loading variables into an optimiser that is not built is skipped silently.
        optimizer.build(network.trainable_variables)
        network.compile(
            optimizer=optimizer,
            loss="binary_crossentropy",
            metrics=["accuracy"],
            jit_compile=False,
        )
    return network, variables + list(optimizer.variables)


def _state_variables(network: Any) -> list[Any]:
    """List the weights, then dropout's random state.

    Before compiling, which adds the variables of metrics to `network.variables`.
    """
    weights = list(network.weights)
    known = {id(variable) for variable in weights}
    return weights + [v for v in network.variables if id(v) not in known]


def _to_numpy(variable: Any) -> NDArray[Any]:
    return np.asarray(variable.numpy())


def _restore(variables: list[Any], checkpoint: Checkpoint) -> None:
    shapes = [tuple(variable.shape) for variable in variables]
    found = [value.shape for value in checkpoint.variables]
    if shapes != found:
        raise RunError(
            f"checkpoint {checkpoint.path} does not fit the network: it holds "
            f"{len(found)} variables, expected {len(shapes)}; use another --run"
        )
    for variable, value in zip(variables, checkpoint.variables, strict=True):
        variable.assign(value)
