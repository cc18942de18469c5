"""``nucleiseg evaluate``."""

import argparse
import json

from nucleiseg.cli.exit_status import DONE
from nucleiseg.evaluation import evaluate


def run(options: argparse.Namespace) -> int:
    """Print scores as a table or as JSON."""
    evaluation = evaluate(
        options.predicted, options.truth, min_true_area_px=options.min_true_area_px
    )
    if options.as_json:
        print(json.dumps(evaluation.to_dict(), indent=2))
    else:
        print(evaluation.to_text())
    return DONE
