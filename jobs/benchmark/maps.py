"""Maps to label, and the network that they come from or that would give such ones."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import h5py
import numpy as np
from numpy.typing import NDArray

from jobs.benchmark.archives import data_folder
from nucleiseg import synthetic
from nucleiseg.archives import find_images, open_reader, split_name
from nucleiseg.bundle import BundleInfo, read_bundle, write_info
from nucleiseg.config import Config, ModelConfig
from nucleiseg.inference.network import TiledNetwork
from nucleiseg.inference.pieces import divide, join, prepare, read_piece
from nucleiseg.model import build_unet, save_weights
from nucleiseg.runs import Bundle

_N_DRAWN = 40
_BLUR_PX = 1.0
_NOISE_PX = 2.0
_NOISE = 0.05
# Of images of one side, where the real data are: a file, and a dataset in it.
_REAL = {
    128: ("X_and_labels.npz", "y"),
    256: ("dsb2018_fluo.h5", "val/256x256/labels"),
    520: ("dsb2018_fluo.h5", "val/520x696/labels"),
}

Maps = NDArray[np.float32]


@dataclass(frozen=True)
class Material:
    """Images of one shape, and what a network says of them."""

    name: str
    images: NDArray[Any]
    """(n, H, W), as stored."""
    maps: Maps
    """(n, H, W, C), in [0, 1]."""
    tiles: NDArray[np.float32]
    """(n, height, width): what the network computes of these images or of some."""
    tiles_per_image: int


def find_material(
    name: str | None,
    sides: list[int],
    limit: int,
    model: BundleInfo,
    network: TiledNetwork,
) -> Iterator[Material]:
    """Give the model's own maps of a dataset, or, without one, maps made of labels."""
    if name is not None:
        yield predict_maps(name, limit, model, network)
        return
    for side_px in sides:
        kind, labels = find_labels(side_px, limit)
        rng = np.random.default_rng(0)
        maps = np.stack([make_maps(label_image, rng) for label_image in labels])
        # What the pixels are does not matter to the time that the network takes.
        images = maps[..., 0]
        tiling = network.tiling(images.shape[1:])
        yield Material(
            f"{kind} {images.shape[1]}x{images.shape[2]}",
            (255 * images).astype(np.uint8),
            maps,
            tiling.split_stack(images),
            len(tiling.tiles),
        )


def predict_maps(
    name: str, limit: int, model: BundleInfo, network: TiledNetwork
) -> Material:
    """Predict the first images of a dataset."""
    path, key = split_name(name)
    info = find_images(path, key)[0]
    tiling = network.tiling(info.image_shape)
    height, width = info.image_shape
    n_images = min(limit, info.n_images)
    with open_reader(path, info.key) as reader:
        ranges = divide(0, n_images, image_pixels=height * width, multiple=2)
        pieces = [
            prepare(read_piece(reader, *limits), model.preprocess, tiling)
            for limits in ranges
        ]
    tiles = np.concatenate([piece.tiles for piece in pieces if piece.tiles is not None])
    maps = [join(piece, tiling) for piece in network.predict(pieces)]
    return Material(
        f"{path.name}:{info.key}",
        np.concatenate([piece.pixels for piece in pieces]),
        np.concatenate(maps),
        tiles,
        len(tiling.tiles),
    )


def find_labels(side_px: int, limit: int) -> tuple[str, Iterable[NDArray[Any]]]:
    """Take label images of a size from the real data, or draw some."""
    file_name, key = _REAL.get(side_px, ("", ""))
    path = data_folder() / file_name
    if not path.is_file():
        n_drawn = min(limit, _N_DRAWN)
        shape = (side_px, side_px)
        return "drawn", synthetic.draw_fields(n_drawn, shape, seed=1)[1]
    if path.suffix == ".npz":
        with np.load(path) as archive:
            return "real", archive[key][:limit]
    with h5py.File(path, "r") as file:
        return "real", file[key][:limit]


def make_maps(labels: NDArray[Any], rng: np.random.Generator) -> Maps:
    """Make the maps of an image that a network like ours would, about.

    Parameters
    ----------
    labels : (H, W) integer ndarray
        0 = background, 1…n = nuclei.
    rng : Generator
        Of the noise.

    Returns
    -------
    (H, W, 2) float32 ndarray, in [0, 1]
        Foreground, and the distance from each nucleus' edge over its largest.
    """
    labels = np.asarray(labels).astype(np.int64)
    # Pixels with another label beside them are edge.
    is_edge = np.zeros(labels.shape, dtype=np.bool_)
    for axis in (0, 1):
        differs = np.diff(labels, axis=axis) != 0
        margins = [(0, 0), (0, 0)]
        for margin in ((1, 0), (0, 1)):
            margins[axis] = margin
            is_edge |= np.pad(differs, margins)
    inside = ((labels > 0) & ~is_edge).astype(np.uint8)
    depth = cv2.distanceTransform(inside, cv2.DIST_L2, cv2.DIST_MASK_5) + 0.5
    deepest = np.zeros(labels.max(initial=0) + 1, dtype=np.float32)
    np.maximum.at(deepest, labels, depth)
    maps = np.stack([labels > 0, (labels > 0) * depth / deepest[labels]], axis=-1)
    maps = cv2.GaussianBlur(maps.astype(np.float32), (0, 0), _BLUR_PX)
    noise = rng.standard_normal(maps.shape, dtype=np.float32)
    noise = cv2.GaussianBlur(noise, (0, 0), _NOISE_PX)
    return np.asarray((maps + noise * (_NOISE / noise.std())).clip(0, 1))


def make_bundle(folder: Path, base_filters: int, head: str) -> BundleInfo:
    """Make a bundle of a network that has learnt nothing."""
    settings = ModelConfig.model_validate({"base_filters": base_filters, "head": head})
    config = Config(model=settings)
    bundle = Bundle(folder / "model")
    bundle.root.mkdir()
    save_weights(bundle, settings, build_unet(settings).get_weights())
    write_info(bundle, config, training={"epochs": 0}, scores={})
    return read_bundle(bundle.root)
