"""Which label datasets belong to which datasets of a run."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from nucleiseg.archives import find_glob_words, is_glob, split_name
from nucleiseg.errors import RunError
from nucleiseg.evaluation.labels import LabelDataset, name_apart, open_labels
from nucleiseg.evaluation.wording import list_first

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True)
class _Labels:
    """A label dataset, and what the wildcards of its name stood for."""

    dataset: LabelDataset
    words: tuple[str, ...]

    @property
    def path(self) -> str:
        return f"{self.dataset.path}/{self.dataset.info.key}"


def open_partners(
    run: str, counted: Sequence[str], names: Sequence[str], min_area_px: int = 0
) -> list[LabelDataset]:
    """Open the label datasets of a run's datasets, in the run's order.

    Of names without wildcards, the first belongs to the first dataset of the run, and
    so on. Else a label dataset belongs to the dataset of the run in whose path stand
    the words that its wildcards stood for, `520x696` of `/val/520x696/labels` found by
    `/val/*/labels`; of several, to that which shares most of the rest of its path, and
    of these to the one in the fewest folders: `/labels` to `/images`, not to
    `/a/images`.

    Parameters
    ----------
    run : str
        As the user named it.
    counted : sequence of str
        Each archive and key of the run, as `plate7.h5:/wells/A1/images`.
    names : sequence of str
        `ARCHIVE:KEY`, where KEY may be a glob.

    Raises
    ------
    RunError
        If they do not pair up one to one; the first that has no partner is named.
    """
    labels = _name_apart(
        [one for name in names for one in _open_name(name, min_area_px)]
    )
    is_by_name = any(is_glob(split_name(name)[1] or "") for name in names)
    if len(labels) != len(counted):
        titles = [one.dataset.group for one in labels]
        raise RunError(
            f"{', '.join(names)}: {len(labels)} label datasets ({list_first(titles)}), "
            f"expected one for each of the {len(counted)} datasets of {run} "
            f"({list_first(counted)}); name the labels of all of them, or compare some "
            f"by '{run}/labels.h5:KEY' instead of {run}"
        )
    if not is_by_name:
        return [one.dataset for one in labels]
    partners: dict[str, LabelDataset] = {}
    for one in labels:
        name = _find_partner(one, run, counted)
        if name in partners:
            raise RunError(
                f"{one.dataset.group}: belongs to {name} of {run} by its name, and so "
                f"does {partners[name].group}, expected one each; {_remedy(run)}"
            )
        partners[name] = one.dataset
    return [partners[name] for name in counted]


def _open_name(name: str, min_area_px: int) -> list[_Labels]:
    key = split_name(name)[1] or ""
    return [
        _Labels(dataset, find_glob_words(key, dataset.info.key) if is_glob(key) else ())
        for dataset in open_labels(name, min_area_px)
        if dataset.info.n_images
    ]


def _name_apart(labels: Sequence[_Labels]) -> list[_Labels]:
    datasets = name_apart([one.dataset for one in labels])
    return [
        replace(one, dataset=dataset)
        for one, dataset in zip(labels, datasets, strict=True)
    ]


def _find_partner(labels: _Labels, run: str, counted: Sequence[str]) -> str:
    """Find the one dataset of a run that label images belong to."""
    # Whole words: A1 is not in A10.
    words = [rf"(?<![^\W_]){re.escape(w)}(?![^\W_])" for w in labels.words]
    pattern = re.compile(".*".join(words))
    parts = {
        name: name.replace(":", "/").split("/")
        for name in counted
        if pattern.search(name)
    }
    scores = {
        name: (_count_shared(path, labels.path.split("/")), -len(path))
        for name, path in parts.items()
    }
    if not scores:
        raise RunError(
            f"{labels.dataset.group}: no dataset of {run} has "
            f"{' and '.join(labels.words)} in its name, expected one of "
            f"{list_first(counted)}; {_remedy(run)}"
        )
    best = [name for name, score in scores.items() if score == max(scores.values())]
    if len(best) > 1:
        raise RunError(
            f"{labels.dataset.group}: belongs to any of {len(best)} datasets of {run} "
            f"by its name ({list_first(best)}), expected one; {_remedy(run)}"
        )
    return best[0]


def _remedy(run: str) -> str:
    return f"name labels without wildcards, in the order of {run}'s table"


def _count_shared(one: list[str], other: list[str]) -> int:
    """Count the parts that two paths share, in order."""
    lengths = [0] * (len(other) + 1)
    for part in one:
        before = lengths.copy()
        for place, word in enumerate(other, start=1):
            if part and part == word:
                lengths[place] = before[place - 1] + 1
            else:
                lengths[place] = max(before[place], lengths[place - 1])
    return lengths[-1]
