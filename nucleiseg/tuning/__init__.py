"""Thresholds and calibration of a model bundle, found on labelled images."""

from nucleiseg.tuning.confidence import Trust
from nucleiseg.tuning.crossing import Crossed
from nucleiseg.tuning.tune import Tuned, tune

__all__ = ["Crossed", "Trust", "Tuned", "tune"]
