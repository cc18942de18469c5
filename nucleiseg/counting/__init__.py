"""A count run: plan on disk, shards to workers, one table, pictures."""

from nucleiseg.counting.claim import claim, refuse_others
from nucleiseg.counting.coordinate import coordinate
from nucleiseg.counting.journal import Journal
from nucleiseg.counting.pictures import choose_pictures
from nucleiseg.counting.preparing import Prepared, prepare, reopen
from nucleiseg.counting.retry import Reset, reset_failures
from nucleiseg.counting.run import CountResult, count, merge_run
from nucleiseg.counting.test_input import find_test_input

__all__ = [
    "CountResult",
    "Journal",
    "Prepared",
    "Reset",
    "choose_pictures",
    "claim",
    "coordinate",
    "count",
    "find_test_input",
    "merge_run",
    "prepare",
    "refuse_others",
    "reopen",
    "reset_failures",
]
