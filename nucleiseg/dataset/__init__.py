"""Training input: labelled images, their split, and batches as pure functions.

Batch k of a training depends on the configuration and on k alone, never on what ran
before: whoever is interrupted goes on with the batches that were to come.

`inspect_labelled` reads headers, `open_labelled` passes over all images once (ranges,
content hashes, seek points, split), and `make_batches` makes crops of them. Small data
are held in memory as stored; larger ones are read in blocks of neighbouring images,
ahead of the batches that need them::

    archives → blocks (some MB) → crop, normalised by its whole image's range
             → augmentation → targets → batch

Larger data are shuffled in two steps, so that each block is read once an epoch: the
blocks among each other, then the crops within a stretch of as many blocks as a third of
the memory holds.
"""

from nucleiseg.dataset.batches import make_batches
from nucleiseg.dataset.gathering import Gatherer
from nucleiseg.dataset.labelled import Labelled, open_labelled
from nucleiseg.dataset.order import BatchOrder, training_order
from nucleiseg.dataset.parts import Part
from nucleiseg.dataset.samples import draw_samples
from nucleiseg.dataset.sources import LabelledShapes, inspect_labelled
from nucleiseg.dataset.splitting import (
    refuse_edited_split,
    split_images,
    split_indices,
)
from nucleiseg.dataset.targets import N_CHANNELS, targets

__all__ = [
    "N_CHANNELS",
    "BatchOrder",
    "Gatherer",
    "Labelled",
    "LabelledShapes",
    "Part",
    "draw_samples",
    "inspect_labelled",
    "make_batches",
    "open_labelled",
    "refuse_edited_split",
    "split_images",
    "split_indices",
    "targets",
    "training_order",
]
