"""Every path of a run, a training and a model bundle, and how files get there.

A file that exists under its final name is complete: it is written beside that name,
synced, and renamed. Nothing in the project opens a result for writing directly.
"""

import contextlib
import errno
import json
import os
import re
import shutil
import socket
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nucleiseg.errors import RunError

NOTEBOOK_TABLE = "U-Net Project Results.csv"
"""The notebook's file name (notebook step N10)."""


@dataclass(frozen=True)
class CountRun:
    """Paths of a count run's directory."""

    root: Path

    @property
    def config(self) -> Path:
        """The resolved configuration."""
        return self.root / "config.yaml"

    @property
    def compute(self) -> Path:
        """Precision, batch shape and tiles, chosen once and binding."""
        return self.root / "compute.json"

    @property
    def manifest(self) -> Path:
        """Versions, hosts and timings: what happened, never what to do."""
        return self.root / "manifest.json"

    @property
    def plan(self) -> Path:
        """Every shard, written before any work."""
        return self.root / "plan.parquet"

    @property
    def parts(self) -> Path:
        """Folder of the partial tables."""
        return self.root / "parts"

    def part(self, shard: int) -> Path:
        """Partial table of one shard."""
        return self.parts / f"{shard:06d}.parquet"

    @property
    def failures(self) -> Path:
        """Folder with a note for each partial table that has failed images."""
        return self.root / "failures"

    def failure(self, shard: int) -> Path:
        """Note on the failed images of one shard."""
        return self.failures / f"{shard:06d}.json"

    @property
    def ranges(self) -> Path:
        """Folder of the ranges of large images, by what they were found in."""
        return self.root / "ranges"

    @property
    def scales(self) -> Path:
        """Folder of how large the nuclei of datasets are: found once, and binding."""
        return self.root / "scales"

    @property
    def index(self) -> Path:
        """Folder of what passes over npz members found, by fingerprint."""
        return self.root / "index"

    @property
    def attempts(self) -> Path:
        """Folder of who computes which shard, and of what killed a worker."""
        return self.root / "attempts"

    @property
    def tls(self) -> Path:
        """Keys and address of the coordinator; there only while one runs."""
        return self.root / "tls"

    @property
    def logs(self) -> Path:
        """Folder of the logs."""
        return self.root / "logs"

    @property
    def jobs(self) -> "Jobs":
        """Jobs of a cluster, and what they say of themselves."""
        return Jobs(self.root)

    @property
    def pictures(self) -> Path:
        """Folder of the pictures."""
        return self.root / "pictures"

    def labels(self, *, incomplete: bool = False) -> Path:
        """Path of all label images; an incomplete file is called so."""
        return self.root / ("labels.partial.h5" if incomplete else "labels.h5")

    def nuclei(self, table_format: str, *, incomplete: bool = False) -> Path:
        """Path of the table of nuclei beside a merged table of a format."""
        suffix = self.table(table_format, incomplete=incomplete).suffix
        return self.root / f"nuclei{'.partial' * incomplete}{suffix}"

    def table(self, table_format: str, *, incomplete: bool = False) -> Path:
        """Path of the merged table in a format; an incomplete one is called so."""
        names = {
            "csv": "counts.csv",
            "parquet": "counts.parquet",
            "notebook": NOTEBOOK_TABLE,
        }
        path = self.root / names[table_format]
        return path.with_suffix(f".partial{path.suffix}") if incomplete else path


@dataclass(frozen=True)
class Jobs:
    """Paths of what the jobs of a run leave in its directory."""

    root: Path

    @property
    def submissions(self) -> Path:
        """What was submitted, with job ids."""
        return self.root / "jobs.json"

    @property
    def progress(self) -> Path:
        """How far a count is; written again and again by whoever leads it."""
        return self.root / "progress.json"

    @property
    def records(self) -> Path:
        """Folder with a file for each job of a cluster: its state and its host."""
        return self.root / "workers"

    @property
    def cancelled(self) -> Path:
        """There from a cancellation to the next start: jobs that see it end at once."""
        return self.root / "cancelled"

    @property
    def logs(self) -> Path:
        """Folder of the jobs' scripts and logs."""
        return self.root / "logs"


@dataclass(frozen=True)
class Bundle:
    """Paths of a model bundle."""

    root: Path

    @property
    def weights(self) -> Path:
        """Keras model, network and weights."""
        return self.root / "model.keras"

    @property
    def info(self) -> Path:
        """Configuration, normalisation, thresholds, training and scores."""
        return self.root / "bundle.json"


