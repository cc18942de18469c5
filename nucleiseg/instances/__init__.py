"""From probability maps to nuclei: a label image, their count and their quality.

:func:`count_nuclei` does it for one image; an image larger than memory is done in
blocks by :func:`summarise_block`, and :func:`join_blocks` counts the nuclei on their
seams once. :func:`label_nuclei` makes the label image, :func:`segment_nuclei` both; of
blocks :func:`summarise_block` does, and :func:`number_blocks` joins their labels.
:func:`measure_nuclei` says what is known of each nucleus of a label image, and
:func:`join_nuclei` does of an image in blocks.
Where the network saw an image enlarged or reduced, :func:`segment_nuclei` and
:func:`restore_labels` bring what it found back to the image's size.
"""

from nucleiseg.instances.blocks import BlockSummary, summarise_block
from nucleiseg.instances.counting import count_nuclei
from nucleiseg.instances.joining import join_blocks, number_blocks
from nucleiseg.instances.labelling import label_nuclei
from nucleiseg.instances.nuclei import Nuclei, join_nuclei, measure_nuclei
from nucleiseg.instances.rescaling import (
    label_all_at_size,
    label_at_size,
    restore_labels,
    restore_maps,
)
from nucleiseg.instances.saturation import saturation_limit
from nucleiseg.instances.scoring import score_nuclei
from nucleiseg.instances.segmenting import segment_and_measure, segment_nuclei
from nucleiseg.instances.summary import ImageSummary, summarise

__all__ = [
    "BlockSummary",
    "ImageSummary",
    "Nuclei",
    "count_nuclei",
    "join_blocks",
    "join_nuclei",
    "label_all_at_size",
    "label_at_size",
    "label_nuclei",
    "measure_nuclei",
    "number_blocks",
    "restore_labels",
    "restore_maps",
    "saturation_limit",
    "score_nuclei",
    "segment_and_measure",
    "segment_nuclei",
    "summarise",
    "summarise_block",
]
