"""What is an image's own fault, and what is that of a file system that is away."""

import contextlib
import errno
from collections.abc import Iterator

from nucleiseg.errors import ArchiveError, IncompleteError


def refuse_outage(error: ArchiveError, *, of_file: bool = False) -> None:
    """Keep a file system that is away for a while from failing images for good.

    Parameters
    ----------
    error : ArchiveError
        Of reading, or of opening.
    of_file : bool
        Whether the file as a whole could not be read. Of values an input/output error
        is taken for what it mostly is, a bad sector: waiting does not mend it, and a
        run with one would never end. `retry` reads such images again.

    Raises
    ------
    IncompleteError
        The operating system failed, not the archive: what was to be read is to be
        computed later.
    """
    number = get_errno(error)
    if number and (of_file or number != errno.EIO):
        raise IncompleteError(f"{error}; then run the same command again") from error


def get_errno(error: ArchiveError) -> int | None:
    """Get the operating system's number for what failed; None where it did not."""
    cause = error.__cause__
    return cause.errno or None if isinstance(cause, OSError) else None


@contextlib.contextmanager
def deferring_outages() -> Iterator[None]:
    """Raise `IncompleteError` where a file as a whole cannot be read for now."""
    try:
        yield
    except ArchiveError as error:
        refuse_outage(error, of_file=True)
        raise
