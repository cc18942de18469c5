"""From the last training state to a model bundle with scores and plots."""

import shutil
from collections.abc import Callable, Sequence
from typing import Any

from numpy.typing import NDArray

from nucleiseg.bundle import write_info
from nucleiseg.config import Config
from nucleiseg.dataset import Labelled
from nucleiseg.model import build_unet, save_weights
from nucleiseg.provenance import describe_environment
from nucleiseg.report import save_history
from nucleiseg.runs import Bundle, TrainRun
from nucleiseg.training.checkpoints import Arrays, Checkpoint
from nucleiseg.training.history import History
from nucleiseg.training.scores import score_counts


def finish(
    run: TrainRun,
    config: Config,
    last: Checkpoint,
    labelled: Labelled,
    must_stop: Callable[[], bool],
) -> dict[str, Any]:
    """Write bundle and plots; score the bundle's network on the validation images.

    Parameters
    ----------
    run : TrainRun
    config : Config
    last : Checkpoint
        After the last epoch.
    labelled : Labelled
    must_stop : callable
        Asked between batches whether to leave: nothing is written then.

    Returns
    -------
    dict
        Scores, as the bundle keeps them.

    Raises
    ------
    StoppedError
        `must_stop` said so.
    """
    history = last.history
    weights = last.best if config.training.keep == "best" else _last(config, last)
    scores = {
        "validation": score_counts(config, weights, labelled, must_stop),
        "history": history.rows[-1],
        "best_epoch": history.best_epoch,
    }
    _write_bundle(run.bundle, config, history, weights, labelled, scores)
    # What stood in for it is not needed any more.
    shutil.rmtree(run.bundle_so_far.root, ignore_errors=True)
    save_history(run.root, history.columns())
    return scores


def _last(config: Config, last: Checkpoint) -> Arrays:
    """Take the last epoch's weights, or their average, out of a state."""
    n_weights = len(build_unet(config.model).weights)
    is_averaged = config.training.ema_decay is not None
    return last.variables[-n_weights:] if is_averaged else last.variables[:n_weights]


def write_so_far(
    run: TrainRun,
    config: Config,
    history: History,
    weights: Sequence[NDArray[Any]],
    labelled: Labelled,
) -> None:
    """Write the best model so far as a bundle that can count, without its scores.

    It is there when a training is interrupted and never gone on with.
    """
    scores = {"history": history.rows[-1], "best_epoch": history.best_epoch}
    _write_bundle(run.bundle_so_far, config, history, weights, labelled, scores)


def _write_bundle(
    bundle: Bundle,
    config: Config,
    history: History,
    weights: Sequence[NDArray[Any]],
    labelled: Labelled,
    scores: dict[str, Any],
) -> None:
    bundle.root.mkdir(exist_ok=True)
    save_weights(bundle, config.model, list(weights))
    write_info(
        bundle,
        config,
        training={
            "config": config.training.model_dump(mode="json"),
            "data": config.data.model_dump(mode="json"),
            "n_training": labelled.training.n_images,
            "n_validation": labelled.validation.n_images,
            "epochs": history.epochs,
            "environment": describe_environment(),
        },
        scores=scores,
    )
