"""The parser of the program: all its commands, in the order of its help."""

import argparse
from pathlib import Path

from nucleiseg import __version__
from nucleiseg.box import DEFAULT_MODEL
from nucleiseg.cli.parser.shared import (
    Commands,
    Parser,
    add_cluster,
    add_command,
    add_run_directory,
    add_settings,
    add_whole_number,
)

_EPILOG = """\
exit status:
  0  all of it done
  1  done, but some inputs failed; each is named in the table
  2  could not start; one line says why and what to do
  130  interrupted, by Ctrl-C or SIGTERM; the same command goes on

Run any command with --help for its options; NUCLEISEG_DEBUG=1 shows tracebacks.
"""


def make_parser() -> argparse.ArgumentParser:
    """Make the parser of all commands."""
    parser = Parser(
        prog="nucleiseg",
        description="Count nuclei in large microscopy archives with a U-Net.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_demo(commands)
    _add_sample(commands)
    _add_inspect(commands)
    _add_train(commands)
    _add_tune(commands)
    _add_count(commands)
    _add_segment(commands)
    _add_status(commands)
    _add_cancel(commands)
    _add_retry(commands)
    _add_merge(commands)
    _add_evaluate(commands)
    _add_doctor(commands)
    return parser


def _add_demo(commands: Commands) -> None:
    parser = add_command(
        commands,
        "demo",
        "make a sample, train, count, evaluate and draw, in about five minutes",
    )
    parser.add_argument(
        "folder",
        nargs="?",
        type=Path,
        default=Path("demo"),
        metavar="DIR",
        help="folder for everything it makes (default: demo)",
    )


def _add_sample(commands: Commands) -> None:
    parser = add_command(
        commands, "sample", "write synthetic labelled images to train on and to count"
    )
    parser.add_argument(
        "folder",
        type=Path,
        metavar="DIR",
        help="folder for the archives; train.npz and test_* in it are replaced",
    )
    add_whole_number(
        parser,
        "--train-images",
        default=400,
        metavar="N",
        help="labelled images to train on (default: 400)",
    )
    add_whole_number(
        parser,
        "--test-images",
        default=100,
        metavar="N",
        help="images to count (default: 100)",
    )
    add_whole_number(
        parser,
        "--size",
        default=128,
        metavar="PX",
        help="side of the images (default: 128)",
    )
    add_whole_number(
        parser,
        "--seed",
        default=0,
        metavar="N",
        help="another seed draws other images (default: 0)",
    )


def _add_inspect(commands: Commands) -> None:
    parser = add_command(
        commands,
        "inspect",
        "list the datasets of archives, with their ranges, and draw one image of each",
    )
    parser.add_argument(
        "archives",
        nargs="+",
        metavar="ARCHIVE[:KEY]",
        help="npz or HDF5; without a key, which may be a glob, all its datasets",
    )
    parser.add_argument(
        "--pictures",
        type=Path,
        metavar="DIR",
        help="where pictures go, for several archives in a folder each (default: "
        "inspect-ARCHIVE in this folder)",
    )
    parser.add_argument("--no-pictures", action="store_true", help="draw nothing")
    add_whole_number(
        parser,
        "--index",
        default=0,
        metavar="N",
        help="which image to draw, from 0 on (default: 0)",
    )
    parser.add_argument(
        "--all",
        dest="read_all",
        action="store_true",
        help="take ranges from all images, not from the first 256 MB of each dataset",
    )


def _add_train(commands: Commands) -> None:
    parser = add_command(
        commands,
        "train",
        "train a U-Net from labelled images; the same command again goes on with it",
    )
    parser.add_argument(
        "config",
        type=Path,
        metavar="CONFIG",
        help="YAML file; data.archive in it names the labelled images",
    )
    parser.add_argument(
        "--run", type=Path, metavar="DIR", help="run directory; DIR/model is the model"
    )
    parser.add_argument(
        "--from",
        dest="start_from",
        metavar="BUNDLE",
        help="begin with the weights of a model bundle or of a model in the box "
        f"({DEFAULT_MODEL}), whose network and normalisation are taken, too",
    )
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="print network and split, with --cluster what sbatch would get; train "
        "and write nothing",
    )
    add_cluster(parser)
    add_settings(parser)


