"""How good counts and instances are: IoU, AP, F1, splits, merges, count errors.

Pure NumPy, arrays in and frozen results out. Every figure is a function of sums over
images, so one formula gives the figure itself and, on sums over resampled images, its
95 % bootstrap interval. Undefined figures are NaN, never 0.
"""

from nucleiseg.metrics.bootstrap import Estimate
from nucleiseg.metrics.counts import CountScores, count_scores
from nucleiseg.metrics.instances import InstanceScores, instance_scores
from nucleiseg.metrics.labels import count_instances, remove_small_instances
from nucleiseg.metrics.matching import (
    IOU_THRESHOLDS,
    InstanceMatches,
    concatenate_matches,
    match_instances,
)

__all__ = [
    "IOU_THRESHOLDS",
    "CountScores",
    "Estimate",
    "InstanceMatches",
    "InstanceScores",
    "concatenate_matches",
    "count_instances",
    "count_scores",
    "instance_scores",
    "match_instances",
    "remove_small_instances",
]
