"""``nucleiseg segment``."""

import argparse

from nucleiseg.cli import count


def run(options: argparse.Namespace) -> int:
    """Count, and make label images and a table of nuclei, too."""
    return count.run(options, labels=True)
