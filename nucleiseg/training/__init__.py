"""Training: MirroredStrategy, checkpoints, resume, and the model bundle."""

from nucleiseg.training.fit import (
    Preview,
    TrainResult,
    prepare_run,
    preview,
    train,
)

__all__ = ["Preview", "TrainResult", "prepare_run", "preview", "train"]
