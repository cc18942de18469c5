"""The file of label images that a run may end with, and the bytes it is made of.

And what tells masks from labels, wherever they come from.
"""

from nucleiseg.labels.encoding import choose_dtype, decode, encode
from nucleiseg.labels.file import LabelDataset, LabelFile
from nucleiseg.labels.gaps import Gaps, read_gaps
from nucleiseg.labels.masks import MASK_VALUES
from nucleiseg.labels.naming import name_dataset, refuse_clashes

__all__ = [
    "MASK_VALUES",
    "Gaps",
    "LabelDataset",
    "LabelFile",
    "choose_dtype",
    "decode",
    "encode",
    "name_dataset",
    "read_gaps",
    "refuse_clashes",
]
