"""The one pass over an npz member: whether it is whole, and its seek points.

Made once a member, kept in the run directory by the archive's fingerprint, and used by
every worker. What is found is a note (JSON) and, for deflated members, a file of seek
points. The note is published last: where it is, the points are.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import zipfile
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from nucleiseg.archives import npz
from nucleiseg.archives.explaining import explain_no_match
from nucleiseg.archives.failures import ZIP_FAILURES, give_reason, make_error
from nucleiseg.archives.files import Kind, recognise
from nucleiseg.archives.identity import fingerprint as find_fingerprint
from nucleiseg.archives.inflating import InflateError, inflate_all
from nucleiseg.atomic import create_private, publish_json
from nucleiseg.errors import RunError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

logger = logging.getLogger(__name__)

_FORMAT = 1
_READ_BYTES = 4 << 20


@dataclass(frozen=True)
class MemberNote:
    """What the pass over a member found."""

    key: str
    """As in `DatasetInfo.key`."""
    fingerprint: str
    """Of the archive that was read."""
    n_bytes: int
    """Inflated size, by the zip directory."""
    has_points: bool
    """Whether there is a file of seek points; only for deflated, whole members."""
    damage: str | None
    """Why it cannot be read, in a few words; None where all of it is right."""


def needs_pass(path: str | os.PathLike[str], key: str) -> bool:
    """Whether a dataset has to be passed over once before it is read in pieces.

    So it is for every npz member: a deflated one needs seek points, and the CRC of a
    stored one is compared nowhere else. HDF5 has its own chunks and checksums. Reads
    the first bytes of the file, whatever the `key`.

    Raises
    ------
    ArchiveError
        Where the file is no archive.
    """
    del key
    return recognise(path) is Kind.NPZ


def read_note(folder: Path, fingerprint: str, key: str) -> MemberNote | None:
    """Read what an earlier pass found; None where there was none.

    Parameters
    ----------
    folder : Path
        Where `pass_member` wrote it.
    fingerprint : str
        Of the archive.
    key : str
        As in `DatasetInfo.key`.

    Raises
    ------
    RunError
        The note is damaged.
    """
    path = _find_note(folder, fingerprint, key)
    try:
        note = _parse_note(path)
    except FileNotFoundError:
        return None
    if (note.key, note.fingerprint) != (key, fingerprint):
        raise _make_note_error(path, f"it is about {note.key} of {note.fingerprint}")
    return note


def forget_damage(folder: Path, fingerprint: str, key: str) -> None:
    """Delete the note on a member that was found damaged: it is passed over again.

    What a disk read wrong once it may read right the next time.
    """
    note = read_note(folder, fingerprint, key)
    if note is not None and note.damage is not None:
        _find_note(folder, fingerprint, key).unlink(missing_ok=True)


def _parse_note(path: Path) -> MemberNote:
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
        if fields.pop("format") != _FORMAT:
            raise ValueError("it has another format")
        return MemberNote(**fields)
    except FileNotFoundError:
        raise
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise _make_note_error(path, give_reason(error)) from error


def find_points(folder: Path, fingerprint: str, key: str) -> Path:
    """Name the file of a member's seek points."""
    return _find_note(folder, fingerprint, key).with_suffix(".points")


