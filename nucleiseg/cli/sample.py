"""``nucleiseg sample``."""

import argparse

from nucleiseg.cli.main import DONE
from nucleiseg.errors import ConfigError
from nucleiseg.synthetic import write_sample


def run(options: argparse.Namespace) -> int:
    """Write the embedded sample."""
    for name in ("train_images", "test_images", "size"):
        if getattr(options, name) < 1:
            raise ConfigError(
                f"--{name.replace('_', '-')} is {getattr(options, name)}; expected at "
                "least 1"
            )
    files = write_sample(
        options.folder,
        n_train=options.train_images,
        n_test=options.test_images,
        shape=(options.size, options.size),
        seed=options.seed,
    )
    print(f"to train on  {files.train}, with instance labels in {files.train_labels}")
    print(f"to count     {files.test_images}")
    print(f"the truth    {files.test_counts}, {files.test_labels}")
    return DONE
