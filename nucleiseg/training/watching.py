"""What people see of a training: progress, rates, plots, events for TensorBoard."""

import logging
import time

from nucleiseg.atomic import write_text
from nucleiseg.progress import Progress
from nucleiseg.provenance import timestamp
from nucleiseg.report import save_history
from nucleiseg.runs import TrainRun
from nucleiseg.training.events import Events
from nucleiseg.training.history import HISTORY_COLUMNS, History

logger = logging.getLogger(__name__)

# Reading a loss waits for the device, and drawing takes time.
_LOOK_S = 1.0
_PLOT_S = 60.0

_RATES_HEADER = "epoch,ended,images,seconds,images_per_s,validation_s,checkpoint_s\n"


class Watch:
    """Shows how far a training is.

    Parameters
    ----------
    run : TrainRun
    n_epochs, n_images : int
        Epochs, and images an epoch.
    done : int
        Images trained on before.
    wants_tensorboard : bool
    """

    def __init__(
        self,
        run: TrainRun,
        *,
        n_epochs: int,
        n_images: int,
        done: int,
        wants_tensorboard: bool,
    ) -> None:
        self._run = run
        self._n_epochs = n_epochs
        self.progress = Progress(
            n_epochs * n_images,
            label="training",
            unit="images",
            done=done,
            warms_up=True,
        )
        self._events = Events(run) if wants_tensorboard else None
        self._looked_s = self._epoch_s = time.monotonic()
        self._plotted_s = float("-inf")
        self._n_images = 0

    def wants_loss(self) -> bool:
        """Whether it is time to look at the loss, which waits for the device."""
        now_s = time.monotonic()
        if now_s - self._looked_s < _LOOK_S:
            return False
        self._looked_s = now_s
        return True

    def trained(self, n_images: int, epoch: int, loss: float | None) -> None:
        """Take note of a step.

        Parameters
        ----------
        n_images : int
        epoch : int
            From 1.
        loss : float or None
            Of the epoch so far, where it was looked at.
        """
        self._n_images += n_images
        note = (
            self.progress.note
            if loss is None
            else (f"epoch {epoch}/{self._n_epochs}, loss {loss:.4f}")
        )
        self.progress.update(n_images, note)

    def finished_epoch(
        self, history: History, *, validation_s: float, checkpoint_s: float
    ) -> None:
        """Log an epoch, and write its rates, now and then the plots."""
        row = history.rows[-1]
        epoch = history.epochs
        seconds = max(time.monotonic() - self._epoch_s, 1e-9)
        seconds -= validation_s + checkpoint_s
        rate = self._n_images / seconds
        figures = ", ".join(f"{name} {row[name]:.4f}" for name in HISTORY_COLUMNS[1:])
        logger.info(
            "epoch %d/%d: %s, %.1f images/s", epoch, self._n_epochs, figures, rate
        )
        # Of what this process did of the epoch: it may have begun in its middle.
        self._append_rate(
            f"{epoch},{timestamp()},{self._n_images},{seconds:.3f},{rate:.2f},"
            f"{validation_s:.3f},{checkpoint_s:.3f}\n"
        )
        if self._events is not None:
            self._events.add(history)
        if time.monotonic() - self._plotted_s >= _PLOT_S:
            save_history(self._run.root, history.columns())
            self._plotted_s = time.monotonic()
        self._n_images = 0
        self._epoch_s = time.monotonic()

    def _append_rate(self, line: str) -> None:
        path = self._run.rates
        before = path.read_text(encoding="utf-8") if path.exists() else _RATES_HEADER
        write_text(path, before + line)

    def close(self) -> None:
        """End the bar, and the events."""
        self.progress.__exit__(None, None, None)
        if self._events is not None:
            self._events.close()
