"""Saying why nothing is there under a key, and what was probably meant."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

from nucleiseg.archives.globs import compile_glob, is_glob

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from nucleiseg.archives.datasets import DatasetInfo
    from nucleiseg.archives.hdf5_links import Link

_MAX_LISTED = 8
# Links may lead to each other in a circle.
_MOST_STEPS = 16


def explain_no_match(
    datasets: Sequence[DatasetInfo], key: str, links: Sequence[Link] = ()
) -> str:
    """Say that no dataset has this key, which is nearest and which there are.

    Parameters
    ----------
    datasets : sequence of DatasetInfo
        All of the archive's.
    key : str
        Key or glob.
    links : sequence of Link, optional
        What the archive has beside datasets: the key may name one, or lead through one.
    """
    keys = [info.key for info in datasets]
    linked = _explain_link(keys, key, links)
    if linked:
        return linked
    if not keys:
        return f"no dataset matches {key}: it holds no datasets at all"
    near = _find_nearest(keys, key)
    nearest = f"; the nearest is {near}" if near else ""
    return f"no dataset matches {key}{nearest}; available: {shorten(keys)}"


def shorten(
    items: Sequence[str], *, n_most: int = _MAX_LISTED, separator: str = ", "
) -> str:
    """List the first of many, and say how many more there are."""
    n_more = len(items) - n_most
    more = f"{separator}and {n_more} more" if n_more > 0 else ""
    return separator.join(items[:n_most]) + more


def _explain_link(keys: Sequence[str], key: str, links: Sequence[Link]) -> str | None:
    """Say that a key is a link or leads through one, and what to name instead."""
    found = _find_link(key, links)
    if found is None:
        return None
    link, wanted = found
    last = link
    for _ in range(_MOST_STEPS):
        found = None if last.file else _find_link(wanted, links)
        if found is None:
            break
        last, wanted = found
    kind = "an external" if link.file else "a soft"
    target = f"{link.file}:{link.target}" if link.file else link.target
    words = (
        f"no dataset matches {key}: {link.key} is {kind} link to {target}, and links "
        "are not followed"
    )
    if last.file is not None:
        return f"{words}; name {last.file}:{wanted} instead"
    if any(map(_make_matcher(wanted), keys)):
        return f"{words}; name {wanted} instead"
    available = shorten(keys) or "none"
    return f"{words}, nor is there a dataset {wanted}; available: {available}"


def _find_link(key: str, links: Sequence[Link]) -> tuple[Link, str] | None:
    """Find the link that a key is or leads through, and the key that it leads to."""
    parts = key.strip("/").split("/")
    for n_parts in range(1, len(parts) + 1):
        matches = _make_matcher("/".join(parts[:n_parts]))
        for link in links:
            if matches(link.key):
                return link, "/".join([link.target.rstrip("/"), *parts[n_parts:]])
    return None


def _make_matcher(key: str) -> Callable[[str], bool]:
    wanted = key.lstrip("/")
    if not is_glob(wanted):
        return lambda known: known.lstrip("/") == wanted
    glob = compile_glob(wanted)
    return lambda known: (
        known.lstrip("/") == wanted or glob.fullmatch(known.lstrip("/")) is not None
    )


def _find_nearest(keys: Sequence[str], key: str) -> str | None:
    """Find the key that was probably meant, by whole path or by last component."""
    group = key.strip("/") + "/"
    inside = [known for known in keys if known.lstrip("/").startswith(group)]
    if inside:
        return inside[0]
    for simplify in (lambda text: text.strip("/"), _get_last_component):
        by_text: dict[str, str] = {}
        for known in keys:
            by_text.setdefault(simplify(known).lower(), known)
        near = difflib.get_close_matches(simplify(key).lower(), by_text, n=1)
        if near:
            return by_text[near[0]]
    return None


def _get_last_component(key: str) -> str:
    return key.rstrip("/").rpartition("/")[2]
