"""Train a U-Net: ``python -m jobs.train CONFIG RUN [section.key=value ...]``.

Started again with the same arguments, by hand or by a scheduler, it goes on where it
was interrupted; a finished training is left as it is.
"""

import logging
import sys
from pathlib import Path

from nucleiseg.config import load_config
from nucleiseg.training import train


def main() -> None:
    """Load the configuration, train, say where the model is."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    config_file, run, *overrides = sys.argv[1:]
    result = train(load_config(Path(config_file), overrides), Path(run))
    print(f"{result.run.bundle.root}: {result.scores['validation']}")


if __name__ == "__main__":
    main()
