"""The command line: parse, load the configuration, make one call, report."""

from nucleiseg.cli.main import main

__all__ = ["main"]
