"""Runs sent to a cluster: submitted, cancelled, resumed."""

from nucleiseg.launching.by_hand import count_by_hand, train_by_hand
from nucleiseg.launching.cancelling import Cancelled, cancel, refuse_while_active
from nucleiseg.launching.submitting import (
    Submitted,
    for_cluster,
    preview_count,
    preview_training,
    submit_count,
    submit_training,
)

__all__ = [
    "Cancelled",
    "Submitted",
    "cancel",
    "count_by_hand",
    "for_cluster",
    "preview_count",
    "preview_training",
    "refuse_while_active",
    "submit_count",
    "submit_training",
    "train_by_hand",
]
