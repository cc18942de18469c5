"""Whether the label images of a plan can lie in one HDF5 file."""

from nucleiseg.errors import RunError
from nucleiseg.labels import name_dataset, refuse_clashes
from nucleiseg.shards import Plan

# A chunk of HDF5, which holds a whole image, has less than 4 GB; a label up to 4 bytes.
_MOST_PIXELS = 2**30


def check_labels(plan: Plan) -> None:
    """Refuse what one file cannot hold, before hours of work.

    Raises
    ------
    RunError
        By their names two datasets would be in each other's place, or images are too
        large to be labelled in one piece.
    """
    if not plan.has_labels:
        return
    refuse_clashes(
        [name_dataset(plan.archives[n].name, key) for n, key in plan.label_shapes]
    )
    for share in plan.dataset_shares:
        height, width = share.image_shape
        is_whole = share.n_shards <= share.n_images
        if is_whole and height * width >= _MOST_PIXELS:
            raise RunError(
                f"{plan.archives[share.archive].name}:{share.dataset} has images of "
                f"{height}x{width} px, and label images of 2**30 px or more are only "
                "made in blocks; lower shards.block_pixels"
            )
