"""Passes over npz members, in a process of their own where they are long.

What inflates a whole member takes memory that grows with it (its seek points, and the
heaps of its threads), and does not give all of it back: 120 MB after 50,000 images and
labels. With the process all of it goes, and none of it stands beside a network.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from nucleiseg.archives import npz
from nucleiseg.archives.index import pass_member
from nucleiseg.errors import ArchiveError, NucleisegError

# Less is passed over before another process has begun.
_APART_BYTES = 64 << 20
_POLL_S = 0.2
_REFUSED = 2

# Not `-m`: Python would warn that the package has imported this module already, which
# would be the last word of a process that was killed.
_PROGRAM = f"import sys; from {__name__} import main; sys.exit(main())"


@dataclass(frozen=True)
class Member:
    """A dataset that is to be passed over."""

    path: str
    key: str
    fingerprint: str
    folder: Path
    """Where what is found is kept."""

    def __str__(self) -> str:
        return f"{self.path}:{self.key}"


OnProgress = Callable[[Member, float], None]
"""Told the share of a member that is done, 0 to 1."""


def pass_members(
    members: Sequence[Member],
    *,
    n_threads: int,
    check: Callable[[], None] | None = None,
    on_progress: OnProgress | None = None,
) -> None:
    """Pass over members, one after the other; see :func:`pass_member`.

    Parameters
    ----------
    members : sequence of Member
    n_threads : int
        Threads that inflate.
    check : callable, optional
        Called again and again; what it raises ends the pass.
    on_progress : callable, optional

    Raises
    ------
    ArchiveError
        What :func:`pass_member` raises, or the process died.
    """
    check, on_progress = check or _ignore, on_progress or _ignore
    if sum(map(_count_bytes, members)) > _APART_BYTES:
        _pass_apart(members, n_threads, check, on_progress)
        return
    for member in members:
        _pass_one(member, n_threads, check, on_progress)


def _ignore(*arguments: object) -> None:
    """Nobody wants to know."""


def _count_bytes(member: Member) -> int:
    """Raw size; 0 where it cannot be told: the pass says why."""
    try:
        with npz.open_archive(member.path) as archive:
            found = npz.find_member(archive, member.key)
    except ArchiveError:
        return 0
    return 0 if found is None else found.file_size


def _pass_one(
    member: Member,
    n_threads: int,
    check: Callable[[], None],
    on_progress: OnProgress,
) -> None:
    def report(share: float) -> None:
        check()
        on_progress(member, share)

    pass_member(
        member.path,
        member.key,
        folder=member.folder,
        fingerprint=member.fingerprint,
        n_threads=n_threads,
        on_progress=report,
    )


def _pass_apart(
    members: Sequence[Member],
    n_threads: int,
    check: Callable[[], None],
    on_progress: OnProgress,
) -> None:
    """Have another process pass over members; what it finds are files."""
    # In a file: there may be more of them than a command line takes.
    text = json.dumps([asdict(member) for member in members], default=os.fspath)
    with tempfile.TemporaryFile("w+") as wanted, tempfile.TemporaryFile("w+") as said:
        wanted.write(text)
        wanted.seek(0)
        process = subprocess.Popen(
            [sys.executable, "-c", _PROGRAM, str(n_threads), str(os.getpid())],
            stdin=wanted,
            stdout=subprocess.PIPE,
            stderr=said,
            text=True,
        )
        assert process.stdout is not None
        try:
            with process.stdout as shares:
                while True:
                    check()
                    if not select.select([shares], [], [], _POLL_S)[0]:
                        continue
                    line = shares.readline()
                    if not line:
                        break
                    number, share = line.split()
                    on_progress(members[int(number)], float(share))
            status = process.wait()
        finally:
            process.kill()
            process.wait()
        # The signal that ended it may be one that this process was sent, too.
        check()
        said.seek(0)
        words = said.read().strip().splitlines()[-1:] or ["it said nothing"]
    if status == _REFUSED:
        raise ArchiveError(words[0])
    if status:
        raise ArchiveError(
            f"{members[0]}: the process that passes over it ended with {status} "
            f"({words[0]}); where memory was short ask for more, and run the same "
            "command again"
        )


def main() -> int:
    """Pass over the members named on standard input, and say how far it is."""
    n_threads, parent = int(sys.argv[1]), int(sys.argv[2])
    said_s = time.monotonic()

    def check() -> None:
        if os.getppid() != parent:
            raise NucleisegError("who wanted the pass is gone")

    def say(member: Member, share: float) -> None:
        nonlocal said_s
        if time.monotonic() - said_s >= _POLL_S:
            said_s = time.monotonic()
            sys.stdout.write(f"{members.index(member)} {share}\n")
            sys.stdout.flush()

    members = [
        Member(**{**entry, "folder": Path(entry["folder"])})
        for entry in json.load(sys.stdin)
    ]
    try:
        for member in members:
            _pass_one(member, n_threads, check, say)
    except NucleisegError as error:
        sys.stderr.write(f"{error}\n")
        return _REFUSED
    return 0
