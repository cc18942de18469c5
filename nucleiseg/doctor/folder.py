"""The run directory: what runs do in one is done in it, and removed again."""

import contextlib
import errno
import fcntl
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from nucleiseg.atomic import create_private
from nucleiseg.doctor.check import Check, failed, passed, warned
from nucleiseg.errors import RunError

_LEAST_BYTES = 10**9
_MOST_SKEW_S = 60.0


class Scratch:
    """A folder in the run directory, which is made for it where it is missing.

    Parameters
    ----------
    root : Path
        The run directory.
    """

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        self._path: Path | None = None
        self._made: list[Path] = []

    @property
    def path(self) -> Path:
        """The folder, once it is made."""
        assert self._path is not None
        return self._path

    @property
    def is_made(self) -> bool:
        """Whether the folder is there."""
        return self._path is not None

    def make(self) -> Check:
        """Make the folder."""
        name = "run directory"
        lineage = (self.root, *self.root.parents)
        try:
            self._made = [folder for folder in lineage if not folder.exists()]
            create_private(self.root)
            self._path = Path(tempfile.mkdtemp(prefix=".doctor-", dir=self.root))
        except (OSError, RunError) as error:
            why = error.strerror if isinstance(error, OSError) else str(error)
            return failed(
                name,
                f"{self.root}: {(why or '').partition(';')[0]}",
                "name a folder that you may write to with --run",
            )
        how = "can be made" if self._made else "is there"
        return passed(name, f"{self.root} {how} and can be written to")

    def remove(self) -> None:
        """Remove the folder, and what was made on the way to it."""
        if self._path is not None:
            shutil.rmtree(self._path, ignore_errors=True)
        # Somebody may have put something there meanwhile, which stays.
        with contextlib.suppress(OSError):
            for folder in self._made:
                folder.rmdir()


def check_name(root: Path, *, is_for_jobs: bool) -> Check:
    """Check that SLURM takes the path of the run directory as it is."""
    signs = {"%": "a percent sign", "\\": "a backslash", "\n": "a line break"}
    found = [words for sign, words in signs.items() if sign in str(root.absolute())]
    if not found:
        return passed("name", "without characters that SLURM changes")
    make = failed if is_for_jobs else warned
    return make(
        "name",
        f"{str(root.absolute())!r} holds {', '.join(found)}",
        "jobs of a cluster refuse it: rename the folder, or use another --run",
    )


def check_folder(scratch: Scratch) -> Iterator[Check]:
    """Do in the run directory what runs do."""
    folder = scratch.path
    yield check_privacy(folder)
    yield check_rename(folder)
    yield check_links(folder)
    yield check_locks(folder)
    yield check_space(folder)
    yield check_clock(folder)


def check_privacy(folder: Path) -> Check:
    """Check that nobody else can read keys of a run, or replace its files.

    Parameters
    ----------
    folder : Path
        In the run directory, and made with mode 0700.
    """
    name = "privacy"
    mode = stat.S_IMODE(folder.stat().st_mode)
    if mode & 0o077:
        return warned(
            name,
            f"a folder made with mode 0700 has {mode:04o}: others can read the keys "
            "with which workers are told what to run",
            "use a file system that knows permissions",
        )
    for above in (folder.parent, folder.parent.parent):
        status = above.stat()
        others = status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
        if others and not status.st_mode & stat.S_ISVTX:
            who = "everybody" if others & stat.S_IWOTH else "its group"
            return warned(
                name,
                f"{who} may rename and replace what is in {above}",
                f"chmod go-w or chmod +t {above}, unless you trust them with your "
                "account",
            )
    return passed(name, "others can neither read nor replace files")


def check_rename(folder: Path) -> Check:
    """Check that a file replaces another in one step."""
    old, new = folder / "old", folder / "new"
    try:
        old.write_text("old", encoding="ascii")
        new.write_text("new", encoding="ascii")
        os.replace(new, old)
        is_well = old.read_text("ascii") == "new" and not new.exists()
        words = "over a file that is there" if is_well else "does not replace files"
    except OSError as error:
        is_well, words = False, str(error.strerror)
    if is_well:
        return passed("rename", words)
    return failed("rename", words, "results could be lost: use another file system")


def check_links(folder: Path) -> Check:
    """Check hard links: what is written once among many is written with them."""
    name = "hard links"
    file, link = folder / "file", folder / "link"
    elsewhere = "use another file system"
    try:
        file.write_text("file", encoding="ascii")
        os.link(file, link)
    except OSError as error:
        words = str(error.strerror)
        # With these runs have another way; see runs.publish_json.
        if error.errno in (errno.EPERM, errno.ENOTSUP):
            return warned(
                name,
                f"none here ({words}): files are created exclusively instead",
                f"nothing, unless nodes crash while a run starts; then {elsewhere}",
            )
        return failed(name, words, elsewhere)
    with contextlib.suppress(FileExistsError):
        os.link(file, link)
        return failed(name, "a link replaces a file that is there", elsewhere)
    return passed(name, "made, and refused where a file is")


def check_locks(folder: Path) -> Check:
    """Check both kinds of locks: HDF5 takes one, by how it was built."""
    kinds: dict[str, Callable[[int, int], None]] = {
        "flock": fcntl.flock,
        "fcntl": fcntl.lockf,
    }
    problems = []
    with (folder / "locked").open("w") as stream:
        for kind, lock in kinds.items():
            try:
                lock(stream.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
                lock(stream.fileno(), fcntl.LOCK_UN)
            except OSError as error:
                problems.append(f"{kind}: {error.strerror}")
    if problems:
        return warned(
            "file locks",
            f"{', '.join(problems)}: HDF5 files cannot be written here",
            "export HDF5_USE_FILE_LOCKING=FALSE; reading needs none",
        )
    return passed("file locks", ", ".join(kinds))


def check_space(folder: Path) -> Check:
    """Check the space that is left."""
    facts = os.statvfs(folder)
    free = facts.f_bavail * facts.f_frsize
    words = f"{free / 1e9:,.1f} GB (a quota may leave less)"
    if free < _LEAST_BYTES:
        return warned("free space", words, "make room, or use another --run")
    return passed("free space", words)


def check_clock(folder: Path) -> Check:
    """Compare the clock of the file system with this machine's."""
    return judge_skew("clock", measure_skew(folder))


def measure_skew(folder: Path) -> float:
    """Seconds that the file system is ahead of this machine's clock."""
    path = folder / f"clock-{os.getpid()}"
    before = time.time()
    path.write_text("now", encoding="ascii")
    after = time.time()
    modified = path.stat().st_mtime
    return modified - min(max(modified, before), after)


def judge_skew(name: str, skew_s: float) -> Check:
    """Judge seconds that a file system is ahead of a clock."""
    if abs(skew_s) > _MOST_SKEW_S:
        side = "ahead of" if skew_s > 0 else "behind"
        return warned(
            name,
            f"the file system is {abs(skew_s):.0f} s {side} this machine",
            "times that status shows are off: have the clocks set (NTP)",
        )
    return passed(name, "agrees with the file system's")
