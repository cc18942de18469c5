"""Count nuclei: ``python -m jobs.count MODEL RUN ARCHIVE[:KEY] ...``.

Started again with the same arguments it computes only the shards that are missing. In
an array of SLURM jobs (`slurm/count.sbatch`) the jobs share the work: the first one
plans and coordinates, all of them count.
"""

import argparse
import logging
import os
import sys
from pathlib import Path

from nucleiseg.config import load_config
from nucleiseg.counting import count, prepare
from nucleiseg.errors import IncompleteError, NucleisegError
from nucleiseg.launching import count_by_hand


def main(*, labels: bool = False) -> int:
    """Plan, count, merge; 1: some inputs failed, 2: it could not start."""
    name = "jobs.segment" if labels else "jobs.count"
    parser = argparse.ArgumentParser(prog=f"python -m {name}")
    parser.add_argument("model")
    parser.add_argument("run", type=Path)
    parser.add_argument("archives", nargs="+")
    parser.add_argument("--config", type=Path)
    parser.add_argument("--set", dest="overrides", action="append", default=[])
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    try:
        config = load_config(options.config, options.overrides)
        if "SLURM_ARRAY_JOB_ID" in os.environ:
            count_by_hand(
                options.archives, options.model, config, options.run, labels=labels
            )
        prepared = prepare(
            options.archives, options.model, config, folder=options.run, labels=labels
        )
        merged = count(prepared, options.run, workers=None).merged
    except IncompleteError as error:
        print(f"{name}: {error}", file=sys.stderr)
        return 1
    except NucleisegError as error:
        print(f"{name}: {error}", file=sys.stderr)
        return 2
    print(f"{merged.path}: {merged.n_nuclei} nuclei in {merged.n_images} images")
    return 1 if merged.n_failed else 0


if __name__ == "__main__":
    sys.exit(main())
