"""One worker process: the network, loaded once, and shards going through it.

    read -> normalise and cut -> network -> label and count -> rows
    1 thread     1 thread       n threads      n threads

On a CPU each network call runs in one thread, and as many calls at once as the worker
has cores. That is as fast as many threads in one call, and the bits of a probability
map do not depend on how many cores a worker got.
"""

import functools
import logging
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from nucleiseg.archives import Reader, fingerprint, open_reader
from nucleiseg.bundle import read_bundle
from nucleiseg.config import load_config
from nucleiseg.devices import import_tensorflow
from nucleiseg.errors import ArchiveError, BundleError
from nucleiseg.inference.compute import choose_compute
from nucleiseg.inference.pipeline import map_ordered
from nucleiseg.instances import label_nuclei, summarise
from nucleiseg.model import load_network
from nucleiseg.preprocess import normalise
from nucleiseg.report import save_montage, save_prediction, save_soft_prediction
from nucleiseg.runs import CountRun, create_private, read_json
from nucleiseg.shards import Entry, read_plan
from nucleiseg.tables import ImageRow, read_partial, write_partial
from nucleiseg.tiling import Tiling

logger = logging.getLogger(__name__)

# Pixels read at once: 64 images of 128x128, and never less than one image.
_READ_PIXELS = 2**20

_OVERVIEW_PICTURES = 9


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
        _limit_threads(n_threads)
        self.compute = choose_compute(run, self.config.inference)
        if self.compute.device == "cpu":
            # A GPU that is visible would be used all the same.
            import_tensorflow().config.set_visible_devices([], "GPU")
        model = read_bundle(Path(read_json(run.manifest)["model"]))
        if model.identity != self.plan.settings["model"]:
            raise BundleError(
                f"model bundle {model.paths.root} has changed since run {run.root} was "
                "planned; use another --run for the new model"
            )
        self._network = load_network(model, precision=self.compute.precision)
        self._functions: dict[tuple[int, int, int], Any] = {}
        self._lock = threading.Lock()
        self._n_threads = n_threads
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
        rows = self._compute_rows(shard)
        write_partial(self.run, self.plan, shard, rows, compute=self.compute.identity)
        return ShardResult(
            number,
            len(rows),
            sum(row.summary is None for row in rows),
            time.monotonic() - start_s,
            False,
        )

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
        tiling = self._tiling((height, width))
        tiles = tiling.split(normalise(pixels, self.config.preprocess))
        size = self.compute.batch_shape(tiling.tile_shape)[0]
        outputs: list[NDArray[np.float32]] = []
        for first in range(0, len(tiles), size):
            outputs += self._run_network(tiles[first : first + size])
        probability = tiling.join(outputs)
        return probability, label_nuclei(probability, self.config.instances)

    def _tiling(self, image_shape: tuple[int, int]) -> Tiling:
        return Tiling(
            image_shape,
            tile_px=self.compute.tile_px,
            context_px=self.compute.context_px,
        )

    def _compute_rows(self, shard: Entry) -> list[ImageRow]:
        try:
            reader = self._open(shard)
        except ArchiveError as error:
            return [
                ImageRow(index, None, error.reason)
                for index in range(shard.start, shard.stop)
            ]
        return list(self._stream(shard, reader))

    def _open(self, shard: Entry) -> Reader:
        """Open a shard's dataset, or go on with the reader that is open.

        Shards come in order, and a deflated member can only be read forwards: a new
        reader for each shard would inflate it from the start each time.
        """
        archive = self.plan.archives[shard.archive]
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
        tiling = self._tiling(shard.image_shape)
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
                values = normalise(image.pixels, self.config.preprocess)
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
            predicted = self._predict(prepared, tiling)
            yield from map_ordered(
                self._count, predicted, pool=labelling, depth=2 * n + 2
            )

    def _predict(
        self, images: Iterator[_Image], tiling: Tiling
    ) -> Iterator[tuple[_Image, NDArray[np.float32] | None]]:
        """Pool the tiles of all images into batches, and give back whole maps."""
        size = self.compute.batch_shape(tiling.tile_shape)[0]
        waiting: deque[_Image] = deque()
        outputs: deque[NDArray[np.float32]] = deque()

        def batches() -> Iterator[list[NDArray[np.float32]]]:
            batch: list[NDArray[np.float32]] = []
            for image in images:
                waiting.append(image)
                for tile in image.tiles:
                    batch.append(tile)
                    if len(batch) == size:
                        yield batch
                        batch = []
            if batch:
                yield batch

        def finished() -> Iterator[tuple[_Image, NDArray[np.float32] | None]]:
            while waiting and len(waiting[0].tiles) <= len(outputs):
                image = waiting.popleft()
                parts = [outputs.popleft() for _ in image.tiles]
                yield image, tiling.join(parts) if parts else None

        with ThreadPoolExecutor(self._n_threads) as pool:
            for output in map_ordered(
                self._run_network, batches(), pool=pool, depth=self._n_threads
            ):
                outputs.extend(output)
                yield from finished()
        yield from finished()

    def _run_network(
        self, tiles: Sequence[NDArray[np.float32]]
    ) -> list[NDArray[np.float32]]:
        """Run one batch, padded to its fixed shape with zeros."""
        height, width = tiles[0].shape
        shape = self.compute.batch_shape((height, width))
        batch = np.zeros((*shape, 1), dtype=np.float32)
        for position, tile in enumerate(tiles):
            batch[position, ..., 0] = tile
        output = self._function(shape)(import_tensorflow().constant(batch)).numpy()
        return list(output[: len(tiles), ..., 0])

    def _function(self, shape: tuple[int, int, int]) -> Any:
        """Compiled network for one batch shape: traced once, never again."""
        with self._lock:
            if shape not in self._functions:
                tensorflow = import_tensorflow()
                signature = tensorflow.TensorSpec((*shape, 1), tensorflow.float32)
                network = self._network
                self._functions[shape] = tensorflow.function(
                    lambda batch: network(batch, training=False)
                ).get_concrete_function(signature)
            return self._functions[shape]

    def _count(self, predicted: tuple[_Image, NDArray[np.float32] | None]) -> ImageRow:
        image, probability = predicted
        if image.pixels is None or probability is None:
            return ImageRow(image.index, None, image.reason)
        labels = label_nuclei(probability, self.config.instances)
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


