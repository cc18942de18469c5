"""How good counts and instances are: IoU, AP, F1, splits, merges, count errors.

Pure NumPy, arrays in and frozen results out. Every figure is a function of sums over
images, so one formula gives the figure itself and, on sums over resampled images, its
95 % bootstrap interval. Undefined figures are NaN, never 0.
"""

from nucleiseg.metrics.bootstrap import Estimate
from nucleiseg.metrics.comparing import Difference, paired_bootstrap
from nucleiseg.metrics.counts import CountScores, count_scores
from nucleiseg.metrics.fates import Fates, judge_nuclei
from nucleiseg.metrics.instances import (
    AreaScores,
    InstanceScores,
    average_precision,
    instance_scores,
)
from nucleiseg.metrics.labels import count_instances, remove_small_instances
from nucleiseg.metrics.matching import (
    IOU_THRESHOLDS,
    InstanceMatches,
    concatenate_matches,
    match_instances,
    match_label_images,
)
from nucleiseg.metrics.overlaps import Overlaps, find_overlaps
from nucleiseg.metrics.scoring import LabelScores, score_label_images
from nucleiseg.metrics.sizes import AREA_EDGES_PX

__all__ = [
    "AREA_EDGES_PX",
    "IOU_THRESHOLDS",
    "AreaScores",
    "CountScores",
    "Difference",
    "Estimate",
    "Fates",
    "InstanceMatches",
    "InstanceScores",
    "LabelScores",
    "Overlaps",
    "average_precision",
    "concatenate_matches",
    "count_instances",
    "count_scores",
    "find_overlaps",
    "instance_scores",
    "judge_nuclei",
    "match_instances",
    "match_label_images",
    "paired_bootstrap",
    "remove_small_instances",
    "score_label_images",
]
