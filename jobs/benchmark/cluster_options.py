"""Options that send a benchmark to a cluster; what they do is in `submission`.

Apart from it, since that loads what would count as memory of what is measured.
"""

import argparse
from pathlib import Path

OPTIONS = {
    "--submit": False,
    "--dry-run": False,
    "--site": True,
    "--run": True,
    "--cluster-set": True,
}
"""Names, and whether a word follows."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of a submission."""
    group = parser.add_argument_group("on a cluster")
    group.add_argument(
        "--submit", action="store_true", help="run this on a GPU node: submit and exit"
    )
    group.add_argument(
        "--site",
        metavar="PROFILE",
        help="YAML file with the site's cluster section, or NAME of "
        "configs/cluster-NAME.yaml",
    )
    group.add_argument(
        "--run", type=Path, metavar="DIR", help="where script and log of the job go"
    )
    group.add_argument(
        "--cluster-set",
        action="append",
        default=[],
        metavar="cluster.key=value",
        help="setting of the cluster section, over the site's",
    )
    group.add_argument(
        "--dry-run", action="store_true", help="print what sbatch would get"
    )
