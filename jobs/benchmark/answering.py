"""A network that answers at once: what a worker does beside it is left.

Importing this module puts it in place, in each process that imports it. Each shape of
batches is computed once, and what comes afterwards is answered with those maps: they
are real ones of real images, so that labelling them takes what it takes. A process that
answers leaves a mark in the folder that NUCLEISEG_ANSWERED names.
"""

import os
from pathlib import Path

import numpy as np

from nucleiseg.inference import network

_compute = network.TiledNetwork.run
_known: dict[tuple[int, int, int], network.Maps] = {}


def _answer(self: network.TiledNetwork, tiles: network.Batch) -> network.Maps:
    shape = self.batch_shape(tiles.shape[1:])
    # One tile of zeros comes first, to have the network compiled.
    if len(tiles) == 1:
        return _compute(self, tiles)
    if len(_known.get(shape, ())) < len(tiles):
        _known[shape] = _compute(self, tiles)
    elif "NUCLEISEG_ANSWERED" in os.environ:
        (Path(os.environ["NUCLEISEG_ANSWERED"]) / str(os.getpid())).touch()
    # A copy, as of a device's memory.
    return np.array(_known[shape][: len(tiles)])


network.TiledNetwork.run = _answer  # type: ignore[method-assign]
