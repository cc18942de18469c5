"""Commands to begin with: see all of it work, and look at what there is to work on."""

from pathlib import Path

from nucleiseg.cli.parser.shared import (
    Commands,
    add_cluster,
    add_command,
    add_settings,
    add_whole_number,
)


def add_demo(commands: Commands) -> None:
    """Add ``nucleiseg demo``."""
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


def add_sample(commands: Commands) -> None:
    """Add ``nucleiseg sample``."""
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


def add_inspect(commands: Commands) -> None:
    """Add ``nucleiseg inspect``."""
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


def add_doctor(commands: Commands) -> None:
    """Add ``nucleiseg doctor``."""
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
