"""Training: MirroredStrategy, checkpoints, resume, and the model bundle."""

from nucleiseg.training.fit import Preview, TrainResult, preview, train

__all__ = ["Preview", "TrainResult", "preview", "train"]
