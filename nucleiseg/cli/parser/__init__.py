"""What can be typed: commands, their arguments and their help.

Nothing heavy is imported here: --help answers at once. What a command does is in the
module of its name, one folder up, and is imported only when it runs.
"""

from nucleiseg.cli.parser.program import make_parser

__all__ = ["make_parser"]
