"""What every command shares: streams, log, errors in one line, exit status."""

import contextlib
import errno
import importlib
import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NoReturn

from nucleiseg.atomic import create_private
from nucleiseg.cli.exit_status import COULD_NOT_START, DONE, INTERRUPTED, SOME_FAILED
from nucleiseg.cli.parser import make_parser
from nucleiseg.errors import IncompleteError, NucleisegError, StoppedError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Parameters
    ----------
    arguments : sequence of str, optional
        Without the program's name; those of the process by default.

    Returns
    -------
    int
        Exit status.
    """
    _prepare_streams()
    options = make_parser().parse_args(arguments)
    _configure_logging()
    if options.command in _WRITE_RUNS:
        # On a shared file system others see what is not hidden from them.
        os.umask(os.umask(0o077) | 0o077)
    try:
        # Each command's module is imported only when it runs: --help stays instant.
        command = importlib.import_module(f"nucleiseg.cli.{options.command}")
        with _terminate_like_interrupt():
            status: int = command.run(options)
    except KeyboardInterrupt:
        _complain("interrupted; the same command goes on where it stopped")
        return INTERRUPTED
    except BrokenPipeError:
        # The reader of the output, head or less, has seen enough.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    except (NucleisegError, OSError, MemoryError) as error:
        if os.environ.get("NUCLEISEG_DEBUG"):
            raise
        _complain(_explain(error))
        if isinstance(error, StoppedError):
            return INTERRUPTED
        return SOME_FAILED if isinstance(error, IncompleteError) else COULD_NOT_START
    return status


# Commands whose files lie in run directories.
_WRITE_RUNS = ("train", "tune", "count", "segment", "retry", "merge", "cancel")

_REMEDIES = {
    errno.ENOSPC: "make room, then run the same command again: what is done is kept",
    errno.EDQUOT: "make room, then run the same command again: what is done is kept",
    errno.EACCES: "choose a place that you may use",
    errno.EPERM: "choose a place that you may use",
    errno.EROFS: "choose a place that can be written to",
    errno.EEXIST: "it is no folder; choose another",
    errno.ENOTDIR: "a part of the path is no folder; choose another",
    errno.EISDIR: "name a file, not a folder",
}


def _explain(error: Exception) -> str:
    """Say in one line what happened and what to do."""
    if isinstance(error, MemoryError):
        return (
            f"not enough memory ({error or 'none left'}); ask for less, or use a "
            "machine with more"
        )
    text = str(error)
    if isinstance(error, OSError) and error.strerror is not None:
        place = "" if error.filename is None else f"{error.filename}: "
        remedy = _REMEDIES.get(error.errno or 0, "check the path" if place else "")
        text = f"{place}{error.strerror}; {remedy}".removesuffix("; ")
    # Never an empty line: a time that ran out says no more than its name.
    return " ".join(text.splitlines()) or type(error).__name__


@contextlib.contextmanager
def _terminate_like_interrupt() -> Iterator[None]:
    """Let SIGTERM, which schedulers send first, end the workers, too, and clean up."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(signal_number: int, frame: object) -> NoReturn:
        raise KeyboardInterrupt

    # SLURM's warning before the time limit comes as USR2 where a script asks for it.
    numbers = (signal.SIGTERM, signal.SIGUSR2)
    before = [signal.signal(number, interrupt) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


def _complain(message: str) -> None:
    print(f"nucleiseg: {message}", file=sys.stderr)


def _prepare_streams() -> None:
    """Have three standard streams that take every character.

    One that is closed would give its number to the next file that is opened, and
    what libraries print would land in it.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) < 3:
        os.set_inheritable(descriptor, True)
    os.close(descriptor)
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))
        with contextlib.suppress(AttributeError):
            getattr(sys, name).reconfigure(errors="backslashreplace")


class _MessageOnly(logging.Formatter):
    """One line a record; traces go to the log file only."""

    def format(self, record: logging.LogRecord) -> str:
        return record.getMessage()


def _configure_logging() -> None:
    logger = logging.getLogger("nucleiseg")
    handler = logging.StreamHandler()
    handler.setFormatter(_MessageOnly())
    # In place of an earlier call's, which may write to a stream that is closed.
    logger.handlers = [handler]
    logger.setLevel(logging.INFO)
    logger.propagate = False
    # A log that cannot be written (disk full) must not bury the cause in traces.
    logging.raiseExceptions = bool(os.environ.get("NUCLEISEG_DEBUG"))


@contextlib.contextmanager
def log_file(path: Path) -> Iterator[None]:
    """Also write the log to a file, with times, appending."""
    create_private(path.parent)
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logger = logging.getLogger("nucleiseg")
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        handler.close()
