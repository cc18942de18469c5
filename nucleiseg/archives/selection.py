"""Choosing datasets of an archive by name, by glob, or because there is only one."""

from __future__ import annotations

import difflib
import os
import re
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path

from nucleiseg.archives.datasets import DatasetInfo
from nucleiseg.archives.failures import make_error

FindProblem = Callable[[DatasetInfo], str | None]

_MAX_LISTED = 8
_GLOB_CHARACTERS = frozenset("*?[")
_SUFFIX_THEN_COLON = re.compile(r"\.(?:npz|h5|hdf5)(:)", re.IGNORECASE)


def split_name(name: str) -> tuple[Path, str | None]:
    """Split `ARCHIVE:KEY` into the archive's path and the key or glob.

    A file that exists decides, the longest first, so that paths may contain `:`.
    Where none exists, the colon behind a known suffix divides, else the last one.

    Parameters
    ----------
    name : str
        Such as `plate7.h5:/wells/*/images`; the key may be missing.

    Returns
    -------
    path : Path
    key : str or None
        None where it is missing or empty.
    """
    if os.path.isfile(name):
        return Path(name), None
    colons = [place for place, letter in enumerate(name) if letter == ":"]
    for place in reversed(colons):
        if os.path.isfile(name[:place]):
            return Path(name[:place]), name[place + 1 :] or None
    behind_suffix = _SUFFIX_THEN_COLON.search(name)
    if behind_suffix:
        colons = [behind_suffix.start(1)]
    elif name.lower().endswith((".npz", ".h5", ".hdf5")):
        colons = []
    if not colons:
        return Path(name), None
    return Path(name[: colons[-1]]), name[colons[-1] + 1 :] or None


def choose_datasets(
    name: str,
    datasets: Sequence[DatasetInfo],
    *,
    key: str | None,
    find_problem: FindProblem,
    purpose: str,
) -> list[DatasetInfo]:
    """Choose the datasets that `key` names, or the only one that fits.

    Parameters
    ----------
    name : str
        The archive, as the user wrote it.
    datasets : sequence of DatasetInfo
        All of the archive's.
    key : str or None
        Key or glob, with or without a leading slash; None for the only one.
    find_problem : callable
        Why a dataset is unfit, or None.
    purpose : str
        What is looked for, singular, such as `image`; for messages.

    Returns
    -------
    list of DatasetInfo
        At least one, in the order of `datasets`.

    Raises
    ------
    ArchiveError
        Where nothing fits, a named dataset is unfit, or the choice is not clear.
    """
    if key is None:
        return [_choose_only(name, datasets, find_problem, purpose)]
    matches = _match_keys(name, datasets, key)
    if not matches:
        raise make_error(name, explain_no_match(datasets, key))
    fit = [info for info in matches if find_problem(info) is None]
    if not fit and len(matches) == 1:
        raise make_error(f"{name}:{matches[0].key}", str(find_problem(matches[0])))
    if not fit:
        start = f"no {purpose} dataset matches {key}"
        raise make_error(name, _list_problems(matches, find_problem, start))
    if len(fit) > 1:
        # `/**` should not count nuclei in a table of coordinates.
        return [info for info in fit if info.has_image_sides] or fit
    return fit


def list_unfit(
    name: str, datasets: Sequence[DatasetInfo], *, key: str, find_problem: FindProblem
) -> list[DatasetInfo]:
    """List what a key or glob matches and looks like images but cannot be used."""
    return [
        info
        for info in _match_keys(name, datasets, key)
        if find_problem(info) is not None and info.looks_like_images
    ]


def explain_no_match(datasets: Sequence[DatasetInfo], key: str) -> str:
    """Say that no dataset has this key, which is nearest and which there are."""
    keys = [info.key for info in datasets]
    if not keys:
        return f"no dataset matches {key}: it holds no datasets at all"
    near = _find_nearest(keys, key)
    nearest = f"; the nearest is {near}" if near else ""
    return f"no dataset matches {key}{nearest}; available: {_shorten(keys)}"


def compile_glob(pattern: str) -> re.Pattern[str]:
    """Compile a glob over keys without their leading slash.

    `*` and `?` stay within a path component, `**` crosses them (`**/` also stands
    for none), `[...]` is a set of characters, `[!...]` all others. Each is a group.

    Raises
    ------
    re.error
        For a set such as `[z-a]`.
    """
    tokens = re.compile(r"\*\*/|\*\*|\*|\?|\[!?\]?[^\]]*\]|.", re.DOTALL)
    plain = {"**/": "((?:.*/)?)", "**": "(.*)", "*": "([^/]*)", "?": "([^/])"}
    parts = []
    for token in tokens.findall(pattern):
        if token in plain:
            parts.append(plain[token])
        elif len(token) > 1:
            inside = token[1:-1]
            negation = "^" if inside.startswith("!") else ""
            inside = re.sub(r"([\\^\[\]&~|])", r"\\\1", inside[len(negation) :])
            parts.append(f"((?!/)[{negation}{inside}])")
        else:
            parts.append(re.escape(token))
    return re.compile("".join(parts), re.DOTALL)


