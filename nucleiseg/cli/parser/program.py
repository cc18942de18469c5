"""The parser of the program: all its commands, in the order of its help."""

import argparse

from nucleiseg import __version__
from nucleiseg.cli.parser.first_steps import (
    add_demo,
    add_doctor,
    add_inspect,
    add_sample,
)
from nucleiseg.cli.parser.models import add_evaluate, add_train, add_tune
from nucleiseg.cli.parser.runs import (
    add_cancel,
    add_count,
    add_merge,
    add_retry,
    add_segment,
    add_status,
)
from nucleiseg.cli.parser.shared import Parser

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
    add_demo(commands)
    add_sample(commands)
    add_inspect(commands)
    add_train(commands)
    add_tune(commands)
    add_count(commands)
    add_segment(commands)
    add_status(commands)
    add_cancel(commands)
    add_retry(commands)
    add_merge(commands)
    add_evaluate(commands)
    add_doctor(commands)
    return parser
