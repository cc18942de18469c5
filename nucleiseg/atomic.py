"""How files get into a run directory: whole, or not at all.

A file that exists under its final name is complete: it is written beside that name,
synced, and renamed. Nothing in the project opens a result for writing directly.
"""

import contextlib
import errno
import json
import os
import re
import shutil
import socket
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from nucleiseg.errors import RunError

# What a rename may take at most, where it follows at once.
_RENAME_S = 10.0


def create_private(folder: Path) -> Path:
    """Make a folder only its owner can enter (0700), with its parents."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir(mode=0o700, exist_ok=True)
    except FileExistsError as error:
        raise RunError(
            f"{error.filename} is a file, not a directory; choose another"
        ) from error
    return folder


def _temporary(path: Path) -> Path:
    # Hidden, so that no listing takes it for a result; unique, so that two
    # processes that do the same work never write into one file. The suffix stays:
    # Keras and NumPy choose the format by it.
    unique = f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
    return path.with_name(f".{unique}.tmp.{path.name}")


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Give a path to write to; on leaving without an error it becomes `path`.

    File and folder are synced around the rename, so that after a power cut, too,
    the old content or the new one is there, whole.
    """
    temporary = _temporary(path)
    try:
        yield temporary
        _sync(temporary)
        os.replace(temporary, path)
        _sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Give a folder (0700) to write files into; without an error it becomes `path`.

    Each file, then the folder, is synced before the rename, and the parent after it.
    A folder that is there already is moved away in between and then deleted.
    """
    temporary = _temporary(path)
    outdated = _temporary(path)
    temporary.mkdir(mode=0o700)
    try:
        yield temporary
        for file in sorted(temporary.iterdir()):
            _sync(file)
        _sync(temporary)
        if path.exists():
            os.replace(path, outdated)
        os.replace(temporary, path)
        _sync(path.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(outdated, ignore_errors=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file (UTF-8) atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write a value as JSON atomically."""
    write_text(path, json.dumps(value, indent=2, sort_keys=True) + "\n")


def publish_json(path: Path, value: Any) -> Any:
    """Write JSON unless the file is there, and return what the file holds.

    Of several processes that publish at once exactly one wins, on NFS too: a hard
    link either creates the name or fails.
    """
    temporary = _temporary(path)
    try:
        temporary.write_text(
            json.dumps(value, indent=2, sort_keys=True) + "\n", encoding="utf-8"
        )
        _sync(temporary)
        with contextlib.suppress(FileExistsError):
            try:
                os.link(temporary, path)
            except OSError as error:
                if error.errno not in (errno.EPERM, errno.ENOTSUP):
                    raise
                _rename_first(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return read_json(path)


def _rename_first(temporary: Path, path: Path) -> None:
    """Rename a file unless somebody else has: for file systems without links.

    Who makes the folder is the first; whoever reads finds the file whole, or not at
    all. Where the first one was killed before its rename, another one does it.
    """
    lock = path.with_name(f".{path.name}.first")
    try:
        lock.mkdir(mode=0o700)
    except FileExistsError:
        give_up_s = time.monotonic() + _RENAME_S
        while not path.exists() and time.monotonic() < give_up_s:
            time.sleep(0.05)
    if not path.exists():
        os.replace(temporary, path)
        _sync(path.parent)
    with contextlib.suppress(FileNotFoundError):
        lock.rmdir()


def read_json(path: Path) -> Any:
    """Read a JSON file of a run; damage is named."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        cause = " ".join(str(error).split())
        raise RunError(
            f"{path} is missing or damaged ({cause}); restore it, or use another --run"
        ) from error


def remove_temporaries(folder: Path) -> None:
    """Delete what writers that were killed left unfinished in a folder.

    Only what is of this host is touched, where its process is gone: another machine's
    writer may be alive.
    """
    # The whole name: host `node` must not take a file of host `node-12` for its own.
    own = re.compile(rf"\.{re.escape(socket.gethostname())}-(\d+)-[0-9a-f]{{8}}\.tmp\.")
    for path in folder.glob(".*.tmp.*"):
        found = own.match(path.name)
        if not found or Path("/proc", found[1]).exists():
            continue
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
