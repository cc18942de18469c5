"""The plan: every shard of a run, written down before any work starts.

A shard is a range of images of one dataset, or a block of an image that is too large
for one. The plan also holds the inputs that could not be read, in their place, so that
the table is made from the plan alone.
"""

from nucleiseg.shards.entries import Entries
from nucleiseg.shards.entry import Block, Entry
from nucleiseg.shards.naming import escape_unprintable, shortest_names
from nucleiseg.shards.plan import ArchiveRef, DatasetShare, Plan, explain_difference
from nucleiseg.shards.planning import make_plan
from nucleiseg.shards.storage import read_plan, write_plan

__all__ = [
    "ArchiveRef",
    "Block",
    "DatasetShare",
    "Entries",
    "Entry",
    "Plan",
    "escape_unprintable",
    "explain_difference",
    "make_plan",
    "read_plan",
    "shortest_names",
    "write_plan",
]
