"""What happens at the end of each batch and epoch."""

import logging
import math
from collections.abc import Callable
from typing import Any

from nucleiseg.devices import import_tensorflow
from nucleiseg.errors import RunError, StoppedError
from nucleiseg.progress import Progress
from nucleiseg.training.state import HISTORY_COLUMNS, History

logger = logging.getLogger(__name__)


def make_callbacks(
    history: History,
    *,
    n_epochs: int,
    images_per_batch: Callable[[int], int],
    progress: Progress,
    save: Callable[[], None],
    must_stop: Callable[[], bool],
) -> list[Any]:
    """Make the Keras callbacks that report, record and save.

    Parameters
    ----------
    history : History
        Gets a row an epoch.
    n_epochs : int
    images_per_batch : callable
        Images in the i-th batch of an epoch.
    progress : Progress
        Counts images.
    save : callable
        Called when the history has the epoch's row.
    must_stop : callable
        Asked after each epoch but the last whether somebody wants the device back.
    """
    import_tensorflow()
    import keras

    class Watch(keras.callbacks.Callback):  # type: ignore[misc]
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            note = f"epoch {history.epochs + 1}/{n_epochs}"
            if logs:
                note += f", loss {float(logs['loss']):.4f}"
            progress.update(images_per_batch(batch), note)

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            row = {"epoch": float(epoch + 1)}
            row |= {name: float((logs or {})[name]) for name in HISTORY_COLUMNS[1:]}
            for name, value in row.items():
                if not math.isfinite(value):
                    raise RunError(
                        f"{name} is {value} after epoch {epoch + 1}: training has "
                        "diverged; lower training.learning_rate (the last good "
                        "checkpoint is kept)"
                    )
            history.rows.append(row)
            save()
            figures = ", ".join(
                f"{name} {row[name]:.4f}" for name in HISTORY_COLUMNS[1:]
            )
            logger.info("epoch %d/%d: %s", epoch + 1, n_epochs, figures)
            if epoch + 1 < n_epochs and must_stop():
                raise StoppedError(
                    f"stopped after epoch {epoch + 1} of {n_epochs}, as asked; the "
                    "same command goes on"
                )

    return [Watch()]
