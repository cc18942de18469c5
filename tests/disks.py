"""Images of disks, and a network that knows disks of one size: an oracle of scales."""

import cv2
import numpy as np

WANTED_PX = 26.0
# How much smaller and larger disks the network still knows.
REACH = 1.7


def draw_disks(
    shape, diameter_px, *, spread=1.15, gap=1.6, seed=0, dtype=np.uint16, noise=0.0
):
    """Disks on a jittered grid, of diameters about one, on a dark ground."""
    rng = np.random.default_rng(seed)
    image = np.zeros(shape, dtype=np.float32)
    n_disks = 0
    step = diameter_px * gap
    for row in np.arange(0.6 * step, shape[0] - 0.6 * step, step):
        for column in np.arange(0.6 * step, shape[1] - 0.6 * step, step):
            # In sixteenths of a pixel, so that small disks have their size.
            centre = np.array([column, row]) + 0.1 * step * rng.uniform(-1, 1, 2)
            centre = np.rint(16 * centre).astype(int).tolist()
            radius = 8 * diameter_px * spread ** rng.uniform(-1, 1)
            cv2.circle(image, centre, round(radius), 1.0, -1, cv2.LINE_AA, 4)
            n_disks += 1
    image = 20 + 100 * image + noise * rng.standard_normal(shape)
    return np.clip(image, 0, 255).astype(dtype), n_disks


def find_disks(tiles, *, wanted_px=WANTED_PX):
    """Maps of what a network of one size finds: (n, h, w, 2).

    It is sure of disks of its own size, the less the more they differ; of larger ones
    it takes the texture for nuclei, and smaller ones it sees as specks.
    """
    maps = np.zeros((*tiles.shape, 2), dtype=np.float32)
    for tile, found in zip(tiles, maps, strict=True):
        _, labels, stats, _ = cv2.connectedComponentsWithStats(
            (tile > 0.5).astype(np.uint8), connectivity=8
        )
        diameters = np.sqrt(4 / np.pi * stats[:, cv2.CC_STAT_AREA])
        off = np.abs(np.log(np.maximum(diameters, 0.1) / wanted_px)) / np.log(REACH)
        sureness = np.clip(1.1 - 0.45 * off, 0, 0.98)
        sureness[0] = 0
        certain = sureness.astype(np.float32)[labels]
        too_large = (diameters > REACH**2 * wanted_px)[labels] & (labels > 0)
        rows, columns = np.indices(tile.shape)
        texture = (rows % 14 < 9) & (columns % 14 < 9)
        found[..., 0] = np.where(too_large, 0.85 * texture, certain)
        found[..., 1] = 0.9 * found[..., 0]
    return maps
