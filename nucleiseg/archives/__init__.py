"""Archives of images, npz and HDF5, behind one reader.

An archive is a file of datasets; a dataset is one image (H, W) or a stack
(N, H, W). Nothing here holds a dataset: listing reads headers, and a `Reader`
hands out ranges of images, with memory in proportion to the range. Every low-level
failure becomes an `ArchiveError` of one line.
"""

from nucleiseg.archives.access import (
    find_images,
    find_labels,
    find_unfit_images,
    list_datasets,
    open_reader,
)
from nucleiseg.archives.datasets import DatasetInfo
from nucleiseg.archives.failures import to_one_line
from nucleiseg.archives.globs import find_glob_words, is_glob
from nucleiseg.archives.identity import fingerprint
from nucleiseg.archives.index import (
    MemberNote,
    forget_damage,
    needs_pass,
    pass_member,
    read_note,
)
from nucleiseg.archives.passing import Member, pass_members
from nucleiseg.archives.reader import Reader
from nucleiseg.archives.selection import split_name

__all__ = [
    "DatasetInfo",
    "Member",
    "MemberNote",
    "Reader",
    "find_glob_words",
    "find_images",
    "find_labels",
    "find_unfit_images",
    "fingerprint",
    "forget_damage",
    "is_glob",
    "list_datasets",
    "needs_pass",
    "open_reader",
    "pass_member",
    "pass_members",
    "read_note",
    "split_name",
    "to_one_line",
]