@dataclass(frozen=True)
class TrainRun:
    """Paths of a training's directory."""

    root: Path

    @property
    def config(self) -> Path:
        """The resolved configuration."""
        return self.root / "config.yaml"

    @property
    def manifest(self) -> Path:
        """Versions, hosts and timings."""
        return self.root / "manifest.json"

    @property
    def history(self) -> Path:
        """Losses and metrics, one row an epoch."""
        return self.root / "history.csv"

    @property
    def checkpoints(self) -> Path:
        """Folder of the training states."""
        return self.root / "checkpoints"

    def checkpoint(self, step: int) -> Path:
        """Folder of the training state after a number of steps."""
        return self.checkpoints / f"step-{step:09d}"

    @property
    def rates(self) -> Path:
        """When epochs ended and how fast they were: the only times of a training."""
        return self.root / "rates.csv"

    @property
    def tensorboard(self) -> Path:
        """Folder of the events for TensorBoard."""
        return self.root / "tensorboard"

    @property
    def data(self) -> Path:
        """Folder of what the pass over the labelled images found."""
        return self.root / "data"

    @property
    def split(self) -> Path:
        """Which images are for training and which for validation."""
        return self.root / "split.csv"

    @property
    def split_note(self) -> Path:
        """What the split was made of."""
        return self.root / "split.json"

    @property
    def samples(self) -> Path:
        """Picture of augmented training crops."""
        return self.root / "augmented.png"

    @property
    def bundle(self) -> Bundle:
        """The resulting model."""
        return Bundle(self.root / "model")

    @property
    def jobs(self) -> Jobs:
        """Jobs of a cluster, and what they say of themselves."""
        return Jobs(self.root)

    @property
    def bundle_so_far(self) -> Bundle:
        """The best model of a training that is not finished."""
        return Bundle(self.root / "model-so-far")

    @property
    def test(self) -> CountRun:
        """Count run of the test archive, where one is configured."""
        return CountRun(self.root / "test")


def create_private(folder: Path) -> Path:
    """Make a folder only its owner can enter (0700), with its parents."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir(mode=0o700, exist_ok=True)
    except FileExistsError as error:
        raise RunError(
            f"{error.filename} is a file, not a directory; choose another"
        ) from error
    return folder


def _temporary(path: Path) -> Path:
    # Hidden, so that no listing takes it for a result; unique, so that two
    # processes that do the same work never write into one file. The suffix stays:
    # Keras and NumPy choose the format by it.
    unique = f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
    return path.with_name(f".{unique}.tmp.{path.name}")


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Give a path to write to; on leaving without an error it becomes `path`.

    File and folder are synced around the rename, so that after a power cut, too,
    the old content or the new one is there, whole.
    """
    temporary = _temporary(path)
    try:
        yield temporary
        _sync(temporary)
        os.replace(temporary, path)
        _sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Give a folder (0700) to write files into; without an error it becomes `path`.

    Each file, then the folder, is synced before the rename, and the parent after it.
    A folder that is there already is moved away in between and then deleted.
    """
    temporary = _temporary(path)
    outdated = _temporary(path)
    temporary.mkdir(mode=0o700)
    try:
        yield temporary
        for file in sorted(temporary.iterdir()):
            _sync(file)
        _sync(temporary)
        if path.exists():
            os.replace(path, outdated)
        os.replace(temporary, path)
        _sync(path.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(outdated, ignore_errors=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file (UTF-8) atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write a value as JSON atomically."""
    write_text(path, json.dumps(value, indent=2, sort_keys=True) + "\n")


def publish_json(path: Path, value: Any) -> Any:
    """Write JSON unless the file is there, and return what the file holds.

    Of several processes that publish at once exactly one wins, on NFS too: a hard
    link either creates the name or fails.
    """
    temporary = _temporary(path)
    try:
        temporary.write_text(
            json.dumps(value, indent=2, sort_keys=True) + "\n", encoding="utf-8"
        )
        _sync(temporary)
        with contextlib.suppress(FileExistsError):
            try:
                os.link(temporary, path)
            except OSError as error:
                if error.errno not in (errno.EPERM, errno.ENOTSUP):
                    raise
                # Some network file systems have no links; this is as exclusive, and
                # only a crash in this very moment would leave it incomplete.
                with path.open("x", encoding="utf-8") as stream:
                    stream.write(temporary.read_text(encoding="utf-8"))
    finally:
        temporary.unlink(missing_ok=True)
    return read_json(path)


def read_json(path: Path) -> Any:
    """Read a JSON file of a run; damage is named."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        cause = " ".join(str(error).split())
        raise RunError(
            f"{path} is missing or damaged ({cause}); restore it, or use another --run"
        ) from error


def remove_temporaries(folder: Path) -> None:
    """Delete what writers that were killed left unfinished in a folder.

    Only what is of this host is touched, where its process is gone: another machine's
    writer may be alive.
    """
    # The whole name: host `node` must not take a file of host `node-12` for its own.
    own = re.compile(rf"\.{re.escape(socket.gethostname())}-(\d+)-[0-9a-f]{{8}}\.tmp\.")
    for path in folder.glob(".*.tmp.*"):
        found = own.match(path.name)
        if not found or Path("/proc", found[1]).exists():
            continue
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
