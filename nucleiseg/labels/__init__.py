"""The file of label images that a run may end with, and the bytes it is made of."""

from nucleiseg.labels.encoding import choose_dtype, decode, encode
from nucleiseg.labels.file import LabelDataset, LabelFile
from nucleiseg.labels.gaps import Gaps, read_gaps
from nucleiseg.labels.naming import name_dataset, refuse_clashes

__all__ = [
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
