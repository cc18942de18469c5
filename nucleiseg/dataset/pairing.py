"""Which labels belong to which images, by what wildcards of their keys stand for."""

import re
from collections.abc import Sequence

from nucleiseg.archives import is_glob
from nucleiseg.archives.globs import compile_glob
from nucleiseg.errors import ArchiveError

_Match = re.Match[str] | None


def pair_keys(
    name: str, images: Sequence[str], masks: Sequence[str], patterns: tuple[str, str]
) -> list[str]:
    """Find the masks of each dataset of images, by their keys.

    Wildcards stand for the same in both: altogether, from the first to the last, so
    that `/*/*/images` goes with `/**/labels`; or one by one, so that words in between
    may differ, as in `/*/images/*` and `/*/labels/*`.

    Parameters
    ----------
    name : str
        The archive, for messages.
    images, masks : sequence of str
        Keys that the patterns match.
    patterns : (str, str)
        Keys or globs of both, as configured.

    Returns
    -------
    list of str
        Of `masks`, in the order of `images`.

    Raises
    ------
    ArchiveError
        Images have no masks; the first is named.

    Examples
    --------
    >>> keys = ["/images", "/a/images"], ["/a/labels", "/labels"]
    >>> pair_keys("x.h5", *keys, ("**/images", "**/labels"))
    ['/labels', '/a/labels']
    """
    found = [
        _match_all(keys, one)
        for keys, one in zip((images, masks), patterns, strict=True)
    ]
    lonely = ""
    for read in (_read_together, _read_one_by_one):
        texts, mask_texts = ([read(match) for match in matches] for matches in found)
        partners = dict(zip(mask_texts, masks, strict=True))
        missing = [
            key for key, text in zip(images, texts, strict=True) if text not in partners
        ]
        # No two of a side may read alike, or one of them would be passed over.
        are_clear = len(partners) == len(masks) and len({*texts}) == len(images)
        if are_clear and not missing:
            return [partners[text] for text in texts]
        lonely = lonely or next(iter(missing), "")
    raise ArchiveError(
        f"{name}: images {lonely or images[0]} have no masks: none of {patterns[1]} "
        f"has the same text in place of its wildcards as {patterns[0]}; rename them, "
        "or name fewer images"
    )


def _match_all(keys: Sequence[str], pattern: str) -> list[_Match]:
    """Match keys with a glob; what is none, or a key as it is, has no wildcards."""
    names = [key.lstrip("/") for key in keys]
    pattern = pattern.lstrip("/")
    if pattern in names or not is_glob(pattern):
        return [None] * len(names)
    glob = compile_glob(pattern)
    return [glob.fullmatch(name) for name in names]


def _read_together(match: _Match) -> str:
    if match is None:
        return ""
    # `**/` stands for the slash behind a folder, too, and at the root for nothing.
    return match.string[match.start(1) : match.end(match.re.groups)].rstrip("/")


def _read_one_by_one(match: _Match) -> tuple[str, ...]:
    if match is None:
        return ()
    return tuple(text.rstrip("/") for text in match.groups())
