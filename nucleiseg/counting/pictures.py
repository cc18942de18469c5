"""Which images of a run are drawn."""

import numpy as np

from nucleiseg.shards import Plan


def choose_pictures(plan: Plan, n_pictures: int) -> list[tuple[int, int]]:
    """Choose images to draw, evenly over the run.

    Large images, which are counted in blocks, are left out: a picture needs a whole
    image in memory.

    Returns
    -------
    list of (shard, index)
        Index of the image in its dataset; fewer than asked for where the run has
        fewer images.
    """
    shards = plan.shards.select(~plan.shards.is_block)
    ends = np.cumsum(shards.n_new_images)
    n_images = int(ends[-1]) if len(ends) else 0
    n_pictures = min(n_pictures, n_images)
    picks = []
    for number in range(n_pictures):
        position = (2 * number + 1) * n_images // (2 * n_pictures)
        place = int(np.searchsorted(ends, position, side="right"))
        shard = shards[place]
        assert shard.shard is not None
        first = int(ends[place]) - shard.n_images
        picks.append((shard.shard, shard.start + position - first))
    return picks
