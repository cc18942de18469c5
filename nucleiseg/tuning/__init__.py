"""Thresholds of a model bundle, chosen on labelled images."""

from nucleiseg.tuning.tune import Tuned, tune

__all__ = ["Tuned", "tune"]
