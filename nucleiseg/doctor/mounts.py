"""Whether other machines see a folder, as far as its file system tells."""

import re
from pathlib import Path

from nucleiseg.doctor.check import Check, passed, warned

_MOUNTS = Path("/proc/self/mountinfo")
_SHARED = {
    *("nfs", "nfs4", "lustre", "gpfs", "beegfs", "fhgfs", "ceph", "panfs", "pvfs2"),
    *("orangefs", "wekafs", "cifs", "smb3", "afs", "9p", "virtiofs", "gfs2", "ocfs2"),
    *("glusterfs", "quobyte", "daos", "moosefs", "seaweedfs", "juicefs", "sshfs"),
}
_OF_MEMORY = {"tmpfs", "ramfs", "overlay", "squashfs"}


def check_file_system(root: Path, mounts: Path = _MOUNTS) -> Check:
    """Guess whether the nodes see the run directory; a probe on a node can tell."""
    name = "file system"
    remedy = "use a --run that all nodes share: home, project or scratch"
    kind = find_kind(root, mounts)
    if kind is None:
        return warned(name, "unknown", remedy)
    if "/tmp" in (str(root), *map(str, root.parents)):
        return warned(name, f"{kind}, in /tmp, which each machine has its own", remedy)
    # Of a FUSE file system the second part is the name.
    if kind in _SHARED or kind.rpartition(".")[2] in _SHARED:
        return passed(name, f"{kind}, which is shared")
    if kind in _OF_MEMORY:
        return warned(name, f"{kind} is local to this machine", remedy)
    return warned(name, f"{kind} may be local to this machine", remedy)


def find_kind(folder: Path, mounts: Path = _MOUNTS) -> str | None:
    """Type of the file system that a folder, or the first one above it, is on."""
    folder = folder.resolve()
    try:
        lines = mounts.read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return None
    best: tuple[int, str] | None = None
    for line in lines.splitlines():
        first, _, second = line.partition(" - ")
        point = Path(_unescape(first.split()[4]))
        depth = len(point.parts)
        # Of several in one place the last lies on top.
        if folder.is_relative_to(point) and (best is None or depth >= best[0]):
            best = depth, second.split()[0]
    return best[1] if best else None


def _unescape(text: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), text)
