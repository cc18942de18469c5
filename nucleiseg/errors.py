"""The few exceptions that a caller may want to catch.

Each message is one line that names the thing, the value found, the value expected
and the remedy; the command line prints it as it is and exits with status 2.
"""


class NucleisegError(Exception):
    """Something the user can mend; the message says what and how."""


class ConfigError(NucleisegError):
    """A configuration holds an unknown key or a value that is not allowed."""


class ArchiveError(NucleisegError):
    """An archive or a dataset in it cannot be read, or is no image.

    Parameters
    ----------
    message : str
        What, where and the remedy.
    reason : str, optional
        The same without the archive's name, for tables that have it in a column.
    """

    def __init__(self, message: str, *, reason: str | None = None) -> None:
        super().__init__(message)
        self.reason = message if reason is None else reason


class BundleError(NucleisegError):
    """A model bundle is missing, incomplete or made for other settings."""


class RunError(NucleisegError):
    """A run directory does not fit what is asked of it."""


class IncompleteError(RunError):
    """Work was begun and kept, but not all of it could be done (exit status 1)."""


class StoppedError(RunError):
    """Work was stopped on request; the same command goes on (exit status 130)."""


class SupersededError(StoppedError):
    """Another coordinator has taken the run over: this one is to leave it alone."""
