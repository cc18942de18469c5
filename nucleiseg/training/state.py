"""The state of a training on disk: everything the next epoch depends on."""

import json
import logging
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nucleiseg.errors import RunError
from nucleiseg.runs import TrainRun, atomic_path, remove_temporaries, write_text

logger = logging.getLogger(__name__)

_KEPT_CHECKPOINTS = 2

_DAMAGE = (OSError, EOFError, ValueError, zipfile.BadZipFile)

HISTORY_COLUMNS = ("epoch", "loss", "accuracy", "val_loss", "val_accuracy")

Row = dict[str, float]


@dataclass
class History:
    """Losses and metrics of the epochs so far."""

    rows: list[Row] = field(default_factory=list)

    @property
    def epochs(self) -> int:
        """Finished epochs."""
        return len(self.rows)

    @property
    def best_epoch(self) -> int:
        """Epoch (from 1) of the lowest validation loss; 0 before the first."""
        if not self.rows:
            return 0
        return int(min(self.rows, key=lambda row: row["val_loss"])["epoch"])

    def columns(self) -> dict[str, list[float]]:
        """Give the same figures column by column, for plots."""
        return {name: [row[name] for row in self.rows] for name in HISTORY_COLUMNS}

    def to_csv(self) -> str:
        """Give one row an epoch, every digit kept."""
        lines = [",".join(HISTORY_COLUMNS)]
        for row in self.rows:
            values = [str(int(row["epoch"]))]
            values += [repr(row[name]) for name in HISTORY_COLUMNS[1:]]
            lines.append(",".join(values))
        return "\n".join(lines) + "\n"


@dataclass(frozen=True)
class Checkpoint:
    """A training state that was read back."""

    path: Path
    history: History
    variables: list[NDArray[Any]]


def save_checkpoint(
    run: TrainRun, history: History, variables: Sequence[NDArray[Any]]
) -> None:
    """Write the state after an epoch, then the history, then drop older states.

    Parameters
    ----------
    run : TrainRun
    history : History
        Up to the epoch that just ended.
    variables : sequence of ndarray
        Weights, random states and optimiser slots, always in the same order.
    """
    arrays: dict[str, Any] = {
        f"variable_{i:05d}": value for i, value in enumerate(variables)
    }
    path = run.checkpoint(history.epochs)
    with atomic_path(path) as temporary:
        np.savez(
            temporary,
            history=np.array(json.dumps(history.rows)),
            **arrays,
        )
    write_text(run.history, history.to_csv())
    for old in list_checkpoints(run)[:-_KEPT_CHECKPOINTS]:
        old.unlink()
    remove_temporaries(run.checkpoints)


def list_checkpoints(run: TrainRun) -> list[Path]:
    """Training states on disk, oldest first."""
    return sorted(run.checkpoints.glob("epoch-*.npz"))


def load_newest(run: TrainRun) -> Checkpoint | None:
    """Read the newest training state that is whole; None when there is none yet.

    Raises
    ------
    RunError
        There are states and all of them are damaged.
    """
    found = list_checkpoints(run)
    for path in reversed(found):
        try:
            return _load(path)
        except (*_DAMAGE, KeyError) as error:
            logger.warning(
                "checkpoint %s is damaged (%s); going on with the one before",
                path,
                " ".join(str(error).split()),
            )
    if found:
        raise RunError(
            f"all checkpoints in {run.checkpoints} are damaged; delete the folder to "
            "train from the start, or use another --run"
        )
    return None


def _load(path: Path) -> Checkpoint:
    # Opened here, so that it is closed also where NumPy cannot make sense of it.
    with path.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
        rows = json.loads(str(archive["history"]))
        names = sorted(name for name in archive.files if name != "history")
        return Checkpoint(path, History(rows), [archive[name] for name in names])


def save_best(run: TrainRun, weights: Sequence[NDArray[Any]], history: History) -> None:
    """Keep the weights of the best epoch so far beside the training states."""
    arrays: dict[str, Any] = {
        f"weight_{i:05d}": value for i, value in enumerate(weights)
    }
    path = best_path(run, history.best_epoch)
    with atomic_path(path) as temporary:
        np.savez(temporary, **arrays)


def drop_other_best(run: TrainRun, histories: Sequence[History]) -> None:
    """Delete best weights that no training state refers to any more."""
    wanted = {best_path(run, history.best_epoch) for history in histories}
    for path in run.checkpoints.glob("best-*.npz"):
        if path not in wanted:
            path.unlink()


def best_path(run: TrainRun, epoch: int) -> Path:
    """Weights of the best epoch."""
    return run.checkpoints / f"best-{epoch:05d}.npz"


def load_best(run: TrainRun, history: History) -> list[NDArray[Any]]:
    """Read the weights of the best epoch.

    Raises
    ------
    RunError
        They are missing or damaged.
    """
    path = best_path(run, history.best_epoch)
    try:
        with (
            path.open("rb") as stream,
            np.load(stream, allow_pickle=False) as archive,
        ):
            return [archive[name] for name in sorted(archive.files)]
    except _DAMAGE as error:
        raise RunError(
            f"best weights {path} cannot be read ({error}); set training.keep=last to "
            "use the last epoch's"
        ) from error