def is_glob(key: str) -> bool:
    """Tell a glob from a key, by its characters."""
    return bool(_GLOB_CHARACTERS & set(key))


def find_glob_words(pattern: str, key: str) -> tuple[str, ...]:
    """Give what the wildcards of a glob stand for in a key, as whole words.

    Parameters
    ----------
    pattern : str
        A glob that matches the key.
    key : str

    Returns
    -------
    tuple of str
        In order; letters and digits beside a wildcard are of its word.

    Examples
    --------
    >>> find_glob_words("/wells/*/labels", "/wells/A1/labels")
    ('A1',)
    >>> find_glob_words("**/plate?_labels", "day 2/plate7_labels")
    ('day 2', 'plate7')
    """
    key = key.lstrip("/")
    found = compile_glob(pattern.lstrip("/")).fullmatch(key)
    if found is None:
        raise ValueError(f"the glob {pattern} does not match {key}")
    spans: list[tuple[int, int]] = []
    for number, text in enumerate(found.groups(), start=1):
        for part in re.finditer(r"[^/]+", text):
            start, end = (found.start(number) + place for place in part.span())
            while start > 0 and key[start - 1].isalnum():
                start -= 1
            while end < len(key) and key[end].isalnum():
                end += 1
            if (start, end) not in spans:
                spans.append((start, end))
    return tuple(key[start:end] for start, end in spans)


def _match_keys(
    name: str, datasets: Sequence[DatasetInfo], key: str
) -> list[DatasetInfo]:
    wanted = key.lstrip("/")
    exact = [info for info in datasets if info.key.lstrip("/") == wanted]
    if exact or not is_glob(wanted):
        return exact
    try:
        glob = compile_glob(wanted)
    except re.error as error:
        raise make_error(
            name, f"the key {key} is no glob ({error}); mend the set in brackets"
        ) from error
    return [info for info in datasets if glob.fullmatch(info.key.lstrip("/"))]


def _choose_only(
    name: str, datasets: Sequence[DatasetInfo], find_problem: FindProblem, purpose: str
) -> DatasetInfo:
    fit = [
        info for info in datasets if info.has_image_sides and find_problem(info) is None
    ]
    # Taking Y because X is damaged would count nuclei in the masks.
    doubtful = [info for info in datasets if info.may_hide_images]
    if len(fit) == 1 and not doubtful:
        return fit[0]
    if len(fit) > 1:
        choices = [
            f"{shlex.quote(f'{name}:{info.key}')} {info.shape} {info.dtype}"
            for info in fit
        ]
        raise make_error(
            name,
            f"holds {len(fit)} {purpose} datasets; name one of {_shorten(choices)}",
        )
    if not datasets:
        raise make_error(name, f"holds no {purpose} dataset, nor any other")
    if fit:
        start = f"name {shlex.quote(f'{name}:{fit[0].key}')} if it is meant"
        raise make_error(name, _list_problems(doubtful, find_problem, start))

    def explain(info: DatasetInfo) -> str | None:
        return find_problem(info) or f"has sides too short for images {info.shape}"

    raise make_error(
        name, _list_problems(datasets, explain, f"holds no {purpose} dataset")
    )


def _list_problems(
    datasets: Sequence[DatasetInfo], find_problem: FindProblem, start: str
) -> str:
    problems = [f"{info.key} {find_problem(info)}" for info in datasets]
    return f"{start}; {_shorten(problems, n_most=3, separator='; ')}"


def _shorten(
    items: Sequence[str], *, n_most: int = _MAX_LISTED, separator: str = ", "
) -> str:
    n_more = len(items) - n_most
    more = f"{separator}and {n_more} more" if n_more > 0 else ""
    return separator.join(items[:n_most]) + more


def _find_nearest(keys: Sequence[str], key: str) -> str | None:
    """Find the key that was probably meant, by whole path or by last component."""
    group = key.strip("/") + "/"
    inside = [known for known in keys if known.lstrip("/").startswith(group)]
    if inside:
        return inside[0]
    for shorten in (lambda text: text.strip("/"), _get_last_component):
        by_text: dict[str, str] = {}
        for known in keys:
            by_text.setdefault(shorten(known).lower(), known)
        near = difflib.get_close_matches(shorten(key).lower(), by_text, n=1)
        if near:
            return by_text[near[0]]
    return None


def _get_last_component(key: str) -> str:
    return key.rstrip("/").rpartition("/")[2]
