"""``nucleiseg inspect``."""

import argparse
import sys
from pathlib import Path

from nucleiseg.archives import split_name, to_one_line
from nucleiseg.cli.exit_status import COULD_NOT_START, DONE, SOME_FAILED
from nucleiseg.errors import NucleisegError
from nucleiseg.inspection import DatasetFacts, Examples, draw_examples, inspect_archive
from nucleiseg.report import name_files
from nucleiseg.shards import shortest_names

_HEADINGS = ("key", "type", "dtype", "shape", "minimum", "maximum", "storage")


def run(options: argparse.Namespace) -> int:
    """Print the datasets of each archive and draw one image of each."""
    inputs = list(dict.fromkeys(split_name(name) for name in options.archives))
    folders = _picture_folders([path for path, _ in inputs], options.pictures)
    n_failed = n_listed = 0
    for path, key in inputs:
        try:
            facts = inspect_archive(path, key, read_all=options.read_all)
            _print_facts(path, facts)
            n_listed += 1
            n_failed += any(fact.is_damaged for fact in facts)
            if not options.no_pictures:
                infos = [fact.info for fact in facts if fact.n_looked_at]
                folder = folders[path]
                examples = draw_examples(path, infos, folder, index=options.index)
                _print_examples(examples)
                n_failed += bool(examples.problems)
        except NucleisegError as error:
            print(f"nucleiseg: {to_one_line(str(error))}", file=sys.stderr)
            n_failed += 1
    if not n_listed:
        return COULD_NOT_START
    return SOME_FAILED if n_failed else DONE


def _picture_folders(paths: list[Path], wanted: Path | None) -> dict[Path, Path]:
    """Where the pictures of each archive go: never two archives in one folder."""
    unique = list(dict.fromkeys(paths))
    if wanted is not None and len(unique) == 1:
        return {unique[0]: wanted}
    names = [path.stem for path in unique]
    if len(set(names)) < len(names):
        names = shortest_names([path.absolute() for path in unique])
    names = name_files(names)
    return {
        path: Path(f"inspect-{name}") if wanted is None else wanted / name
        for path, name in zip(unique, names, strict=True)
    }


def _print_facts(path: Path, facts: list[DatasetFacts]) -> None:
    print(to_one_line(str(path)))
    rows = [_HEADINGS, *(_row(fact) for fact in facts)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        print(f"  {'  '.join(cells)}".rstrip())
    for fact in facts:
        if fact.problem:
            _say(f"{fact.info.key}: {fact.problem}")
        if fact.info.access_problem:
            _say(f"{fact.info.key}: slow to read: {fact.info.access_problem}")
        if fact.n_looked_at and fact.n_looked_at < fact.info.n_images:
            _say(
                f"{fact.info.key}: range of the first {fact.n_looked_at:,} images; "
                "--all reads every one"
            )


def _print_examples(examples: Examples) -> None:
    for picture in examples.pictures:
        print(f"  picture  {to_one_line(str(picture))}")
    for line in (*examples.notes, *examples.problems):
        _say(line)


def _say(line: str) -> None:
    # What is in a file must not command the terminal.
    print(f"  {to_one_line(line)}")


def _row(fact: DatasetFacts) -> tuple[str, ...]:
    info = fact.info
    if info.label_problem is None:
        kind = "stack" if info.is_stack else "image"
    else:
        kind = "other"
    limits = (fact.lowest, fact.highest)
    cells = (
        info.key,
        kind,
        info.dtype,
        "x".join(map(str, info.shape)),
        *("" if value is None else f"{value:g}" for value in limits),
        info.storage,
    )
    return tuple(map(to_one_line, cells))
