"""The training loop: step by step, and at any of them it can stop and go on."""

import contextlib
import errno
import logging
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nucleiseg.atomic import write_text
from nucleiseg.config import TrainingConfig
from nucleiseg.errors import RunError, StoppedError
from nucleiseg.runs import TrainRun
from nucleiseg.training.checkpoints import (
    Arrays,
    Checkpoint,
    list_checkpoints,
    save_checkpoint,
)
from nucleiseg.training.circumstances import Circumstances
from nucleiseg.training.feeding import Feeds
from nucleiseg.training.history import History
from nucleiseg.training.steps import Machine, Sums
from nucleiseg.training.watching import Watch

logger = logging.getLogger(__name__)

_FULL = (errno.ENOSPC, errno.EDQUOT)


class Loop:
    """Trains from a state to the last epoch, or until somebody wants the device.

    Parameters
    ----------
    run : TrainRun
    training : TrainingConfig
    machine : Machine
        With the checkpoint's variables restored.
    feeds : Feeds
    circumstances : Circumstances
    checkpoint : Checkpoint or None
        To go on from.
    on_best : callable
        Called with history and weights after an epoch that was the best so far.
    """

    def __init__(
        self,
        run: TrainRun,
        training: TrainingConfig,
        machine: Machine,
        feeds: Feeds,
        circumstances: Circumstances,
        checkpoint: Checkpoint | None,
        on_best: Callable[[History, Arrays], None],
    ) -> None:
        self._run = run
        self._settings = training
        self._machine = machine
        self._feeds = feeds
        self._circumstances = circumstances
        self._on_best = on_best
        self.history = checkpoint.history if checkpoint else History()
        self._step = checkpoint.step if checkpoint else 0
        self._best = checkpoint.best if checkpoint else []
        self._sums = Sums.start(checkpoint.sums if checkpoint else None)
        self._saved_s = time.monotonic()

    def run(self, must_stop: Callable[[], bool]) -> Checkpoint:
        """Train, and give the last state.

        Raises
        ------
        StoppedError
            `must_stop` said so; the state is saved.
        RunError
            Training has diverged.
        """
        settings, order = self._settings, self._feeds.order
        epoch, position = divmod(self._step, order.n_batches)
        watch = Watch(
            self._run,
            n_epochs=settings.epochs,
            n_images=order.n_images,
            done=epoch * order.n_images + position * order.batch_size,
            wants_tensorboard=settings.tensorboard,
        )
        batches = self._feeds.training(self._step)
        patience = settings.early_stopping_epochs
        try:
            while not self.history.is_over(settings.epochs, patience):
                if must_stop():
                    self._stop()
                if self._step == (self.history.epochs + 1) * order.n_batches:
                    self._finish_epoch(watch, must_stop)
                else:
                    self._do_step(next(batches), watch)
        finally:
            watch.close()
        if self.history.epochs < settings.epochs:
            logger.info(
                "stopped early: no lower validation loss since epoch %d",
                self.history.best_epoch,
            )
        return self._state()

    def _do_step(self, batch: Any, watch: Watch) -> None:
        self._sums = self._machine.train(self._sums, self._step, batch)
        n_images = self._feeds.order.indices(self._step).size
        self._step += 1
        loss = None
        if watch.wants_loss():
            self._refuse_divergence()
            loss, _ = self._sums.mean()
        watch.trained(n_images, self.history.epochs + 1, loss)
        if time.monotonic() - self._saved_s >= 60 * self._settings.checkpoint_min:
            self._save()

    def _finish_epoch(self, watch: Watch, must_stop: Callable[[], bool]) -> None:
        self._refuse_divergence()
        start_s = time.monotonic()
        loss, accuracy = self._sums.mean()
        with self._machine.averaged():
            checked = self._validate(must_stop)
        if checked is None:
            return
        val_loss, val_accuracy = checked
        epoch = self.history.epochs + 1
        if not np.isfinite(val_loss):
            raise self._diverged("the validation loss", f"after epoch {epoch}")
        self.history.rows.append(
            {
                "epoch": float(epoch),
                "loss": loss,
                "accuracy": accuracy,
                "val_loss": val_loss,
                "val_accuracy": val_accuracy,
            }
        )
        self._sums = Sums.start()
        is_best = self.history.best_epoch == epoch
        if is_best:
            self._best = self._machine.kept_weights()
        validated_s = time.monotonic()
        self._save()
        with _tolerate_full_disk("rates or plots"):
            watch.finished_epoch(
                self.history,
                validation_s=validated_s - start_s,
                checkpoint_s=time.monotonic() - validated_s,
            )
        if is_best:
            with _tolerate_full_disk("model so far"):
                self._on_best(self.history, self._best)

    def _validate(self, must_stop: Callable[[], bool]) -> tuple[float, float] | None:
        """Loss and accuracy of the validation images; None when it is to stop."""
        sums = Sums.start()
        for batch in self._feeds.validation():
            if must_stop():
                return None
            sums = self._machine.check(sums, batch)
        return sums.mean()

    # --- the state ---

    def _state(self) -> Checkpoint:
        return Checkpoint(
            self._step,
            self.history,
            self._sums.to_numpy(),
            self._machine.state(),
            self._best,
            self._circumstances,
        )

    def _save(self) -> bool:
        """Write a checkpoint and the history; False where the disk is full."""
        checkpoint = self._state()
        self._refuse_divergence(checkpoint.variables)
        self._saved_s = time.monotonic()
        try:
            save_checkpoint(self._run, checkpoint)
            write_text(self._run.history, self.history.to_csv())
        except OSError as error:
            if error.errno not in _FULL:
                raise
            needed = sum(v.nbytes for v in [*checkpoint.variables, *self._best])
            logger.error(
                "no checkpoint of step %d, which needs %.1f MB in %s: %s; training "
                "goes on, and after an interruption would do so from %s; make room",
                self._step,
                needed / 1e6,
                self._run.checkpoints,
                error.strerror,
                self._last_good(),
            )
            return False
        return True

    def _last_good(self) -> str:
        found = list_checkpoints(self._run)
        return f"step {int(found[-1].name[5:])}" if found else "the start"

    def _stop(self) -> None:
        is_saved = self._save()
        epochs = self.history.epochs
        position = self._step - epochs * self._feeds.order.n_batches
        place = f"stopped after epoch {epochs} of {self._settings.epochs}"
        if position:
            place += f" and {position} steps"
        since = "" if is_saved else f" from {self._last_good()}, the disk being full"
        raise StoppedError(f"{place}, as asked; the same command goes on{since}")

    # --- divergence ---

    def _refuse_divergence(self, variables: Arrays | None = None) -> None:
        """Stop before anything that is not finite gets into a checkpoint."""
        names = ("the loss", "the gradient")
        faults = [
            (int(step), name)
            for step, name in zip(self._sums.faults.numpy(), names, strict=True)
            if step >= 0
        ]
        if faults:
            # Of the same step the loss comes first: the gradient follows from it.
            step, name = min(faults, key=lambda fault: fault[0])
            raise self._diverged(name, f"in step {step + 1}")
        if not all(_is_finite(value) for value in variables or []):
            raise self._diverged("a weight", f"after step {self._step}")

    def _diverged(self, quantity: str, when: str) -> RunError:
        return RunError(
            f"{quantity} is not finite {when} (epoch {self.history.epochs + 1}): "
            "training has diverged; lower training.learning_rate or set "
            f"training.clip_norm, with another --run (the last good state, of "
            f"{self._last_good()}, is kept)"
        )


@contextlib.contextmanager
def _tolerate_full_disk(what: str) -> Iterator[None]:
    """Go on without what nothing depends on."""
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        logger.error("no %s written: %s; training goes on", what, error.strerror)


def _is_finite(value: NDArray[Any]) -> bool:
    return value.dtype.kind != "f" or bool(np.isfinite(value).all())