def pass_member(
    path: str | os.PathLike[str],
    key: str,
    *,
    folder: Path,
    fingerprint: str,
    n_threads: int,
    on_progress: Callable[[float], None] | None = None,
) -> MemberNote:
    """Inflate a whole npz member once: check size and CRC-32, keep seek points.

    Where the note is there already it is returned at once. Several processes may do
    the same: each makes whole files, one of each stays, and either set is right.

    Parameters
    ----------
    path : path
        The npz.
    key : str
        Its member, as in `DatasetInfo.key`.
    folder : Path
        Where note and seek points are kept; made (0700) where missing.
    fingerprint : str
        Of the archive, as planned.
    n_threads : int
        Threads that inflate, 1 or more; 1 starts none.
    on_progress : callable, optional
        Called with the share that is done, 0 to 1.

    Returns
    -------
    MemberNote
        A damaged member is no exception: `damage` says why.

    Raises
    ------
    ArchiveError
        There is no such member, the archive is not the one of the fingerprint, or the
        file system fails: nothing is published then.
    RunError
        The note that is there is damaged.
    """
    note = read_note(folder, fingerprint, key)
    if note is not None:
        return note
    name = os.fspath(path)
    _check_unchanged(name, fingerprint)
    create_private(folder)
    points = find_points(folder, fingerprint, key)
    with npz.open_archive(name) as archive:
        member = npz.find_member(archive, key)
        if member is None:
            raise make_error(name, explain_no_match(npz.list_members(name), key))
        report = on_progress or _ignore
        damage = _find_header_damage(name, archive, member)
        is_deflated = member.compress_type == zipfile.ZIP_DEFLATED
        has_points = False
        if damage is None and is_deflated:
            has_points = _index(name, member, points, n_threads, report)
        if damage is None and not has_points:
            # Of deflated members only what rapidgzip refuses: its words depend on its
            # threads; zlib's are always the same, and they end up in the table.
            damage = _find_damage(name, archive, member, report)
            if is_deflated and damage is None:
                logger.warning(
                    "%s:%s has no seek points, and is inflated from its start",
                    name,
                    key,
                )
    # Whoever replaces the file meanwhile must not find the new one with old points.
    _check_unchanged(name, fingerprint)
    note = MemberNote(
        key=key,
        fingerprint=fingerprint,
        n_bytes=member.file_size,
        has_points=has_points,
        damage=damage,
    )
    place = _find_note(folder, fingerprint, key)
    publish_json(place, {"format": _FORMAT, **asdict(note)})
    return note


def _ignore(share: float) -> None:
    """Report no progress."""


def _find_note(folder: Path, fingerprint: str, key: str) -> Path:
    # Keys may be longer than a file name, and hold slashes.
    digest = hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()
    return folder / f"{fingerprint}-{digest[:16]}.json"


def _make_note_error(path: Path, cause: str) -> RunError:
    return RunError(
        f"{path} is damaged ({cause}); delete it, and the same command makes it again"
    )


def _check_unchanged(name: str, fingerprint: str) -> None:
    found = find_fingerprint(name)
    if found != fingerprint:
        raise make_error(
            name,
            f"is not the archive that was planned (its fingerprint is {found}, not "
            f"{fingerprint}): it was changed; start a new run",
        )


def _find_header_damage(
    name: str, archive: zipfile.ZipFile, member: zipfile.ZipInfo
) -> str | None:
    """Say what is wrong with the member's local header, if anything is."""
    try:
        archive.open(member).close()
    except zipfile.BadZipFile as error:
        return give_reason(error)
    except ZIP_FAILURES as error:
        raise make_error(
            f"{name}:{member.filename}",
            f"cannot be opened ({give_reason(error)}); write it again with "
            "np.savez_compressed",
        ) from error
    return None


def _index(
    name: str,
    member: zipfile.ZipInfo,
    points: Path,
    n_threads: int,
    report: Callable[[float], None],
) -> bool:
    """Inflate with rapidgzip and write the seek points; False where it refuses."""
    try:
        inflate_all(name, member, points, n_threads=n_threads, report=report)
    except InflateError as error:
        logger.info("%s:%s: rapidgzip: %s", name, member.filename, error)
        return False
    return True


def _find_damage(
    name: str,
    archive: zipfile.ZipFile,
    member: zipfile.ZipInfo,
    report: Callable[[float], None],
) -> str | None:
    """Read a whole member through zipfile, which compares the CRC at its end."""
    shares = _read_through(archive, member)
    while True:
        try:
            share = next(shares, None)
        except OSError as error:
            if error.errno is None:
                return give_reason(error)  # bz2's way to say that its data are damaged
            # The file system may work again tomorrow: this is no damage to note down.
            raise make_error(
                f"{name}:{member.filename}",
                f"cannot be read ({give_reason(error)}); check the file system",
            ) from error
        except ZIP_FAILURES as error:
            return give_reason(error)
        if share is None:
            return None
        # Not within the try: a failure of who listens is no damage of the member.
        report(share)


def _read_through(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> Iterator[float]:
    """Read a member to its end; give the share that is read, 0 to 1."""
    n_read = 0
    with archive.open(member) as stream:
        while n_read < member.file_size:
            data = stream.read(_READ_BYTES)
            if not data:
                raise EOFError
            n_read += len(data)
            yield n_read / member.file_size
