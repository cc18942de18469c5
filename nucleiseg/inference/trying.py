"""How large batches should be on this machine, found by trying."""

import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from nucleiseg.devices import explain_exhaustion

logger = logging.getLogger(__name__)

# What a batch may have at least and at most, and how long it is measured. On two cores
# 4 to 32 images of 128x128 px were found best, out of up to 64. Of large tiles a batch
# holds as many on a CPU as where nothing is measured: a block of an image of 12,000 px
# a side took 19 % more memory than one of 4,000 while it could hold twice as many, 9 %
# without.
_LEAST_PIXELS = 2**16
_MOST_PIXELS = {"cpu": 2**19, "gpu": 2**24}
_MEASURED_S = 0.4
_LONGEST_CALL_S = 0.5


def find_batch_pixels(
    measure: Callable[[int], float], tile_shape: tuple[int, int], device: str
) -> int:
    """Find how many pixels a batch should have.

    Under load small batches are often the faster ones, on an idle machine large ones;
    the smallest of equally fast ones needs the least memory.

    Parameters
    ----------
    measure : callable
        Of a number of tiles in a batch: tiles a second.
    tile_shape : (int, int)
        Height and width of a tile.
    device : {"cpu", "gpu"}

    Returns
    -------
    int
        Pixels of the best batch.
    """
    tile_pixels = tile_shape[0] * tile_shape[1]
    rates: dict[int, float] = {}
    for n_tiles in (2, 4, 8, 16, 32, 64, 128, 256):
        n_pixels = n_tiles * tile_pixels
        if n_pixels < _LEAST_PIXELS and n_tiles < 256:
            continue
        if n_pixels > _MOST_PIXELS[device] and rates:
            break
        rates[n_tiles] = measure(n_tiles)
        if rates[n_tiles] < 0.97 * max(rates.values()):
            break
        if n_tiles / rates[n_tiles] > _LONGEST_CALL_S:
            break
    fastest = max(rates.values())
    best = next(n for n, rate in rates.items() if rate > 0.98 * fastest)
    logger.info(
        "batches of %d tiles: %s",
        best,
        ", ".join(f"{n}: {rate:.0f} tiles/s" for n, rate in rates.items()),
    )
    return best * tile_pixels


def measure_calls(call: Callable[[object], None], n_at_once: int) -> float:
    """Count calls a second, with as many at once as there will be."""
    with explain_exhaustion(), ThreadPoolExecutor(n_at_once) as pool:
        list(pool.map(call, range(n_at_once)))  # the first is slower
        n_calls, start_s = 0, time.perf_counter()
        while time.perf_counter() - start_s < _MEASURED_S:
            list(pool.map(call, range(2 * n_at_once)))
            n_calls += 2 * n_at_once
        return n_calls / (time.perf_counter() - start_s)
