"""What commands share: how they refuse, and arguments that mean the same in all."""

import argparse
from pathlib import Path
from typing import NoReturn, TypeAlias

from nucleiseg.cli.exit_status import COULD_NOT_START


class Parser(argparse.ArgumentParser):
    """A parser that refuses in one line, like everything else."""

    def error(self, message: str) -> NoReturn:
        """Print what is wrong and where help is, and exit."""
        self.exit(COULD_NOT_START, f"nucleiseg: {message}; see {self.prog} --help\n")


# A string, since argparse's class takes no parameter when it runs.
Commands: TypeAlias = "argparse._SubParsersAction[Parser]"


def add_command(commands: Commands, name: str, summary: str) -> argparse.ArgumentParser:
    """Add a command; the summary is its line in the list and heads its own help."""
    return commands.add_parser(
        name, help=summary, description=summary[0].upper() + summary[1:] + "."
    )


def add_whole_number(
    parser: argparse.ArgumentParser,
    option: str,
    *,
    default: int | None = None,
    metavar: str,
    help: str,
) -> None:
    """Add an option that takes a whole number from 0 on."""
    parser.add_argument(
        option, type=_whole_number, default=default, metavar=metavar, help=help
    )


def _whole_number(text: str) -> int:
    # int() alone would take -3, 1_000 and the digits of other scripts.
    if not (text.isascii() and text.isdecimal()):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0 on")
    return int(text)


def add_run_directory(parser: argparse.ArgumentParser) -> None:
    """Add the directory of a run that is there."""
    parser.add_argument("run", type=Path, metavar="DIR", help="run directory")


def add_cluster(parser: argparse.ArgumentParser) -> None:
    """Add the options that choose a cluster and describe it."""
    parser.add_argument(
        "--cluster",
        choices=["slurm", "local"],
        help="submit and exit: to SLURM, or as processes of this machine that go on",
    )
    parser.add_argument(
        "--site",
        metavar="PROFILE",
        help="YAML file with the site's cluster section, or NAME of "
        "configs/cluster-NAME.yaml",
    )


def add_settings(parser: argparse.ArgumentParser) -> None:
    """Add the option that overrides settings of the configuration."""
    parser.add_argument(
        "--set",
        dest="overrides",
        metavar="SECTION.KEY=VALUE",
        action="append",
        default=[],
        help="override a setting; may be given several times",
    )
