"""One image by itself, predicted as it is within its shard."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from nucleiseg.config import InstancesConfig, PreprocessConfig
from nucleiseg.errors import ArchiveError
from nucleiseg.inference.network import TiledNetwork
from nucleiseg.inference.pieces import Piece, join, prepare
from nucleiseg.instances import label_at_size, restore_maps
from nucleiseg.preprocess import scaled_shape


def predict_maps(
    network: TiledNetwork,
    pixels: NDArray[Any],
    preprocess: PreprocessConfig,
    *,
    scale: float,
) -> NDArray[np.float32]:
    """Predict one image.

    Parameters
    ----------
    network : TiledNetwork
    pixels : (H, W) ndarray
        As stored.
    preprocess : PreprocessConfig
    scale : float
        By how much the network sees it enlarged.

    Returns
    -------
    (h, w, C) float32 ndarray, in [0, 1]
        Of the enlarged image: foreground probability, and marker map where C = 2.

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
    (maps,) = join(piece, tiling)
    if not np.isfinite(maps.max()):
        raise ArchiveError(network.not_finite)
    return np.asarray(maps)


def label_maps(
    maps: NDArray[np.float32], shape: tuple[int, ...], instances: InstancesConfig
) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """Label the maps of an image, and bring both to the size it has as stored.

    Parameters
    ----------
    maps : (h, w, C) float32 ndarray, in [0, 1]
    shape : (int, int)
        Of the image as stored.
    instances : InstancesConfig

    Returns
    -------
    maps : (H, W, C) float32 ndarray, in [0, 1]
    labels : (H, W) int32 ndarray
        0 = background, 1…n = nuclei.
    """
    return restore_maps(maps, shape), label_at_size(maps, shape, instances)
