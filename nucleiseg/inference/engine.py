"""One worker process: the network, loaded once, and shards going through it.

    read -> normalise and cut -> network -> label and count -> rows
    1 thread     1 thread       n threads      n threads

The bounded room between the stages lets all of them run at once in flat memory.
"""

import dataclasses
import functools
import os
import socket
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from nucleiseg.archives import Reader, fingerprint, open_reader
from nucleiseg.attempts import Attempts
from nucleiseg.bundle import read_bundle
from nucleiseg.config import InferenceConfig, InstancesConfig, load_config
from nucleiseg.errors import ArchiveError, BundleError, IncompleteError, RunError
from nucleiseg.inference.compute import choose_compute
from nucleiseg.inference.network import TiledNetwork
from nucleiseg.inference.parts import Parts
from nucleiseg.inference.pipeline import map_ordered
from nucleiseg.instances import label_nuclei, summarise
from nucleiseg.preprocess import normalise
from nucleiseg.runs import CountRun, create_private, read_json, write_json
from nucleiseg.shards import Entry, read_plan
from nucleiseg.tables import ImageRow, read_partial, write_partial

# Pixels read at once: 64 images of 128x128, and never less than one image.
_READ_PIXELS = 2**20


@dataclass(frozen=True)
class ShardResult:
    """What a worker says of a finished shard."""

    shard: int
    n_images: int
    n_failed: int
    seconds: float
    already_there: bool


@dataclass(frozen=True)
class _Image:
    """An image on its way: as stored, or why it could not be read."""

    index: int
    pixels: NDArray[Any] | None
    tiles: Sequence[NDArray[np.float32]] = ()
    reason: str | None = None


