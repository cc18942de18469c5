"""Where workers find their coordinator, and the keys to speak with it.

    tls/coordinator.json         address, and the folder of the keys
    tls/INCARNATION/{cert,key}.pem

Whoever has the key may run code as its owner, so that the files are 0600 in folders
of 0700. A coordinator that starts makes new keys and drops those of the one before.
"""

import contextlib
import os
import shutil
import socket
import uuid
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from nucleiseg.atomic import create_private, read_json, write_json
from nucleiseg.errors import RunError
from nucleiseg.runs import CountRun

if TYPE_CHECKING:
    from distributed import Security


_CONNECT_S = 5.0


@dataclass(frozen=True)
class Keys:
    """Files of one key and its certificate, which is its own authority."""

    certificate: Path
    key: Path

    def security(self) -> "Security":
        """Make the settings with which dask speaks TLS, and nothing but TLS."""
        from distributed import Security

        certificate, key = str(self.certificate), str(self.key)
        return Security(
            require_encryption=True,
            tls_ca_file=certificate,
            tls_scheduler_cert=certificate,
            tls_scheduler_key=key,
            tls_worker_cert=certificate,
            tls_worker_key=key,
            tls_client_cert=certificate,
            tls_client_key=key,
        )


@dataclass(frozen=True)
class Meeting:
    """A coordinator that takes workers."""

    address: str
    incarnation: str
    host: str

    @property
    def hostname(self) -> str:
        """Host part of the address."""
        return self.address.rpartition("//")[2].rpartition(":")[0]

    def is_reachable(self) -> bool:
        """Whether anybody listens there."""
        port = int(self.address.rpartition(":")[2])
        try:
            socket.create_connection((self.hostname, port), _CONNECT_S).close()
        except OSError:
            return False
        return True

    def keys(self, run: CountRun) -> Keys:
        """Files of its keys."""
        return _keys(run.tls / self.incarnation)


def make_keys(run: CountRun) -> tuple[str, Keys]:
    """Make keys for a new coordinator.

    Returns
    -------
    incarnation : str
        Names this coordinator.
    keys : Keys
    """
    from distributed import Security

    temporary = Security.temporary()
    incarnation = uuid.uuid4().hex
    folder = create_private(create_private(run.tls) / incarnation)
    keys = _keys(folder)
    _write_private(keys.certificate, temporary.tls_ca_file)
    _write_private(keys.key, temporary.tls_scheduler_key)
    return incarnation, keys


@contextlib.contextmanager
def announced(run: CountRun, incarnation: str, address: str) -> Iterator[None]:
    """Tell workers of a coordinator, as long as it is there."""
    write_json(
        _meeting_file(run), asdict(Meeting(address, incarnation, socket.gethostname()))
    )
    for folder in run.tls.iterdir():
        # Of coordinators before this one, which were killed.
        if folder.is_dir() and folder.name != incarnation:
            shutil.rmtree(folder, ignore_errors=True)
    try:
        yield
    finally:
        shutil.rmtree(run.tls / incarnation, ignore_errors=True)
        found = find_meeting(run)
        if found is None or found.incarnation == incarnation:
            _meeting_file(run).unlink(missing_ok=True)
        # Not where another one has begun: it has its keys before it is announced.
        with contextlib.suppress(OSError):
            run.tls.rmdir()


def find_meeting(run: CountRun) -> Meeting | None:
    """Find the coordinator; None where there is none."""
    path = _meeting_file(run)
    if not path.exists():
        return None
    try:
        meeting = Meeting(**read_json(path))
    except RunError:
        # Gone between the two lines: the coordinator has just ended.
        if path.exists():
            raise
        return None
    return meeting if meeting.keys(run).key.exists() else None


def is_announced(run: CountRun, incarnation: str) -> bool:
    """Whether a coordinator is still the one that workers are sent to.

    A node that SLURM has given up may go on computing, cut off from SLURM only.
    """
    meeting = find_meeting(run)
    return meeting is not None and meeting.incarnation == incarnation


def remove_keys(run: CountRun) -> None:
    """Drop what a coordinator that was killed has left."""
    shutil.rmtree(run.tls, ignore_errors=True)


def _meeting_file(run: CountRun) -> Path:
    return run.tls / "coordinator.json"


def _keys(folder: Path) -> Keys:
    return Keys(folder / "cert.pem", folder / "key.pem")


def _write_private(path: Path, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as stream:
        stream.write(text)
