"""Train a U-Net: ``python -m jobs.train CONFIG RUN [section.key=value ...]``.

Started again with the same arguments, by hand or by a scheduler, it goes on where it
was interrupted; a finished training is left as it is. In a job of SLURM
(`slurm/train.sbatch`) it hears the warning before the time limit, and has the job
requeued.
"""

import logging
import os
import sys
from pathlib import Path

from nucleiseg.config import load_config
from nucleiseg.errors import NucleisegError
from nucleiseg.launching import train_by_hand
from nucleiseg.training import train


def main() -> int:
    """Load the configuration, train, say where the model is."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    config_file, run, *overrides = sys.argv[1:]
    try:
        config = load_config(Path(config_file), overrides)
        if "SLURM_JOB_ID" in os.environ:
            train_by_hand(config, Path(run))
        result = train(config, Path(run))
    except NucleisegError as error:
        print(f"jobs.train: {error}", file=sys.stderr)
        return 2
    print(f"{result.run.bundle.root}: {result.scores['validation']}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
