"""Predictions against truth: read both, pair their images, score them.

Either side is a table of counts (CSV or Parquet) or label images (`ARCHIVE:KEY`), and
the predicted one may be a run. How images are paired:

- table and table: on `index`, and on `archive` and `dataset` where both have them;
- run and label images: datasets by their names, then `index`;
- otherwise: datasets in their order (in a table, of first appearance), then `index`.

Every image must find its partner; what has one but no count (a failed image) is left
out of the scores and reported. Label images are read in pieces of bounded memory.
"""

from nucleiseg.evaluation.calibrating import (
    Reliability,
    ReliabilityBin,
    fit_calibration,
    measure_reliability,
)
from nucleiseg.evaluation.comparison import Comparison, compare
from nucleiseg.evaluation.labels import LabelDataset, open_labels, read_pieces
from nucleiseg.evaluation.output import write_results
from nucleiseg.evaluation.results import DatasetScores, Evaluation
from nucleiseg.evaluation.scoring import evaluate, score
from nucleiseg.evaluation.thresholds import (
    AREAS_PX,
    Choice,
    Found,
    Table,
    measure_found,
)

__all__ = [
    "AREAS_PX",
    "Choice",
    "Comparison",
    "DatasetScores",
    "Evaluation",
    "Found",
    "LabelDataset",
    "Reliability",
    "ReliabilityBin",
    "Table",
    "compare",
    "evaluate",
    "fit_calibration",
    "measure_found",
    "measure_reliability",
    "open_labels",
    "read_pieces",
    "score",
    "write_results",
]
