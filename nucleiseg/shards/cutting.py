"""Cutting one dataset into shards: ranges of images, or blocks of large ones."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nucleiseg.archives import DatasetInfo
from nucleiseg.config import Config
from nucleiseg.shards.entries import Rows, make_rows, split_rows
from nucleiseg.tiling import Tiling

# A shard on a GPU, of a network with one base filter: the work that a pixel takes grows
# with them. With 64 2**31: one to three minutes at 10 to 40 million pixels a second.
_GPU_PIXELS = 2**37
# On a CPU it grows with their square. With 64 2**22, with 16 2**26: of 128x128 px 256
# and 4,096 images, one minute on two cores without AMX. At the end of each such cores
# wait for the last batch, half a second altogether; and it has to end within the
# warning before a job's time limit.
_CPU_PIXELS = 2**34
_MOST_CPU_PIXELS = 2**29
# Below this, starting a shard (ledger, partial table, opening its archive) shows.
_LEAST_PIXELS = 2**20
# Shards a worker, at least, so that all of them end at about the same time; of a worker
# that is alone, so that not much is lost when it ends early. At the end of each its
# cores stand still for some hundredths of a second.
_SHARDS_PER_WORKER = 6
_SHARDS_OF_ONE = 4
# A worker keeps the label images of a shard until it is done: 0.04 bytes a pixel,
# packed, and three times as many while they are written.
_MOST_LABELLED_PIXELS = 2**30
# Shards of many images hold whole rounds of batches: on two cores with batches of 32,
# on eight with 8. After any other number some cores stand still, and a batch is
# padded: a count of 2,048 images in shards of 341 reached .90 of the bare network, of
# 320 .94 (two cores, 16 base filters, 128x128 px).
_ROUND_IMAGES = 64
# How large a block is, of the largest image that is not cut: so that it takes as much
# memory as that one, though what lies around it is read and predicted, too. Blocks of
# three quarters took 8 % more (30,000 against 4,000 px a side), of two thirds 3 %.
_BLOCK_SHARE = 0.66
# How much longer than wished a shard may get so that it holds a whole chunk.
_MOST_GROWTH = 8


@dataclass(frozen=True)
class ShardSize:
    """How large a shard is wished to be: in images, or else in pixels."""

    images: int | None
    pixels: int

    def images_of(self, info: DatasetInfo) -> int:
        """Images in each shard of a dataset but the last.

        Where a chunk of an HDF5 dataset spans several images, shards begin and end
        with chunks, so that no chunk is inflated for two of them; a chunk that is
        longer than the wished shard makes it grow, up to eight times:

            chunks   |-----|-----|-----|-----|-----|---|
            wished   |.............|                        2 1/3 chunks
            shards   |-----------|-----------|---------|    2 chunks
        """
        height, width = info.image_shape
        wished = self.images or _round(max(1, self.pixels // (height * width)))
        chunk = info.chunk_images
        if wished >= chunk:
            return wished // chunk * chunk
        return chunk if chunk <= _MOST_GROWTH * wished else wished


def _round(n_images: int) -> int:
    """Take off a number of images, if it is not small, what makes no whole round."""
    if n_images < 2 * _ROUND_IMAGES:
        return n_images
    return n_images // _ROUND_IMAGES * _ROUND_IMAGES


def choose_pixels(
    n_pixels: int,
    *,
    n_workers: int,
    device: str,
    base_filters: int,
    views: int = 1,
    labels: bool = False,
) -> int:
    """Choose pixels a shard, where nobody has set them.

    Parameters
    ----------
    n_pixels : int
        Of all images of the run.
    n_workers : int
        That are expected; 0, none but this process, is as good as 1.
    device : {"auto", "cpu", "gpu"}
    base_filters : int
        Of the network.
    views : int
        Of an image that the network sees.
    labels : bool
        Whether label images are made, too.

    Returns
    -------
    int
        One to three minutes of work on a GPU, one at most on most CPUs, or less
        where workers would get fewer than six shards each, or one that is alone four,
        but no less than 2**20; with labels no more than 2**30.
    """
    wished = min(_CPU_PIXELS // base_filters**2, _MOST_CPU_PIXELS)
    if device == "gpu":
        wished = _GPU_PIXELS // base_filters
    wished //= views
    if labels:
        wished = min(wished, _MOST_LABELLED_PIXELS)
    n_shards = _SHARDS_PER_WORKER * n_workers if n_workers > 1 else _SHARDS_OF_ONE
    share = n_pixels // n_shards
    return max(_LEAST_PIXELS, min(wished, share))


def cut(info: DatasetInfo, size: ShardSize, config: Config) -> Rows:
    """Cut a dataset into shards.

    Returns
    -------
    (N,) ndarray of ROW
        In the order of images and, within a large one, of its blocks; archive,
        dataset and shard number are left to the caller.
    """
    corners = _find_blocks(info.image_shape, config)
    is_large = len(corners) > 1
    step = 1 if is_large else size.images_of(info)
    starts = np.arange(0, info.n_images, step)
    rows = make_rows(len(starts))
    rows["start"] = starts
    rows["stop"] = np.minimum(starts + step, info.n_images)
    rows["height"], rows["width"] = info.image_shape
    return split_rows(rows, corners) if is_large else rows


def _find_blocks(image_shape: tuple[int, int], config: Config) -> NDArray[np.int64]:
    """Corners of the blocks of an image, (N, 4); none where it is not too large."""
    height, width = image_shape
    max_pixels = config.shards.block_pixels
    if height * width <= max_pixels:
        return np.empty((0, 4), dtype=np.int64)
    settings = config.inference
    tiling = Tiling(
        image_shape, tile_px=settings.tile_px, context_px=settings.context_px
    )
    cores = [block.core for block in tiling.blocks(int(max_pixels * _BLOCK_SHARE))]
    return np.array(
        [
            (rows.start, columns.start, rows.stop, columns.stop)
            for rows, columns in cores
        ],
        dtype=np.int64,
    )
