"""``nucleiseg demo``: the whole path on the embedded sample, typed as by a user."""

import argparse
import itertools
import shlex
import subprocess
import sys
import time
from pathlib import Path

from nucleiseg.atomic import create_private, write_text
from nucleiseg.cli.exit_status import DONE, INTERRUPTED
from nucleiseg.errors import RunError

_CONFIG = """\
# Written by nucleiseg demo: a small U-Net for the embedded synthetic sample.
# Two CPU cores train it in two minutes.
data:
  archive: {archive}
model:
  resolution: half
  filters: [24, 48, 64]
  decoder: conv1
  dropout: 0.1
training:
  epochs: 14
  batch_size: 8
  learning_rate: 2e-3
instances:
  min_area_px: 10
"""

_N_ROWS = 5


def run(options: argparse.Namespace) -> int:
    """Run every command of the demo; the first that fails ends it."""
    folder: Path = options.folder
    sample, training, counting = (
        folder / name for name in ("sample", "train", "count")
    )
    start_s = time.monotonic()
    create_private(folder)
    config = folder / "demo.yaml"
    archive = sample / "train_labels.npz"
    text = _CONFIG.format(archive=_yaml_string(archive))
    if config.exists() and config.read_text(encoding="utf-8") != text:
        raise RunError(f"{config} is another configuration; choose another folder")
    write_text(config, text)
    test_images = str(sample / "test_images.npz")
    commands = [
        ["sample", str(sample)],
        ["inspect", str(archive), "--pictures", str(folder / "inspect")],
        ["train", str(config), "--run", str(training)],
        [
            "count",
            test_images,
            *("--model", str(training / "model"), "--run", str(counting)),
            *("--workers", "2", "--pictures", "6", "--set", "shards.images=20"),
        ],
        ["evaluate", str(counting / "counts.csv"), str(sample / "test_counts.csv")],
    ]
    for command in commands:
        print(f"\n$ nucleiseg {shlex.join(command)}", flush=True)
        try:
            status = subprocess.run(
                [sys.executable, "-m", "nucleiseg", *command], check=False
            ).returncode
        except KeyboardInterrupt:
            # The command has been interrupted, too, and has said so.
            return INTERRUPTED
        if status != DONE:
            return status
    _print_summary(folder, counting, training, time.monotonic() - start_s)
    return DONE


def _yaml_string(path: Path) -> str:
    # Single quotes are YAML's way to take everything else literally.
    return "'" + str(path).replace("'", "''") + "'"


def _print_summary(
    folder: Path, counting: Path, training: Path, seconds: float
) -> None:
    table = counting / "counts.csv"
    print(f"\nThe head of {table}:")
    with table.open(encoding="utf-8") as stream:
        for line in itertools.islice(stream, _N_ROWS + 1):
            print(f"  {line.rstrip()}")
    print(f"\nAll done in {seconds:.0f} s. What there is to look at:")
    print(f"  predictions over their images   {counting / 'pictures'}")
    print(f"  loss and accuracy over epochs   {training / 'loss.png'}")
    print(f"                                  {training / 'accuracy.png'}")
    print(f"  a training image and its mask   {folder / 'inspect'}")
    print(f"  the model, for your own counts  {training / 'model'}")
