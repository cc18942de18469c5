"""A count run: plan on disk, shards to workers, one table, pictures."""

from nucleiseg.counting.claim import refuse_others
from nucleiseg.counting.pictures import choose_pictures
from nucleiseg.counting.run import CountResult, Prepared, count, prepare
from nucleiseg.counting.test_input import find_test_input

__all__ = [
    "CountResult",
    "Prepared",
    "choose_pictures",
    "count",
    "find_test_input",
    "prepare",
    "refuse_others",
]
