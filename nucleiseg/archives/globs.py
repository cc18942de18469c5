"""Globs over the keys of datasets."""

from __future__ import annotations

import re

_GLOB_CHARACTERS = frozenset("*?[")


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
