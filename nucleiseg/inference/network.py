"""The network at work: tiles in, whole probability maps out, in batches of one shape.

On a CPU each network call runs in one thread, and as many calls at once as the worker
has cores. That is as fast as many threads in one call, and the bits of a probability
map do not depend on how many cores a worker got.
"""

import logging
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nucleiseg.bundle import BundleInfo
from nucleiseg.devices import explain_exhaustion, import_tensorflow
from nucleiseg.errors import NucleisegError
from nucleiseg.inference.compute import Compute
from nucleiseg.inference.pieces import Piece
from nucleiseg.inference.pipeline import map_ordered
from nucleiseg.inference.times import StageTimes, Standstill
from nucleiseg.inference.trying import find_batch_pixels, measure_calls
from nucleiseg.model import load_network
from nucleiseg.tiling import Tiling

logger = logging.getLogger(__name__)

# How much faster XLA must be to be taken: less is noise.
_LEAST_GAIN = 1.03

Batch = NDArray[np.float32]
"""(n, height, width), in the shape of the network's batches or shorter."""

Maps = NDArray[np.float32]
"""(n, height, width, C), in [0, 1], that the network gives of a batch."""


class TiledNetwork:
    """A bundle's network, compiled once for each batch shape.

    Parameters
    ----------
    model : BundleInfo
    compute : Compute
        Device, precision and batch shape.
    n_threads : int
        Cores to keep busy.
    views : {1, 2, 4}
        Views of an image that its maps are the mean of.
    """

    def __init__(
        self, model: BundleInfo, compute: Compute, *, n_threads: int, views: int = 1
    ) -> None:
        _set_up_tensorflow(compute, n_threads)
        self._network = load_network(model, precision=compute.precision, views=views)
        self._compute = compute
        # A GPU computes one call at a time; the second is on its way to it.
        self._n_calls = n_threads if compute.device == "cpu" else 2
        self._functions: dict[tuple[int, int, int], Any] = {}
        self._lock = threading.Lock()

    def bind(self, compute: Compute) -> bool:
        """Take what was measured, by whoever; say whether nothing else differs."""
        is_alike = (
            replace(self._compute, batch_pixels=compute.batch_pixels, xla=compute.xla)
            == compute
        )
        if is_alike:
            self._use(compute)
        return is_alike

    def _use(self, compute: Compute) -> None:
        if compute.xla != self._compute.xla:
            self._functions.clear()
        self._compute = compute

    def measure(self, tile_shape: tuple[int, int]) -> Compute:
        """Find the size of batches by trying, where it is not set.

        Parameters
        ----------
        tile_shape : (int, int)
            Of the tiles that most of the run's pixels lie in.

        Returns
        -------
        Compute
            The setting of this network, completed.
        """
        if self._compute.batch_size is None:
            pixels = find_batch_pixels(
                lambda n_tiles: self._measure((n_tiles, *tile_shape)),
                tile_shape,
                self._compute.device,
            )
            self._use(replace(self._compute, batch_pixels=pixels))
        return self._compute

    def try_xla(self, tile_shape: tuple[int, int]) -> Compute:
        """Take XLA where it is faster than TensorFlow's own kernels.

        Measured on a CPU (16 base filters, TensorFlow 2.21): 25.7 images/s with and
        26.3 without it, float32; it is tried on GPUs only.
        """
        shape = self.batch_shape(tile_shape)
        without = self._measure(shape)
        plain, with_xla = self._compute, replace(self._compute, xla=True)
        self._use(with_xla)
        try:
            rate = self._measure(shape)
        except (RuntimeError, import_tensorflow().errors.OpError) as error:
            # New cards are often too new for it.
            logger.warning("XLA cannot compile the network here: %s", error)
            rate = 0.0
        logger.info("with XLA %.0f tiles/s, without %.0f", rate, without)
        if rate < _LEAST_GAIN * without:
            self._use(plain)
        return self._compute

    def _measure(self, shape: tuple[int, int, int]) -> float:
        """Tiles a second in batches of a shape."""
        function = self._compiled(shape)
        batch = import_tensorflow().constant(np.zeros((*shape, 1), np.float32))

        def call(_: object) -> None:
            function(batch).numpy()

        return shape[0] * measure_calls(call, self._n_calls)

    @property
    def not_finite(self) -> str:
        """What to say where the output is not finite."""
        return (
            f"the network's output is not finite in {self._compute.precision}; set "
            "inference.precision=float32 or another preprocess.normalisation"
        )

    def warm_up(self, tile_shape: tuple[int, int]) -> None:
        """Compile the network for a shape of tiles, and run it once."""
        try:
            self.run(np.zeros((1, *tile_shape), np.float32))
        except import_tensorflow().errors.OpError as error:
            if not self._compute.xla:
                raise
            words = " ".join(str(error).split())[:160]
            raise NucleisegError(
                f"XLA cannot compile the network here ({words}); use another --run "
                "with inference.xla=false"
            ) from error

    def tiling(self, image_shape: tuple[int, int]) -> Tiling:
        """How images of a shape are cut for this network."""
        return Tiling(
            image_shape,
            tile_px=self._compute.tile_px,
            context_px=self._compute.context_px,
        )

    def predict(
        self, pieces: Iterable[Piece], times: StageTimes | None = None
    ) -> Iterator[Piece]:
        """Pool the tiles of all pieces into batches of one shape.

        Parameters
        ----------
        pieces : iterable of Piece
            With `tiles`, all of one shape; taken as there is room.
        times : StageTimes, optional
            Takes up how long the network stood still.

        Yields
        ------
        Piece
            In their order, with `outputs` in place of `tiles`.
        """
        clock = Standstill(StageTimes() if times is None else times)
        filling: deque[Piece] = deque()
        n_filled = 0

        def batches() -> Iterator[Batch]:
            size = 0
            rest: list[Batch] = []
            for piece in clock.watch(iter(pieces)):
                tiles = piece.tiles
                assert tiles is not None
                size = size or self.batch_shape(tiles.shape[1:])[0]
                filling.append(piece)
                position = 0
                if rest:
                    position = size - sum(map(len, rest))
                    rest.append(tiles[:position])
                    if sum(map(len, rest)) < size:
                        continue
                    yield np.concatenate(rest)
                    rest = []
                while position + size <= len(tiles):
                    yield tiles[position : position + size]
                    position += size
                if position < len(tiles):
                    rest = [tiles[position:]]
            if rest:
                yield np.concatenate(rest)

        with ThreadPoolExecutor(self._n_calls) as pool:
            run = clock.around(self.run)
            for output in map_ordered(
                run, batches(), pool=pool, depth=2 * self._n_calls
            ):
                while len(output):
                    piece = filling[0]
                    if piece.outputs is None:
                        assert piece.tiles is not None
                        shape = (len(piece.tiles), *output.shape[1:])
                        piece.outputs = np.empty(shape, dtype=np.float32)
                    room = len(piece.outputs) - n_filled
                    fitting, output = output[:room], output[room:]
                    piece.outputs[n_filled : n_filled + len(fitting)] = fitting
                    n_filled += len(fitting)
                    if n_filled == len(piece.outputs):
                        n_filled = 0
                        piece.tiles = None
                        yield filling.popleft()
        clock.note()

    def predict_tiles(self, tiles: Batch) -> Maps:
        """Predict tiles of one shape, however many."""
        piece = Piece(0, tiles, tiles=tiles)
        (piece,) = self.predict([piece])
        assert piece.outputs is not None
        return piece.outputs

    def batch_shape(self, tile_shape: tuple[int, ...]) -> tuple[int, int, int]:
        """Tiles, height and width of a batch."""
        height, width = tile_shape
        return self._compute.batch_shape((height, width))

    def run(self, tiles: Batch) -> Maps:
        """Run one batch, padded to its fixed shape with zeros.

        Parameters
        ----------
        tiles : (n, height, width) float32 ndarray
            No more than a batch.

        Returns
        -------
        (n, height, width, C) float32 ndarray, in [0, 1]
        """
        shape = self.batch_shape(tiles.shape[1:])
        batch = tiles
        if len(tiles) < shape[0]:
            batch = np.zeros(shape, dtype=np.float32)
            batch[: len(tiles)] = tiles
        constant = import_tensorflow().constant
        with explain_exhaustion():
            output = self._compiled(shape)(constant(batch[..., np.newaxis])).numpy()
        return np.asarray(output[: len(tiles)], dtype=np.float32)

    def _compiled(self, shape: tuple[int, int, int]) -> Any:
        """Compiled network for one batch shape: traced once, never again."""
        with self._lock:
            if shape not in self._functions:
                tensorflow = import_tensorflow()
                signature = tensorflow.TensorSpec((*shape, 1), tensorflow.float32)
                network = self._network
                self._functions[shape] = tensorflow.function(
                    lambda batch: network(batch, training=False),
                    jit_compile=self._compute.xla,
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
