"""The pass over npz members before training, in a process of its own where it is long.

What inflates a whole member takes memory that grows with it (its seek points, and the
heaps of its threads), and does not give it back: 120 MB after 50,000 images and labels.
With the process all of it goes, before TensorFlow comes.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from nucleiseg.archives import needs_pass, pass_member, read_note
from nucleiseg.dataset.readers import Readers
from nucleiseg.dataset.sources import Source
from nucleiseg.devices import available_cores
from nucleiseg.errors import ArchiveError, NucleisegError

# Less is passed over before another process has begun.
_APART_BYTES = 64 << 20
_POLL_S = 0.2
_REFUSED = 2


@dataclass(frozen=True)
class _Member:
    path: str
    key: str
    fingerprint: str


def pass_members(
    sources: Sequence[Source], readers: Readers, check: Callable[[], None]
) -> None:
    """Pass over the members that were not yet, and refuse damaged ones.

    Parameters
    ----------
    sources : sequence of Source
    readers : Readers
        Know the fingerprints, and the folder of what is found.
    check : callable
        Called again and again; what it raises ends the pass.

    Raises
    ------
    ArchiveError
        A member is damaged or cannot be read.
    """
    folder = readers.index
    members = [
        _Member(str(source.path), info.key, readers.find_fingerprint(source.path))
        for source in sources
        for info in (source.images, source.masks)
        if needs_pass(source.path, info.key)
    ]
    new = [
        member
        for member in members
        if read_note(folder, member.fingerprint, member.key) is None
    ]
    n_bytes = sum(source.n_images * source.image_bytes for source in sources)
    if new and n_bytes > _APART_BYTES:
        _pass_apart(new, folder, check)
    else:
        for member in new:
            _pass_one(member, folder, check)
    for member in members:
        note = read_note(folder, member.fingerprint, member.key)
        if note is not None and note.damage is not None:
            raise ArchiveError(
                f"{member.path}:{member.key} is damaged ({note.damage}); copy or write "
                "the archive again"
            )


def _pass_one(member: _Member, folder: Path, check: Callable[[], None]) -> None:
    pass_member(
        member.path,
        member.key,
        folder=folder,
        fingerprint=member.fingerprint,
        n_threads=available_cores(),
        on_progress=lambda _: check(),
    )


def _pass_apart(
    members: Sequence[_Member], folder: Path, check: Callable[[], None]
) -> None:
    """Have another process pass over members; what it finds are files."""
    # In a file: there may be more of them than a command line takes.
    text = json.dumps([asdict(member) for member in members])
    with tempfile.TemporaryFile("w+") as wanted, tempfile.TemporaryFile("w+") as said:
        wanted.write(text)
        wanted.seek(0)
        process = subprocess.Popen(
            [sys.executable, "-m", __name__, str(folder), str(os.getpid())],
            stdin=wanted,
            stderr=said,
        )
        try:
            while True:
                check()
                try:
                    status = process.wait(_POLL_S)
                    break
                except subprocess.TimeoutExpired:
                    continue
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
            f"{members[0].path}: the process that passes over it ended with {status} "
            f"({words[0]}); where memory was short ask for more, and run the same "
            "command again"
        )


def main() -> int:
    """Pass over the members named on standard input."""
    folder, parent = Path(sys.argv[1]), int(sys.argv[2])

    def check() -> None:
        if os.getppid() != parent:
            raise NucleisegError("who wanted the pass is gone")

    try:
        for member in json.load(sys.stdin):
            _pass_one(_Member(**member), folder, check)
    except NucleisegError as error:
        sys.stderr.write(f"{error}\n")
        return _REFUSED
    return 0


if __name__ == "__main__":
    sys.exit(main())
