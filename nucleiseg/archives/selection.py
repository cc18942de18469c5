"""Choosing datasets of an archive by name, by glob, or because there is only one."""

from __future__ import annotations

import logging
import os
import re
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from nucleiseg.archives.datasets import DatasetInfo
from nucleiseg.archives.explaining import explain_no_match, shorten
from nucleiseg.archives.failures import make_error, to_one_line
from nucleiseg.archives.globs import compile_glob, is_glob

if TYPE_CHECKING:
    from nucleiseg.archives.hdf5_links import Link

logger = logging.getLogger(__name__)

FindProblem = Callable[[DatasetInfo], str | None]

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
    list_links: Callable[[], Sequence[Link]],
    purpose: str,
    is_each_once: bool,
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
    list_links : callable
        What the archive has of links; for messages, asked only then.
    purpose : str
        What is looked for, singular, such as `image`; for messages.
    is_each_once : bool
        Whether a dataset of which several names match is chosen by the first alone.

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
        raise make_error(name, explain_no_match(datasets, key, list_links()))
    fit = [info for info in matches if find_problem(info) is None]
    if not fit and len(matches) == 1:
        raise make_error(f"{name}:{matches[0].key}", str(find_problem(matches[0])))
    if not fit:
        start = f"no {purpose} dataset matches {key}"
        raise make_error(name, _list_problems(matches, find_problem, start))
    if len(fit) > 1:
        # `/**` should not count nuclei in a table of coordinates.
        fit = [info for info in fit if info.has_image_sides] or fit
    return _take_once(name, fit) if is_each_once else fit


def list_unfit(
    name: str, datasets: Sequence[DatasetInfo], *, key: str, find_problem: FindProblem
) -> list[DatasetInfo]:
    """List what a key or glob matches and looks like images but cannot be used."""
    unfit: dict[str, DatasetInfo] = {}
    for info in _match_keys(name, datasets, key):
        if find_problem(info) is not None and info.looks_like_images:
            unfit.setdefault(info.alias_of or info.key, info)
    return list(unfit.values())


def _take_once(name: str, matches: Sequence[DatasetInfo]) -> list[DatasetInfo]:
    """Leave out, and say so, what matches under a further name."""
    chosen: dict[str, DatasetInfo] = {}
    left_out = []
    for info in matches:
        first = chosen.setdefault(info.alias_of or info.key, info)
        if first is not info:
            left_out.append(f"{info.key} is {first.key}")
    if left_out:
        logger.warning(
            "%s: left out what is the same dataset under another name (a hard link): "
            "%s",
            to_one_line(name),
            to_one_line(shorten(left_out)),
        )
    return list(chosen.values())


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
    datasets = [info for info in datasets if info.alias_of is None]
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
            f"holds {len(fit)} {purpose} datasets; name one of {shorten(choices)}",
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
    return f"{start}; {shorten(problems, n_most=3, separator='; ')}"
