"""Which images of a run are drawn."""

from nucleiseg.shards import Plan


def choose_pictures(plan: Plan, n_pictures: int) -> list[tuple[int, int]]:
    """Choose images to draw, evenly over the run.

    Returns
    -------
    list of (shard, index)
        Index of the image in its dataset; fewer than asked for where the run has
        fewer images.
    """
    n_pictures = min(n_pictures, plan.n_images)
    wanted = [
        (2 * number + 1) * plan.n_images // (2 * n_pictures)
        for number in range(n_pictures)
    ]
    picks: list[tuple[int, int]] = []
    first = 0
    for shard in plan.shards:
        assert shard.shard is not None
        picks += [
            (shard.shard, shard.start + position - first)
            for position in wanted
            if first <= position < first + shard.n_images
        ]
        first += shard.n_images
    return picks
