"""Where the label images of a dataset lie in the file."""

import itertools
from collections.abc import Sequence

from nucleiseg.errors import RunError


def name_dataset(archive: str, dataset: str) -> str:
    """Name the label images of a dataset, as HDF5 finds them.

    Parameters
    ----------
    archive : str
        As the table names it.
    dataset : str
        Key of an npz member, or path in an HDF5 file.

    Examples
    --------
    >>> name_dataset("plates/a.npz", "X")
    '/plates/a.npz/X'
    >>> name_dataset("b.h5", "/wells/A1/images")
    '/b.h5/wells/A1/images'
    """
    # To HDF5 `/a//./b` is `/a/b`: written so, two names are one path only if equal.
    parts = f"{archive}/{dataset}".split("/")
    return "/" + "/".join(part for part in parts if part not in ("", "."))


def refuse_clashes(names: Sequence[str]) -> None:
    """Refuse names that cannot lie in one file.

    Raises
    ------
    RunError
        Two are the same, or one is a folder of the other; both are named.
    """
    # Whatever lies below a name follows it at once.
    paths = sorted(name.split("/") for name in names)
    for above, below in itertools.pairwise(paths):
        if below[: len(above)] == above:
            raise RunError(
                f"the label images {'/'.join(above)} and {'/'.join(below)} cannot lie "
                "in one file, by the names of archives and datasets; segment them "
                "with one --run each"
            )
