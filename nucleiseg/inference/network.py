"""The network at work: tiles in, whole probability maps out, in batches of one shape.

On a CPU each network call runs in one thread, and as many calls at once as the worker
has cores. That is as fast as many threads in one call, and the bits of a probability
map do not depend on how many cores a worker got.
"""

import logging
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from nucleiseg.bundle import BundleInfo
from nucleiseg.devices import explain_exhaustion, import_tensorflow
from nucleiseg.errors import NucleisegError
from nucleiseg.inference.compute import Compute
from nucleiseg.inference.pipeline import map_ordered
from nucleiseg.model import load_network
from nucleiseg.tiling import Tiling

logger = logging.getLogger(__name__)

Tile = NDArray[np.float32]


class Tiled(Protocol):
    """An image that was cut into tiles; without any, there is nothing to predict."""

    @property
    def tiles(self) -> Sequence[Tile]:
        """Tiles in the order of their tiling."""


Image = TypeVar("Image", bound=Tiled)


class TiledNetwork:
    """A bundle's network, compiled once for each batch shape.

    Parameters
    ----------
    model : BundleInfo
    compute : Compute
        Device, precision and batch shape.
    n_threads : int
        Cores to keep busy.
    """

    def __init__(self, model: BundleInfo, compute: Compute, *, n_threads: int) -> None:
        _set_up_tensorflow(compute, n_threads)
        self._network = load_network(model, precision=compute.precision)
        self._compute = compute
        # A GPU computes one call at a time; the second is on its way to it.
        self._n_calls = n_threads if compute.device == "cpu" else 2
        self._functions: dict[tuple[int, int, int], Any] = {}
        self._lock = threading.Lock()

    def tiling(self, image_shape: tuple[int, int]) -> Tiling:
        """How images of a shape are cut for this network."""
        return Tiling(
            image_shape,
            tile_px=self._compute.tile_px,
            context_px=self._compute.context_px,
        )

    def predict(
        self, images: Iterable[Image], tiling: Tiling
    ) -> Iterator[tuple[Image, NDArray[np.float32] | None]]:
        """Pool the tiles of all images into batches, and give back whole maps.

        Parameters
        ----------
        images : iterable
            With `tiles`; taken as there is room.
        tiling : Tiling
            The one they were cut by.

        Yields
        ------
        image
            In their order.
        probability : (H, W) float32 ndarray, in [0, 1], or None
            None for an image without tiles.
        """
        size = self._compute.batch_shape(tiling.tile_shape)[0]
        waiting: deque[Image] = deque()
        outputs: deque[Tile] = deque()

        def batches() -> Iterator[list[Tile]]:
            batch: list[Tile] = []
            for image in images:
                waiting.append(image)
                for tile in image.tiles:
                    batch.append(tile)
                    if len(batch) == size:
                        yield batch
                        batch = []
            if batch:
                yield batch

        def finished() -> Iterator[tuple[Image, NDArray[np.float32] | None]]:
            while waiting and len(waiting[0].tiles) <= len(outputs):
                image = waiting.popleft()
                parts = [outputs.popleft() for _ in image.tiles]
                yield image, tiling.join(parts) if parts else None

        with ThreadPoolExecutor(self._n_calls) as pool:
            for output in map_ordered(
                self._run, batches(), pool=pool, depth=self._n_calls
            ):
                outputs.extend(output)
                yield from finished()
        yield from finished()

    def _run(self, tiles: Sequence[Tile]) -> list[Tile]:
        """Run one batch, padded to its fixed shape with zeros."""
        height, width = tiles[0].shape
        shape = self._compute.batch_shape((height, width))
        batch = np.zeros((*shape, 1), dtype=np.float32)
        for position, tile in enumerate(tiles):
            batch[position, ..., 0] = tile
        with explain_exhaustion():
            output = self._compiled(shape)(import_tensorflow().constant(batch)).numpy()
        return list(output[: len(tiles), ..., 0])

    def _compiled(self, shape: tuple[int, int, int]) -> Any:
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


def _set_up_tensorflow(compute: Compute, n_threads: int) -> None:
    config = import_tensorflow().config
    if compute.device == "cpu":
        _hide_gpus()
    else:
        # The same bits from every worker: no algorithms chosen by timing them, and no
        # rounding to 10 bits that calls itself float32.
        config.experimental.enable_op_determinism()
        config.experimental.enable_tensor_float_32_execution(False)
    try:
        config.threading.set_intra_op_parallelism_threads(1)
        config.threading.set_inter_op_parallelism_threads(max(2, n_threads))
    except RuntimeError:
        # TensorFlow has computed in this process before, with its own threads: the
        # results are the same, only slower.
        logger.info("TensorFlow is running already; its threads stay as they are")


def _hide_gpus() -> None:
    """Keep TensorFlow off a GPU that is visible: it would be used all the same."""
    config = import_tensorflow().config
    try:
        config.set_visible_devices([], "GPU")
    except RuntimeError as error:
        if config.get_visible_devices("GPU"):
            raise NucleisegError(
                "this run computes on the CPU, and TensorFlow holds a GPU in this "
                "process already; use --workers 1, or set CUDA_VISIBLE_DEVICES=-1"
            ) from error
