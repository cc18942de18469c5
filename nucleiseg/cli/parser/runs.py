"""Commands that count, and that look after the runs which come of it."""

import argparse
from pathlib import Path

from nucleiseg.box import DEFAULT_MODEL
from nucleiseg.cli.parser.shared import (
    Commands,
    add_cluster,
    add_command,
    add_run_directory,
    add_settings,
    add_whole_number,
)


def add_count(commands: Commands) -> None:
    """Add ``nucleiseg count``."""
    parser = add_command(
        commands,
        "count",
        "count the nuclei in archives; the same command again computes what is missing",
    )
    _add_counting(parser)


def add_segment(commands: Commands) -> None:
    """Add ``nucleiseg segment``."""
    parser = add_command(
        commands,
        "segment",
        "count as count does, and write label images of all nuclei into DIR/labels.h5 "
        "and a row for each with position, area and confidence into DIR/nuclei.csv",
    )
    _add_counting(parser)


def _add_counting(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "archives",
        nargs="+",
        metavar="ARCHIVE[:KEY]",
        help="npz or HDF5; the key may be a glob, as in plate7.h5:/wells/*/images",
    )
    parser.add_argument(
        "--model",
        metavar="BUNDLE",
        help=f"model bundle, or the name of a model in the box (default: "
        f"{DEFAULT_MODEL})",
    )
    parser.add_argument(
        "--run", type=Path, metavar="DIR", help="run directory for table and parts"
    )
    parser.add_argument(
        "--config", type=Path, metavar="FILE", help="YAML file with settings"
    )
    _add_workers(parser)
    parser.add_argument(
        "--diameter",
        type=float,
        metavar="PX",
        help="typical diameter of the nuclei (default: estimated for each dataset, "
        "where the model has a diameter of its own)",
    )
    parser.add_argument(
        "--format",
        choices=["csv", "parquet", "notebook"],
        help="of the table (default: csv); notebook: the original notebook's file",
    )
    add_whole_number(
        parser,
        "--pictures",
        metavar="K",
        help="draw K predictions over their images",
    )
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="print what would be counted, with --cluster what sbatch would get; "
        "write nothing",
    )
    add_cluster(parser)
    add_settings(parser)


def add_status(commands: Commands) -> None:
    """Add ``nucleiseg status``."""
    parser = add_command(
        commands, "status", "say how far a run is, and how its jobs are"
    )
    add_run_directory(parser)
    parser.add_argument(
        "--json", dest="as_json", action="store_true", help="print JSON"
    )


def add_cancel(commands: Commands) -> None:
    """Add ``nucleiseg cancel``."""
    parser = add_command(
        commands, "cancel", "end the jobs of a run; what is done is kept"
    )
    add_run_directory(parser)


def add_retry(commands: Commands) -> None:
    """Add ``nucleiseg retry``."""
    parser = add_command(
        commands, "retry", "count again what failed, images and shards, and only that"
    )
    add_run_directory(parser)
    _add_workers(parser)
    add_cluster(parser)
    add_settings(parser)


def add_merge(commands: Commands) -> None:
    """Add ``nucleiseg merge``."""
    parser = add_command(
        commands, "merge", "merge the partial tables of a run into its table"
    )
    add_run_directory(parser)
    parser.add_argument(
        "--partial",
        action="store_true",
        help="merge what is there, into counts.partial.* (and so on), though shards "
        "are missing",
    )


def _add_workers(parser: argparse.ArgumentParser) -> None:
    add_whole_number(
        parser,
        "--workers",
        metavar="N",
        help="processes, with --cluster GPUs (default: one a GPU, or one on a CPU; 0: "
        "in this process)",
    )
