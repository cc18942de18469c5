"""Losses and metrics of a training, one row an epoch."""

from dataclasses import dataclass, field

from nucleiseg.atomic import read_json
from nucleiseg.config import TrainingConfig
from nucleiseg.runs import TrainRun

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

    def is_over(self, epochs: int, patience: int | None) -> bool:
        """Whether all epochs are in, or validation has long not got better.

        Parameters
        ----------
        epochs : int
        patience : int or None
            Epochs without a lower validation loss after which training stops.
        """
        return self.epochs >= epochs or self.has_stopped_early(patience)

    def has_stopped_early(self, patience: int | None) -> bool:
        """Whether validation has not got better for `patience` epochs."""
        return patience is not None and self.epochs - self.best_epoch >= patience

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

    @classmethod
    def from_csv(cls, text: str) -> "History":
        """Read what :meth:`to_csv` gave."""
        header, *lines = text.splitlines()
        names = header.split(",")
        return cls(
            [
                dict(zip(names, map(float, line.split(",")), strict=True))
                for line in lines
            ]
        )


def read_history(run: TrainRun) -> History:
    """Read the losses and metrics of a training so far."""
    if not run.history.exists():
        return History()
    return History.from_csv(run.history.read_text(encoding="utf-8"))


def is_trained(run: TrainRun, training: TrainingConfig) -> bool:
    """Whether a training is over and its model is there."""
    history = read_history(run)
    if not run.bundle.info.exists() or not history.is_over(
        training.epochs, training.early_stopping_epochs
    ):
        return False
    # Not that of before the number of epochs grew.
    epochs: object = read_json(run.bundle.info)["training"]["epochs"]
    return epochs == history.epochs
