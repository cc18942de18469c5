"""``nucleiseg tune``."""

import argparse

from nucleiseg.cli.exit_status import DONE
from nucleiseg.config import load_config
from nucleiseg.tuning import tune


def run(options: argparse.Namespace) -> int:
    """Choose a model's thresholds and print what they come to."""
    config = load_config(options.config, options.overrides)
    tuned = tune(options.model, options.images, options.labels, config, out=options.out)
    choice, before = tuned.choice, tuned.before
    rows = [
        ("foreground threshold", before.threshold, choice.threshold),
        ("seed threshold", before.seed_threshold, choice.seed_threshold),
        ("smallest area, px", before.min_area_px, choice.min_area_px),
    ]
    print(f"{'':22}{'before':>8}{'now':>8}")
    for name, old, new in rows:
        print(f"{name:22}{old:>8g}{new:>8g}")
    print(
        f"on all {tuned.n_images} images: AP(.5) {choice.ap_50:.3f}, mean AP(.5-.9) "
        f"{choice.mean_ap_50_90:.3f}, count error {100 * choice.count_error:.1f} %, "
        f"bias {100 * choice.bias:+.1f} %"
    )
    print("each half of the images with what the other half chose:")
    for name, one in tuned.scores.items():
        print(f"  {name:18}{one.value:+8.3f}  [{one.low:+.3f}, {one.high:+.3f}]")
    print(f"model     {tuned.bundle.title}")
    return DONE
