"""Commands that train a model, choose its thresholds and compare it with the truth."""

from pathlib import Path

from nucleiseg.box import DEFAULT_MODEL
from nucleiseg.cli.parser.shared import (
    Commands,
    add_cluster,
    add_command,
    add_settings,
    add_whole_number,
)


def add_train(commands: Commands) -> None:
    """Add ``nucleiseg train``."""
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


def add_tune(commands: Commands) -> None:
    """Add ``nucleiseg tune``."""
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


def add_evaluate(commands: Commands) -> None:
    """Add ``nucleiseg evaluate``."""
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
