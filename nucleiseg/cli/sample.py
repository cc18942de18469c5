"""``nucleiseg sample``."""

import argparse
from pathlib import Path

from nucleiseg.atomic import create_private, write_text
from nucleiseg.cli.exit_status import DONE
from nucleiseg.errors import ConfigError, RunError
from nucleiseg.synthetic import write_sample

# Says that the archives of a folder are ours to replace.
_MARK = "README.txt"
_MARK_TEXT = """\
Synthetic fluorescence images with exact labels, written by nucleiseg sample, which
replaces them when it runs again.
"""


def _refuse_others(folder: Path) -> None:
    """Refuse to replace archives that another program wrote."""
    mark = folder / _MARK
    if mark.is_file() and mark.read_text(encoding="utf-8") == _MARK_TEXT:
        return
    there = sorted(
        p.name for name in ("train*.npz", "test_*") for p in folder.glob(name)
    )
    if there:
        raise RunError(
            f"{folder} holds {', '.join(there[:4])}, not written by nucleiseg sample; "
            "choose another folder"
        )
    create_private(folder)
    write_text(mark, _MARK_TEXT)


def run(options: argparse.Namespace) -> int:
    """Write the embedded sample."""
    for name in ("train_images", "test_images", "size"):
        if getattr(options, name) < 1:
            raise ConfigError(
                f"--{name.replace('_', '-')} is {getattr(options, name)}; expected at "
                "least 1"
            )
    _refuse_others(options.folder)
    files = write_sample(
        options.folder,
        n_train=options.train_images,
        n_test=options.test_images,
        shape=(options.size, options.size),
        seed=options.seed,
    )
    print(f"to train on  {files.train_labels}, with masks only {files.train}")
    print(f"to count     {files.test_images}")
    print(f"the truth    {files.test_counts}, {files.test_labels}")
    return DONE
