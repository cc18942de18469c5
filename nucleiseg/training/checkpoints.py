"""The state of a training on disk: everything that the next step depends on.

checkpoints/
  step-000000480/
    checkpoint.json   step, history, sums of the epoch at hand, what computed it; the
                      SHA-256 of each file beside it, and of its own content
    variables.npz     weights, random states, optimiser slots, averaged weights
    best.npz          weights of the best epoch
"""

import hashlib
import json
import logging
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nucleiseg.atomic import atomic_folder, remove_temporaries
from nucleiseg.bundle import file_sha256
from nucleiseg.errors import RunError
from nucleiseg.runs import TrainRun
from nucleiseg.training.circumstances import Circumstances
from nucleiseg.training.history import History

logger = logging.getLogger(__name__)

_KEPT = 2
_FORMAT = 1
_INFO = "checkpoint.json"

Arrays = list[NDArray[Any]]


@dataclass(frozen=True)
class Checkpoint:
    """The state of a training after a step.

    Parameters
    ----------
    step : int
        Steps done, over all epochs.
    history : History
        Of the epochs that are finished, validation included.
    sums : (3,) float64 ndarray
        Of the epoch at hand: loss and accuracy over its images so far, and how many
        images these are.
    variables : list of ndarray
        Weights, random states, optimiser and averaged weights, in this order.
    best : list of ndarray
        Weights of the best epoch; empty before the first.
    circumstances : Circumstances
    """

    step: int
    history: History
    sums: NDArray[np.float64]
    variables: Arrays
    best: Arrays
    circumstances: Circumstances


class _DamageError(Exception):
    """A checkpoint is not what was written."""


def save_checkpoint(run: TrainRun, checkpoint: Checkpoint) -> None:
    """Write a state beside its final name, sync and rename it; drop older ones.

    Raises
    ------
    OSError
        There is no room, say. What was there before is left as it was.
    """
    # What a writer that was killed has left may be what fills the disk.
    remove_temporaries(run.checkpoints)
    arrays = {"variables.npz": checkpoint.variables, "best.npz": checkpoint.best}
    path = run.checkpoint(checkpoint.step)
    with atomic_folder(path) as folder:
        files = {}
        for name, values in arrays.items():
            _write_arrays(folder / name, values)
            files[name] = file_sha256(folder / name)
        body = {
            "format": _FORMAT,
            "step": checkpoint.step,
            "history": checkpoint.history.rows,
            "sums": checkpoint.sums.tolist(),
            "circumstances": asdict(checkpoint.circumstances),
            "files": files,
        }
        text = json.dumps({"sha256": _digest(body), **body}, indent=1)
        (folder / _INFO).write_text(text + "\n", encoding="utf-8")
    _drop_others(run, path)


def _drop_others(run: TrainRun, newest: Path) -> None:
    """Keep the state just written and the one before.

    A later one than the newest can only be there because it was damaged.
    """
    found = list_checkpoints(run)
    until = found[: found.index(newest) + 1]
    for path in set(found) - set(until[-_KEPT:]):
        shutil.rmtree(path)


def _write_arrays(path: Path, values: Sequence[NDArray[Any]]) -> None:
    names: dict[str, Any] = {f"{i:05d}": value for i, value in enumerate(values)}
    np.savez(path, **names)


def _read_arrays(path: Path) -> Arrays:
    with np.load(path, allow_pickle=False) as archive:
        return [archive[name] for name in sorted(archive.files)]


def _digest(body: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def list_checkpoints(run: TrainRun) -> list[Path]:
    """Training states on disk, oldest first."""
    return sorted(run.checkpoints.glob("step-*"))


def load_newest(run: TrainRun) -> Checkpoint | None:
    """Read the newest training state that is whole; None when there is none yet.

    Raises
    ------
    RunError
        There are states and all of them are damaged.
    """
    found = list_checkpoints(run)
    for path in reversed(found):
        try:
            return _load(path)
        except _DamageError as error:
            logger.warning(
                "checkpoint %s is damaged (%s); going on with the one before",
                path,
                error,
            )
    if found:
        raise RunError(
            f"all checkpoints in {run.checkpoints} are damaged; delete the folder to "
            "train from the start, or use another --run"
        )
    return None


def _load(path: Path) -> Checkpoint:
    info = path / _INFO
    try:
        body = json.loads(info.read_text(encoding="utf-8"))
        expected = body.pop("sha256")
    except FileNotFoundError as error:
        raise _DamageError(f"{_INFO} is missing") from error
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise _DamageError(
            f"{_INFO} is no description of a checkpoint: {error}"
        ) from error
    if _digest(body) != expected:
        raise _DamageError(f"{_INFO} has another SHA-256 than when it was written")
    if body["format"] != _FORMAT:
        raise RunError(
            f"{path} has format {body['format']}, this version reads {_FORMAT}; use "
            "the nucleiseg that wrote it, or another --run"
        )
    for name, sha256 in body["files"].items():
        try:
            found = file_sha256(path / name)
        except FileNotFoundError as error:
            raise _DamageError(f"{name} is missing") from error
        except OSError as error:
            raise _DamageError(f"{name} cannot be read: {error.strerror}") from error
        if found != sha256:
            raise _DamageError(
                f"{name}, {(path / name).stat().st_size} bytes, has the SHA-256 "
                f"{found[:12]}…, expected {sha256[:12]}…"
            )
    return Checkpoint(
        step=body["step"],
        history=History(body["history"]),
        sums=np.array(body["sums"], dtype=np.float64),
        variables=_read_arrays(path / "variables.npz"),
        best=_read_arrays(path / "best.npz"),
        circumstances=Circumstances(**body["circumstances"]),
    )
