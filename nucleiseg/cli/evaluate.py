"""``nucleiseg evaluate``."""

import argparse
import json
import logging

from nucleiseg.cli.exit_status import DONE
from nucleiseg.errors import RunError
from nucleiseg.evaluation import compare, score, write_results

logger = logging.getLogger(__name__)


def run(options: argparse.Namespace) -> int:
    """Print scores as a table or as JSON, and write what else was asked for."""
    truth = _choose_truth(options)
    if options.pictures and options.out is None:
        raise RunError(
            f"--pictures {options.pictures} without a folder, expected --out DIR, "
            "where the pictures go"
        )
    if options.images and not options.pictures:
        raise RunError(
            f"--images {' '.join(options.images)} without pictures, expected "
            "--pictures K beside it; only pictures need images"
        )
    comparison = compare(
        options.predicted,
        truth,
        images=options.images,
        min_true_area_px=options.min_true_area_px,
        for_pictures=options.pictures > 0,
    )
    evaluation = score(comparison)
    if options.as_json:
        print(json.dumps(evaluation.to_dict(), indent=2))
    else:
        print(evaluation.to_text())
    if options.out is not None:
        paths = write_results(
            options.out, comparison, evaluation, n_pictures=options.pictures
        )
        pictures = [path for path in paths if path.suffix == ".png"]
        # Into the log: what is printed stays a table or JSON.
        for path in paths[: len(paths) - len(pictures)]:
            logger.info("wrote     %s", path)
        if options.pictures:
            folder = options.out / "worst"
            logger.info("pictures  %d images with errors in %s", len(pictures), folder)
    return DONE


def _choose_truth(options: argparse.Namespace) -> list[str]:
    """Take the truth from where it was named, which must be one place."""
    if (options.truth is None) == (options.labels is None):
        found = "no truth" if options.truth is None else "both TRUTH and --labels"
        raise RunError(
            f"{options.predicted}: {found}, expected one of TRUTH and --labels; name a "
            "table or ARCHIVE:KEY of label images to compare with"
        )
    return [options.truth] if options.labels is None else options.labels
