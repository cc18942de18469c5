"""Names of archives, as the table shows them."""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path


def escape_unprintable(name: str) -> str:
    """Write a name as a table can hold it.

    White space is kept as it is, so that names that differ in it stay apart.
    """
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode()
        for letter in name
    )


def shortest_names(paths: Sequence[Path]) -> list[str]:
    """Shortest suffix of each path that no other path ends with.

    Examples
    --------
    >>> shortest_names([Path("/a/x.npz"), Path("/b/x.npz"), Path("/b/y.npz")])
    ['a/x.npz', 'b/x.npz', 'y.npz']
    """
    lengths: dict[tuple[str, ...], int] = {}
    # Only what shares its last part can share its last two: each round of one more
    # part compares within the groups that the round before left.
    groups = [list(dict.fromkeys(path.parts for path in paths))]
    length = 0
    while groups:
        length += 1
        longer = []
        for group in groups:
            by_suffix = defaultdict(list)
            for parts in group:
                by_suffix[parts[-length:]].append(parts)
            for same in by_suffix.values():
                is_clear = len(same) == 1
                for parts in same:
                    if is_clear or len(parts) <= length:
                        lengths[parts] = length
                rest = [parts for parts in same if parts not in lengths]
                if rest:
                    longer.append(rest)
        groups = longer
    return [str(Path(*path.parts[-lengths[path.parts] :])) for path in paths]
