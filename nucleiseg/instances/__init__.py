"""From probability maps to nuclei: a label image, their count and their quality.

:func:`count_nuclei` does it for one image; an image larger than memory is done in
blocks by :func:`summarise_block`, and :func:`join_blocks` counts the nuclei on their
seams once. :func:`label_nuclei` makes the label image, for pictures. Where the network
saw an image enlarged or reduced, :func:`segment_rescaled` does both.
"""

from nucleiseg.instances.blocks import BlockSummary, summarise_block
from nucleiseg.instances.counting import count_nuclei
from nucleiseg.instances.joining import join_blocks
from nucleiseg.instances.labelling import label_nuclei
from nucleiseg.instances.rescaling import (
    restore_labels,
    restore_maps,
    segment_rescaled,
)
from nucleiseg.instances.saturation import saturation_limit
from nucleiseg.instances.summary import ImageSummary, summarise

__all__ = [
    "BlockSummary",
    "ImageSummary",
    "count_nuclei",
    "join_blocks",
    "label_nuclei",
    "restore_labels",
    "restore_maps",
    "saturation_limit",
    "segment_rescaled",
    "summarise",
    "summarise_block",
]