def _add_tune(commands: Commands) -> None:
    parser = add_command(
        commands,
        "tune",
        "choose a model's thresholds on labelled images, for AP and count together",
    )
    parser.add_argument("model", metavar="BUNDLE", help="model bundle, or its name")
    parser.add_argument(
        "--images",
        nargs="+",
        required=True,
        metavar="ARCHIVE[:KEY]",
        help="images, as for count",
    )
    parser.add_argument(
        "--labels",
        required=True,
        metavar="ARCHIVE[:KEY]",
        help="their label images, in the same order",
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="write a copy of the bundle instead of changing it",
    )
    parser.add_argument(
        "--config", type=Path, metavar="FILE", help="YAML file with settings"
    )
    add_settings(parser)


def _add_count(commands: Commands) -> None:
    parser = add_command(
        commands,
        "count",
        "count the nuclei in archives; the same command again computes what is missing",
    )
    _add_counting(parser)


def _add_segment(commands: Commands) -> None:
    parser = add_command(
        commands,
        "segment",
        "count as count does, and write label images of all nuclei into DIR/labels.h5",
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
    add_whole_number(
        parser,
        "--workers",
        metavar="N",
        help="processes (default: one a GPU, or one on a CPU; 0: in this process)",
    )
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


def _add_status(commands: Commands) -> None:
    parser = add_command(
        commands, "status", "say how far a run is, and how its jobs are"
    )
    add_run_directory(parser)
    parser.add_argument(
        "--json", dest="as_json", action="store_true", help="print JSON"
    )


def _add_cancel(commands: Commands) -> None:
    parser = add_command(
        commands, "cancel", "end the jobs of a run; what is done is kept"
    )
    add_run_directory(parser)


def _add_retry(commands: Commands) -> None:
    parser = add_command(
        commands, "retry", "count again what failed, images and shards, and only that"
    )
    add_run_directory(parser)
    add_whole_number(
        parser,
        "--workers",
        metavar="N",
        help="processes (default: one a GPU, or one on a CPU; 0: in this process)",
    )
    add_cluster(parser)
    add_settings(parser)


def _add_merge(commands: Commands) -> None:
    parser = add_command(
        commands, "merge", "merge the partial tables of a run into its table"
    )
    add_run_directory(parser)
    parser.add_argument(
        "--partial",
        action="store_true",
        help="merge what is there, into counts.partial.*, though shards are missing",
    )


def _add_doctor(commands: Commands) -> None:
    parser = add_command(
        commands, "doctor", "check whether this machine, or a cluster, is ready"
    )
    add_cluster(parser)
    parser.add_argument(
        "--run",
        type=Path,
        metavar="DIR",
        help="folder that a run would be in (default: this folder)",
    )
    add_settings(parser)


def _add_evaluate(commands: Commands) -> None:
    parser = add_command(
        commands,
        "evaluate",
        "compare counts or label images with the truth",
    )
    parser.add_argument(
        "predicted",
        metavar="PREDICTED",
        help="directory of a run, table, or ARCHIVE:KEY of label images",
    )
    parser.add_argument(
        "truth",
        nargs="?",
        metavar="TRUTH",
        help="table, or ARCHIVE:KEY of label images; the key may be a glob",
    )
    parser.add_argument(
        "--labels",
        nargs="+",
        metavar="ARCHIVE:KEY",
        help="label images as truth, instead of TRUTH; those for a run pair up with "
        "its datasets by what wildcards stand for, or without any, in their order",
    )
    add_whole_number(
        parser,
        "--min-true-area-px",
        default=0,
        metavar="PX",
        help="leave smaller true nuclei out (default: 0)",
    )
    parser.add_argument(
        "--json", dest="as_json", action="store_true", help="print JSON, not a table"
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="write scores.json, scores.txt, scores.csv (one row a dataset) and "
        "images.csv (one row an image) there",
    )
    add_whole_number(
        parser,
        "--pictures",
        default=0,
        metavar="K",
        help="draw the K worst images with their errors in colour into DIR/worst "
        "(lowest AP at IoU 0.5; needs label images on both sides)",
    )
    parser.add_argument(
        "--images",
        nargs="+",
        default=[],
        metavar="ARCHIVE[:KEY]",
        help="images to draw on, one dataset for each of PREDICTED; a run knows its "
        "own",
    )