def _limit_threads(n_threads: int) -> None:
    """One thread a network call, and as many calls at once as there are cores."""
    cv2.setNumThreads(1)
    threading_options = import_tensorflow().config.threading
    try:
        threading_options.set_intra_op_parallelism_threads(1)
        threading_options.set_inter_op_parallelism_threads(max(2, n_threads))
    except RuntimeError:
        # TensorFlow has computed in this process before, with its own threads: the
        # results are the same, only slower.
        logger.info("TensorFlow is running already; its threads stay as they are")


@functools.lru_cache(maxsize=1)
def _engine(root: Path, n_threads: int) -> Engine:
    return Engine(CountRun(root), n_threads=n_threads)


def compute_shard(root: Path, number: int, n_threads: int) -> ShardResult:
    """Compute a shard in a worker process, which keeps its network between calls."""
    return _engine(root, n_threads).compute_shard(number)


def draw_pictures(root: Path, picks: Sequence[tuple[int, int]], n_threads: int) -> int:
    """Draw predictions over their images into the run's pictures.

    Parameters
    ----------
    root : Path
        The run directory.
    picks : sequence of (shard, index)
        Index of the image in its dataset.
    n_threads : int

    Returns
    -------
    int
        Predictions drawn; an image that cannot be read has none. `overview.png` has
        the first nine of them side by side.
    """
    engine = _engine(root, n_threads)
    folder = engine.run.pictures
    create_private(folder)
    n_drawn = 0
    overview: list[tuple[NDArray[Any], NDArray[Any], str]] = []
    for number, index in picks:
        shard = engine.plan.shards[number]
        archive = engine.plan.archives[shard.archive]
        name = f"{archive.name}-{shard.dataset}-{index:06d}".replace("/", "_")
        try:
            with open_reader(archive.path, str(shard.dataset)) as reader:
                pixels = reader.read(index, index + 1)[0]
            probability, labels = engine.predict_image(pixels)
        except ArchiveError as error:
            logger.warning("no picture of image %d: %s", index, error)
            continue
        save_prediction(
            folder / f"{name}.png",
            pixels,
            probability,
            labels,
            count=int(labels.max(initial=0)),
            title=f"{archive.name} · {shard.dataset} · {index}",
        )
        if engine.config.table.format == "notebook":
            save_soft_prediction(folder, pixels, probability, name=name)
        n_drawn += 1
        if len(overview) < _OVERVIEW_PICTURES:
            overview.append((pixels, labels, f"{shard.dataset} · {index}"))
    if len(overview) > 1:
        save_montage(folder / "overview.png", overview)
    return n_drawn
