"""The plan: every shard of a run, written down before any work starts.

A shard is a range of images of one dataset. The plan also holds the inputs that could
not be read, in their place, so that the table is made from the plan alone.
"""

from nucleiseg.shards.plan import ArchiveRef, Entry, Plan, explain_difference
from nucleiseg.shards.planning import make_plan, shortest_names
from nucleiseg.shards.storage import read_plan, write_plan

__all__ = [
    "ArchiveRef",
    "Entry",
    "Plan",
    "explain_difference",
    "make_plan",
    "read_plan",
    "shortest_names",
    "write_plan",
]
