"""One image by itself, predicted as it is within its shard."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from nucleiseg.config import InstancesConfig, PreprocessConfig
from nucleiseg.errors import ArchiveError
from nucleiseg.inference.network import TiledNetwork
from nucleiseg.inference.pieces import Piece, join, prepare
from nucleiseg.instances import label_nuclei, restore_maps, segment_rescaled
from nucleiseg.preprocess import scaled_shape


def predict_image(
    network: TiledNetwork,
    pixels: NDArray[Any],
    preprocess: PreprocessConfig,
    instances: InstancesConfig,
    *,
    scale: float,
) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """Predict and label one image.

    Parameters
    ----------
    network : TiledNetwork
    pixels : (H, W) ndarray
        As stored.
    preprocess : PreprocessConfig
    instances : InstancesConfig
    scale : float
        By how much the network sees it enlarged.

    Returns
    -------
    maps : (H, W, C) float32 ndarray, in [0, 1]
        The network's output: foreground probability, and marker map where C = 2.
    labels : (H, W) int32 ndarray
        0 = background, 1…n = nuclei.

    Raises
    ------
    ArchiveError
        It cannot be normalised, or the network's output is not finite.
    """
    height, width = pixels.shape
    tiling = network.tiling(scaled_shape((height, width), scale))
    piece = prepare(Piece(0, pixels[np.newaxis]), preprocess, tiling)
    if piece.reasons:
        raise ArchiveError(piece.reasons[0])
    (piece,) = network.predict([piece])
    maps = join(piece, tiling)[0]
    if not np.isfinite(maps.max()):
        raise ArchiveError(network.not_finite)
    if maps.shape[:2] == pixels.shape:
        return maps, label_nuclei(maps, instances)
    labels, _ = segment_rescaled(pixels, maps, instances)
    return restore_maps(maps, pixels.shape), labels
