"""A shard's images through all stages at once.

    read -> normalise and cut -> network -> label and count -> rows
    1 thread     n threads      n threads      1 to n, by size

The bounded room between the stages lets all of them run at once in flat memory.
"""

import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nucleiseg.archives import Reader
from nucleiseg.config import InstancesConfig, PreprocessConfig
from nucleiseg.inference.network import TiledNetwork
from nucleiseg.inference.pieces import Piece, divide, join, prepare, read_piece
from nucleiseg.inference.pipeline import map_ordered
from nucleiseg.inference.times import StageTimes
from nucleiseg.instances import count_nuclei, segment_and_measure, segment_nuclei
from nucleiseg.labels import encode
from nucleiseg.preprocess import scaled_shape
from nucleiseg.quality import Calibration
from nucleiseg.shards import Entry
from nucleiseg.tables import ImageRow
from nucleiseg.tiling import Tiling

# Two threads for 256x256 px, eight for 512x512.
_PIXELS_PER_THREAD = 2**15


def count_label_threads(image_pixels: int, n_threads: int) -> int:
    """Count the threads that label images of a size, out of so many cores.

    What is not pixels takes as long in a small image as in a large one, and of it
    Python runs one thread at a time. More threads only take turns, and lose time at
    each: of 128x128 px two labelled 436 images a second where one labels 744, on two
    cores (`python -m jobs.benchmark ceiling --cores 2`, without and with this).
    """
    return max(1, min(n_threads, image_pixels // _PIXELS_PER_THREAD))


class Stream:
    """Counts the images of shards.

    Parameters
    ----------
    network : TiledNetwork
    preprocess : PreprocessConfig
    instances : InstancesConfig
    n_threads : int
        Most threads of each stage but reading.
    labels : bool
        Whether rows hold the label images and what is known of each nucleus, too.
    calibration : Calibration or None
        The model's.
    """

    def __init__(
        self,
        network: TiledNetwork,
        preprocess: PreprocessConfig,
        instances: InstancesConfig,
        *,
        n_threads: int,
        labels: bool = False,
        calibration: Calibration | None = None,
    ) -> None:
        self._network = network
        self._preprocess = preprocess
        self._instances = instances
        self._n_threads = n_threads
        self._has_labels = labels
        self._calibration = calibration

    def count(
        self, shard: Entry, reader: Reader, times: StageTimes, *, scale: float = 1.0
    ) -> Iterator[ImageRow]:
        """Count the images of a shard, in pieces of several.

        Parameters
        ----------
        shard : Entry
        reader : Reader
            Of its dataset.
        times : StageTimes
            Takes up where the time goes.
        scale : float
            By how much the images are enlarged for the network.
        """
        tiling = self._network.tiling(scaled_shape(shard.image_shape, scale))
        ranges = divide(
            shard.start,
            shard.stop,
            image_pixels=max(
                math.prod(shard.image_shape), math.prod(tiling.image_shape)
            ),
            multiple=self._network.batch_shape(tiling.tile_shape)[0],
        )
        n = self._n_threads
        n_labelling = count_label_threads(math.prod(shard.image_shape), n)
        with (
            times.running(),
            ThreadPoolExecutor(1) as reading,
            ThreadPoolExecutor(n) as preparing,
            ThreadPoolExecutor(n_labelling) as labelling,
        ):
            pieces = map_ordered(
                times.timed("read", lambda limits: read_piece(reader, *limits)),
                ranges,
                pool=reading,
                depth=1,
            )
            prepared = map_ordered(
                times.timed(
                    "normalise", lambda piece: prepare(piece, self._preprocess, tiling)
                ),
                pieces,
                pool=preparing,
                depth=n + 1,
            )
            counted = map_ordered(
                times.timed("label", lambda piece: self._count_piece(piece, tiling)),
                self._network.predict(prepared, times),
                pool=labelling,
                depth=n_labelling + 1,
            )
            for rows in counted:
                yield from rows

    def _count_piece(self, piece: Piece, tiling: Tiling) -> list[ImageRow]:
        rows = []
        for position, maps in enumerate(join(piece, tiling)):
            index = piece.start + position
            reason = piece.reasons.get(position)
            rows.append(
                ImageRow(index, None, reason)
                if reason is not None
                else self._count_image(index, piece.pixels[position], maps)
            )
        return rows

    def _count_image(
        self, index: int, pixels: NDArray[Any], maps: NDArray[np.float32]
    ) -> ImageRow:
        labels = packed = None
        arguments = pixels, maps, self._instances
        trust = self._calibration
        try:
            if self._has_labels:
                label_image, summary, nuclei = segment_and_measure(
                    *arguments, calibration=trust
                )
                labels, packed = encode(label_image), nuclei.to_bytes() or None
            elif maps.shape[:2] != pixels.shape:
                # At another scale nuclei are what is left of them at the image's own.
                _, summary = segment_nuclei(*arguments, calibration=trust)
            else:
                summary = count_nuclei(*arguments, calibration=trust)
        except ValueError:
            if np.isfinite(maps.max()):
                raise
            return ImageRow(index, None, self._network.not_finite)
        return ImageRow(index, summary, labels=labels, nuclei=packed)
