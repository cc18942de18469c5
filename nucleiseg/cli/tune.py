"""``nucleiseg tune``."""

import argparse

from nucleiseg.cli.exit_status import DONE
from nucleiseg.config import load_config
from nucleiseg.quality import Calibration
from nucleiseg.tuning import Crossed, tune

_THRESHOLDS = {"threshold", "seed_threshold", "min_area_px"}


def run(options: argparse.Namespace) -> int:
    """Choose a model's thresholds and print what they come to."""
    config = load_config(options.config, options.overrides)
    tuned = tune(options.model, options.images, options.labels, config, out=options.out)
    choice, before = tuned.choice, tuned.before
    rows = [
        ("foreground threshold", before.threshold, choice.threshold),
        ("seed threshold", before.seed_threshold, choice.seed_threshold),
        ("smallest area, px", before.min_area_px, choice.min_area_px),
        ("views", before.views, tuned.bundle.instances.views),
    ]
    print(f"{'':22}{'before':>8}{'now':>8}")
    for name, old, new in rows:
        print(f"{name:22}{old:>8g}{new:>8g}")
    print(
        f"on all {tuned.n_images} images: AP(.5) {choice.ap_50:.3f}, mean AP(.5-.9) "
        f"{choice.mean_ap_50_90:.3f}, count error {100 * choice.count_error:.1f} %, "
        f"bias {100 * choice.bias:+.1f} %"
    )
    is_given = config.instances.model_fields_set >= _THRESHOLDS
    words = "of the other half" if is_given else "that the other half chose"
    what = "the calibration" if is_given else "the thresholds"
    print(f"each half of the images with {what} {words}:")
    for name, one in tuned.crossed.scores.items():
        print(f"  {name:18}{one.value:+8.3f}  [{one.low:+.3f}, {one.high:+.3f}]")
    _print_confidence(tuned.crossed, tuned.bundle.calibration)
    print(f"model     {tuned.bundle.title}")
    return DONE


def _print_confidence(crossed: Crossed, calibration: Calibration | None) -> None:
    """Say how far the confidence holds, and what the calibration is."""
    if calibration is None:
        print("confidence        not calibrated: no nuclei were found")
        return
    if crossed.plain is not None and crossed.calibrated is not None:
        rows = (
            ("calibration error", "expected_calibration_error"),
            ("Brier score", "brier"),
            ("error by image", "image_error"),
        )
        print(f"{'confidence, likewise':22}{'before':>8}{'now':>8}")
        for name, key in rows:
            before, now = getattr(crossed.plain, key), getattr(crossed.calibrated, key)
            print(f"  {name:20}{before:>8.3f}{now:>8.3f}")
    low, high = calibration.shares[0], calibration.shares[-1]
    print(f"{'of a nucleus, from':22}{low:>8.2f}{high:>8.2f}")
    if calibration.diameters_px is not None:
        low_px, high_px = calibration.diameters_px
        print(f"{'known diameters, px':22}{low_px:>8.1f}{high_px:>8.1f}")
