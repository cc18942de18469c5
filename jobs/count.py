"""Count nuclei: ``python -m jobs.count MODEL RUN ARCHIVE[:KEY] ...``.

Started again with the same arguments it computes only the shards that are missing.
"""

import logging
import sys
from pathlib import Path

from nucleiseg.config import Config
from nucleiseg.counting import count, prepare


def main() -> int:
    """Plan, count, merge; exit with 1 where some inputs failed."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    model, run, *archives = sys.argv[1:]
    prepared = prepare(archives, Path(model), Config())
    merged = count(prepared, Path(run), workers=None).merged
    print(f"{merged.path}: {merged.n_nuclei} nuclei in {merged.n_images} images")
    return 1 if merged.n_failed else 0


if __name__ == "__main__":
    sys.exit(main())
