"""Count nuclei: ``python -m jobs.count MODEL RUN ARCHIVE[:KEY] ...``.

Started again with the same arguments it computes only the shards that are missing.
"""

import logging
import sys
from pathlib import Path

from nucleiseg.config import Config
from nucleiseg.counting import count, prepare
from nucleiseg.errors import IncompleteError, NucleisegError


def main() -> int:
    """Plan, count, merge; 1: some inputs failed, 2: it could not start."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    model, run, *archives = sys.argv[1:]
    try:
        prepared = prepare(archives, Path(model), Config())
        merged = count(prepared, Path(run), workers=None).merged
    except IncompleteError as error:
        print(f"jobs.count: {error}", file=sys.stderr)
        return 1
    except NucleisegError as error:
        print(f"jobs.count: {error}", file=sys.stderr)
        return 2
    print(f"{merged.path}: {merged.n_nuclei} nuclei in {merged.n_images} images")
    return 1 if merged.n_failed else 0


if __name__ == "__main__":
    sys.exit(main())
