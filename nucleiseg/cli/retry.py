"""``nucleiseg retry``."""

import argparse
import logging
from dataclasses import replace

from nucleiseg.cli.count import print_result
from nucleiseg.cli.exit_status import DONE, SOME_FAILED
from nucleiseg.cli.main import log_file
from nucleiseg.cli.site import load_settings_of_run, print_submitted
from nucleiseg.counting import count, reopen, reset_failures
from nucleiseg.inference import refuse_other_model
from nucleiseg.launching import refuse_while_active, submit_count
from nucleiseg.runs import CountRun
from nucleiseg.tables import find_missing

logger = logging.getLogger(__name__)


def run(options: argparse.Namespace) -> int:
    """Count again what failed."""
    run = CountRun(options.run.absolute())
    prepared = reopen(run)
    refuse_while_active(run.jobs)
    # Before the failures are forgotten, which are all that there is to retry.
    refuse_other_model(run, prepared.plan, prepared.model)
    prepared = replace(prepared, config=load_settings_of_run(options, run))
    reset = reset_failures(run, prepared.plan)
    n_missing = len(find_missing(run, prepared.plan))
    print(
        f"retrying  {reset.n_images:,} failed images; {n_missing:,} shards to compute"
    )
    for entry in prepared.plan.unreadable:
        print(
            f"not retried  {prepared.plan.describe(entry)}: {entry.reason}; it was "
            "unreadable when the run was planned: count it with another --run"
        )
    if not n_missing:
        print("nothing failed that could be counted again")
        return DONE
    if options.cluster is not None:
        print_submitted(submit_count(prepared, run.root, options.cluster))
        return DONE
    with log_file(run.logs / "count.log"):
        result = count(prepared, run.root, workers=options.workers)
    print_result(result, run)
    return SOME_FAILED if result.merged.n_failed else DONE