class Engine:
    """Computes shards of one run.

    Parameters
    ----------
    run : CountRun
        A planned run.
    n_threads : int
        Cores this worker may keep busy.
    """

    def __init__(self, run: CountRun, *, n_threads: int) -> None:
        self.run = run
        self.plan = read_plan(run.plan)
        self.config = load_config(run.config)
        # OpenCV would start as many threads as the node has cores, in each worker.
        cv2.setNumThreads(1)
        # What binds is read from the plan, which partial tables are stamped with.
        settings = self.plan.settings
        self._instances = InstancesConfig.model_validate(settings["instances"])
        self.compute = choose_compute(
            run,
            InferenceConfig.model_validate(
                {**settings["inference"], "device": self.config.inference.device}
            ),
        )
        model = read_bundle(Path(read_json(run.manifest)["model"]))
        if model.identity != self.plan.settings["model"]:
            raise BundleError(
                f"model bundle {model.paths.root} has changed since run {run.root} was "
                "planned; use another --run for the new model"
            )
        self._preprocess = model.preprocess
        self._network = TiledNetwork(model, self.compute, n_threads=n_threads)
        self._n_threads = n_threads
        self._attempts = Attempts(run)
        self._worker = os.environ.get("NUCLEISEG_WORKER") or socket.gethostname()
        self._reader: tuple[tuple[str, str], Reader] | None = None

    def compute_shard(self, number: int) -> ShardResult:
        """Compute one shard's partial table, unless it is there.

        Raises
        ------
        RunError
            A partial table is there and does not belong to this run.
        """
        start_s = time.monotonic()
        shard = self.plan.shards[number]
        there = read_partial(self.run, self.plan, shard, compute=self.compute.identity)
        if there is not None:
            n_failed = there.column("status").to_pylist().count("failed")
            return ShardResult(number, shard.n_images, n_failed, 0.0, True)
        rows = self._compute_all(number, shard)
        n_failed = sum(row.summary is None for row in rows)
        self._note_failures(number, n_failed)
        write_partial(self.run, self.plan, shard, rows, compute=self.compute.identity)
        self._attempts.clear(number)
        return ShardResult(
            number, len(rows), n_failed, time.monotonic() - start_s, False
        )

    def _compute_all(self, number: int, shard: Entry) -> list[ImageRow]:
        """Compute a shard, whole or, where it killed or is known in part, in parts."""

        def compute_rows(start: int, stop: int) -> list[ImageRow]:
            return self._compute_rows(
                dataclasses.replace(shard, start=start, stop=stop)
            )

        if self._attempts.history(number).is_clean() and not self._attempts.rows_files(
            number
        ):
            whole = (shard.start, shard.stop)
            with self._attempts.attempt(number, whole, worker=self._worker):
                return compute_rows(*whole)
        parts = Parts(self.run, self.plan, self.compute.identity, self._worker)
        return parts.compute_shard(shard, compute_rows)

    def _note_failures(self, number: int, n_failed: int) -> None:
        """Leave a note beside a partial table with failures, or take it away.

        Written before the table, so that who finds a table knows without opening it.
        """
        note = self.run.failure(number)
        if n_failed:
            create_private(self.run.failures)
            write_json(note, {"n_failed": n_failed})
        else:
            note.unlink(missing_ok=True)

    def predict_image(
        self, pixels: NDArray[Any]
    ) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
        """Predict one image as it is predicted within its shard.

        Parameters
        ----------
        pixels : (H, W) ndarray
            As stored.

        Returns
        -------
        probability : (H, W) float32 ndarray, in [0, 1]
        labels : (H, W) int32 ndarray
            0 = background, 1…n = nuclei.
        """
        height, width = pixels.shape
        tiling = self._network.tiling((height, width))
        tiles = tiling.split(normalise(pixels, self._preprocess))
        ((_, probability),) = self._network.predict([_Image(0, pixels, tiles)], tiling)
        assert probability is not None
        if not np.isfinite(probability.max()):
            raise ArchiveError(self._not_finite)
        return probability, label_nuclei(probability, self._instances)

    def _compute_rows(self, shard: Entry) -> list[ImageRow]:
        try:
            reader = self._open(shard)
        except ArchiveError as error:
            return [
                ImageRow(index, None, error.reason)
                for index in range(shard.start, shard.stop)
            ]
        rows = list(self._stream(shard, reader))
        if shard.stop == reader.info.n_images:
            self._close()
        return rows

    def _open(self, shard: Entry) -> Reader:
        """Open a shard's dataset, or go on with the reader that is open.

        Shards come in order, and a deflated member can only be read forwards: a new
        reader for each shard would inflate it from the start each time.
        """
        archive = self.plan.archives[shard.archive]
        if not Path(archive.path).exists():
            # A file system that is away for a while must not fail its images for good.
            raise IncompleteError(
                f"{archive.path} is gone; run the same command again when it is back"
            )
        name = (archive.path, str(shard.dataset))
        if fingerprint(archive.path) != archive.fingerprint:
            words = "it has changed since the run was planned"
            raise ArchiveError(f"{archive.path}: {words}", reason=words)
        if self._reader is None or self._reader[0] != name:
            self._close()
            self._reader = (name, open_reader(*name))
        return self._reader[1]

    def _close(self) -> None:
        if self._reader is not None:
            self._reader[1].close()
        self._reader = None

    def _stream(self, shard: Entry, reader: Reader) -> Iterator[ImageRow]:
        tiling = self._network.tiling(shard.image_shape)
        step = max(1, _READ_PIXELS // (shard.height * shard.width))
        ranges = [
            (start, min(start + step, shard.stop))
            for start in range(shard.start, shard.stop, step)
        ]

        def read(limits: tuple[int, int]) -> list[_Image]:
            return _read_images(reader, *limits)

        def prepare(image: _Image) -> _Image:
            if image.pixels is None:
                return image
            try:
                values = normalise(image.pixels, self._preprocess)
            except ArchiveError as error:
                return _Image(image.index, None, reason=error.reason)
            return _Image(image.index, image.pixels, tiling.split(values))

        n = self._n_threads
        with (
            ThreadPoolExecutor(1) as reading,
            ThreadPoolExecutor(1) as preparing,
            ThreadPoolExecutor(n) as labelling,
        ):
            blocks = map_ordered(read, ranges, pool=reading, depth=1)
            images = (image for block in blocks for image in block)
            prepared = map_ordered(prepare, images, pool=preparing, depth=2 * n + 2)
            predicted = self._network.predict(prepared, tiling)
            yield from map_ordered(
                self._count, predicted, pool=labelling, depth=2 * n + 2
            )

    @property
    def _not_finite(self) -> str:
        return (
            f"the network's output is not finite in {self.compute.precision}; set "
            "inference.precision=float32 or another preprocess.normalisation"
        )

    def _count(self, predicted: tuple[_Image, NDArray[np.float32] | None]) -> ImageRow:
        image, probability = predicted
        if image.pixels is None or probability is None:
            return ImageRow(image.index, None, image.reason)
        # One NaN makes the maximum NaN.
        if not np.isfinite(probability.max()):
            return ImageRow(image.index, None, self._not_finite)
        labels = label_nuclei(probability, self._instances)
        return ImageRow(image.index, summarise(image.pixels, probability, labels))


def _read_images(reader: Reader, start: int, stop: int) -> list[_Image]:
    """Read a range; where it is damaged, whatever single images can be read."""
    try:
        block = reader.read(start, stop)
    except ArchiveError as error:
        if stop - start > 1:
            return [
                image
                for index in range(start, stop)
                for image in _read_images(reader, index, index + 1)
            ]
        return [_Image(start, None, reason=error.reason)]
    return [_Image(start + offset, image) for offset, image in enumerate(block)]


@functools.lru_cache(maxsize=1)
def get_engine(root: Path, plan: str, n_threads: int) -> Engine:
    """Get the engine of this process: the network is loaded once.

    Parameters
    ----------
    root : Path
        The run directory.
    plan : str
        Identity of the plan that is to be computed.
    n_threads : int

    Raises
    ------
    RunError
        Another command has planned the directory anew.
    """
    engine = Engine(CountRun(root), n_threads=n_threads)
    if engine.plan.identity != plan:
        raise RunError(
            f"{root} was planned anew by another command; use another --run for one of "
            "the two"
        )
    return engine


def compute_shard(root: Path, plan: str, number: int, n_threads: int) -> ShardResult:
    """Compute a shard in a worker process, which keeps its network between calls."""
    return get_engine(root, plan, n_threads).compute_shard(number)
