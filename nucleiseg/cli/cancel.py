"""``nucleiseg cancel``."""

import argparse

from nucleiseg.cli.exit_status import DONE, SOME_FAILED
from nucleiseg.cli.site import quote
from nucleiseg.launching import cancel


def run(options: argparse.Namespace) -> int:
    """End the jobs of a run."""
    cancelled = cancel(options.run.absolute())
    if not cancelled.ended and not cancelled.remaining:
        print("no jobs were left")
    for job_id in cancelled.ended:
        print(f"ended      job {job_id}")
    for job_id in cancelled.remaining:
        print(f"remaining  job {job_id}")
    if cancelled.remaining:
        print(f"they may need longer; see nucleiseg status {quote(options.run)}")
        return SOME_FAILED
    return DONE
