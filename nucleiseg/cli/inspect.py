"""``nucleiseg inspect``."""

import argparse
import sys
from pathlib import Path

from nucleiseg.archives import split_name
from nucleiseg.cli.main import COULD_NOT_START, DONE, SOME_FAILED
from nucleiseg.errors import ArchiveError
from nucleiseg.inspection import DatasetFacts, draw_examples, inspect_archive

_HEADINGS = ("key", "type", "dtype", "shape", "minimum", "maximum", "storage")


def run(options: argparse.Namespace) -> int:
    """Print the datasets of each archive and draw one image of each."""
    n_failed = 0
    for name in options.archives:
        path = split_name(name)[0]
        try:
            facts = inspect_archive(path, read_all=options.read_all)
        except ArchiveError as error:
            print(f"nucleiseg: {error}", file=sys.stderr)
            n_failed += 1
            continue
        _print_facts(path, facts)
        if not options.no_pictures:
            folder = options.pictures or Path(f"inspect-{path.stem}")
            infos = [fact.info for fact in facts if fact.n_looked_at]
            for picture in draw_examples(path, infos, folder, index=options.index):
                print(f"  picture  {picture}")
    if n_failed == len(options.archives):
        return COULD_NOT_START
    return SOME_FAILED if n_failed else DONE


def _print_facts(path: Path, facts: list[DatasetFacts]) -> None:
    print(path)
    rows = [_HEADINGS, *(_row(fact) for fact in facts)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        print(f"  {'  '.join(cells)}".rstrip())
    for fact in facts:
        if fact.problem:
            print(f"  {fact.info.key}: {fact.problem}")
        elif fact.n_looked_at < fact.info.n_images:
            print(
                f"  {fact.info.key}: range of the first {fact.n_looked_at:,} images; "
                "--all reads every one"
            )


def _row(fact: DatasetFacts) -> tuple[str, ...]:
    info = fact.info
    if info.label_problem is None:
        kind = "stack" if info.is_stack else "image"
    else:
        kind = "other"
    limits = (fact.lowest, fact.highest)
    return (
        info.key,
        kind,
        info.dtype,
        "x".join(map(str, info.shape)),
        *("" if value is None else f"{value:g}" for value in limits),
        info.storage,
    )
