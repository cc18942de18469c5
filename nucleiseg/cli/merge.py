"""``nucleiseg merge``."""

import argparse

from nucleiseg.cli.count import print_result
from nucleiseg.cli.exit_status import DONE, SOME_FAILED
from nucleiseg.cli.site import quote
from nucleiseg.config import load_config
from nucleiseg.counting import CountResult, Journal, merge_run
from nucleiseg.errors import IncompleteError
from nucleiseg.runs import CountRun
from nucleiseg.shards import read_plan
from nucleiseg.tables import find_missing

_N_EXAMPLES = 3


def run(options: argparse.Namespace) -> int:
    """Merge the partial tables of a run."""
    run = CountRun(options.run)
    plan = read_plan(run.plan)
    missing = find_missing(run, plan)
    if missing and not options.partial:
        names = [plan.describe(shard) for shard in missing[:_N_EXAMPLES]]
        more = len(missing) - len(names)
        raise IncompleteError(
            f"{len(missing)} of {len(plan.shards)} shards are missing: "
            f"{', '.join(names)}{f' and {more} more' if more else ''}; count them "
            f"first (nucleiseg retry {quote(options.run)}), or merge what is there "
            "with --partial"
        )
    table_format = load_config(run.config).table.format
    merged = merge_run(run, plan, table_format, incomplete=options.partial)
    if not options.partial:
        Journal.conclude(run)
    print_result(CountResult(merged, 0, 0), run)
    if merged.n_missing:
        print(f"missing   {merged.n_missing} of {len(plan.shards)} shards")
    return SOME_FAILED if merged.n_failed or merged.n_missing else DONE
