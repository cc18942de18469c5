"""Average a model and its fine-tuned one: ``python -m jobs.average MODEL TUNED OUT``.

A fourth argument is the share of the fine-tuned weights, 0.5 by default. Then
`nucleiseg tune OUT` chooses its thresholds and calibrates it.
"""

import sys
from pathlib import Path

from nucleiseg.bundle import read_bundle
from nucleiseg.errors import NucleisegError
from nucleiseg.model import average_models


def main() -> int:
    """Read two bundles, write a third, say what it is."""
    start, tuned, out, *share = sys.argv[1:]
    try:
        found = average_models(
            read_bundle(start),
            read_bundle(tuned),
            Path(out),
            share=float(share[0]) if share else 0.5,
        )
    except (NucleisegError, ValueError) as error:
        print(f"jobs.average: {error}", file=sys.stderr)
        return 2
    print(found.title)
    return 0


if __name__ == "__main__":
    sys.exit(main())
