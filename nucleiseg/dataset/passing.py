"""The pass over npz members before training."""

from collections.abc import Callable, Sequence

from nucleiseg.archives import Member, needs_pass, pass_members, read_note
from nucleiseg.dataset.readers import Readers
from nucleiseg.dataset.sources import Source
from nucleiseg.devices import available_cores
from nucleiseg.errors import ArchiveError


def pass_sources(
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
        Member(
            str(source.path), info.key, readers.find_fingerprint(source.path), folder
        )
        for source in sources
        for info in (source.images, source.masks)
        if needs_pass(source.path, info.key)
    ]
    new = [
        member
        for member in members
        if read_note(folder, member.fingerprint, member.key) is None
    ]
    pass_members(new, n_threads=available_cores(), check=check)
    for member in members:
        note = read_note(folder, member.fingerprint, member.key)
        if note is not None and note.damage is not None:
            raise ArchiveError(
                f"{member} is damaged ({note.damage}); copy or write the archive again"
            )
