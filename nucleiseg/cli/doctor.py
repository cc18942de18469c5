"""``nucleiseg doctor``."""

import argparse
from collections.abc import Iterable
from pathlib import Path

from nucleiseg.cli.exit_status import DONE, SOME_FAILED
from nucleiseg.doctor.check import Check
from nucleiseg.doctor.installation import check_installation


def run(options: argparse.Namespace) -> int:
    """Print what is well, what is not, and what to do."""
    checks = _show(check_installation())
    if not _has_failed(checks):
        # What all else imports may have been missing until now.
        from nucleiseg.cli.site import load_settings
        from nucleiseg.doctor.examination import examine

        config = load_settings(options, None)
        folder = Path() if options.run is None else options.run
        checks += _show(examine(config, folder, options.cluster))
    else:
        print("the other checks need these packages: mend this first")
    n_failed = sum(check.status == "FAILED" for check in checks)
    n_warned = sum(check.status == "warning" for check in checks)
    print(f"{len(checks)} checks, {n_warned} warnings, {n_failed} failed")
    return SOME_FAILED if n_failed else DONE


def _show(checks: Iterable[Check]) -> list[Check]:
    """Print each check as soon as it is made."""
    shown = []
    for check in checks:
        remedy = f"; {check.remedy}" if check.remedy else ""
        print(f"{check.status:<8} {check.name:<26}  {check.found}{remedy}", flush=True)
        shown.append(check)
    return shown


def _has_failed(checks: Iterable[Check]) -> bool:
    return any(check.status == "FAILED" for check in checks)
