"""By how much a count run enlarges images: what it refuses, and what it notes."""

from dataclasses import asdict

from nucleiseg.atomic import read_json, write_json
from nucleiseg.config import Config
from nucleiseg.errors import RunError
from nucleiseg.inference import DatasetScale, find_scale, read_scales
from nucleiseg.runs import CountRun
from nucleiseg.shards import Plan


def refuse_blocks(plan: Plan, config: Config) -> None:
    """Refuse a diameter for which images that are counted in blocks would be enlarged.

    Blocks are cut for the size that an image has as stored. Where the diameter is
    estimated, such images keep their size, and the run says so.

    Raises
    ------
    RunError
        There are such images.
    """
    given_px, wanted_px = config.inference.diameter_px, config.preprocess.diameter_px
    blocks = plan.shards.select(plan.shards.is_block)
    if given_px is None or wanted_px is None or not len(blocks):
        return
    first = blocks[0]
    height, width = first.image_shape
    scale = find_scale(given_px, config.preprocess, first.image_shape)
    if scale == 1:
        return
    raise RunError(
        f"{plan.archives[first.archive].name}:{first.dataset} holds images of "
        f"{height}x{width}, which are counted in blocks at the size they have, and a "
        f"diameter of {given_px:g} px asks for {scale:.2f} times that; leave the "
        f"diameter out, or set shards.block_pixels={height * width} if they fit into "
        "memory"
    )


def note_scales(run: CountRun, plan: Plan) -> tuple[DatasetScale, ...]:
    """Write into the manifest by how much images were enlarged; give it, too."""
    scales = read_scales(run, plan)
    if scales:
        notes = [asdict(scale) for scale in scales]
        write_json(run.manifest, {**read_json(run.manifest), "scales": notes})
    return tuple(scales)
