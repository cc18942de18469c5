"""Compare counts or label images with the truth: ``python -m jobs.evaluate A B``."""

import json
import sys

from nucleiseg.evaluation import evaluate

if __name__ == "__main__":
    predicted, truth = sys.argv[1:]
    print(json.dumps(evaluate(predicted, truth).to_dict(), indent=2))
