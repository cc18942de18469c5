"""Training: MirroredStrategy, checkpoints, resume, and the model bundle."""

from nucleiseg.training.fit import (
    Preview,
    TrainResult,
    prepare_run,
    preview,
    train,
)
from nucleiseg.training.history import is_trained, read_history
from nucleiseg.training.starting import resolve_start

__all__ = [
    "Preview",
    "TrainResult",
    "is_trained",
    "prepare_run",
    "preview",
    "read_history",
    "resolve_start",
    "train",
]
