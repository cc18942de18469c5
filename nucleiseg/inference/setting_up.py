"""A worker's network, in the run's compute setting: chosen, measured, loaded once."""

from collections import Counter

from nucleiseg.bundle import BundleInfo
from nucleiseg.config import Config, InferenceConfig, InstancesConfig
from nucleiseg.errors import BundleError, RunError
from nucleiseg.inference.compute import Compute, choose_compute
from nucleiseg.inference.network import TiledNetwork
from nucleiseg.runs import CountRun
from nucleiseg.shards import Plan

# From 4,096 images of 128x128 on, the seconds that measuring takes come back.
_WORTH_MEASURING_PIXELS = 2**26


def refuse_other_model(run: CountRun, plan: Plan, model: BundleInfo) -> None:
    """Refuse to go on with a run by another model, or by other maps of its network.

    Raises
    ------
    BundleError, RunError
    """
    if model.identity != plan.settings["model"]:
        raise BundleError(
            f"model bundle {model.paths.root} has changed since run {run.root} was "
            "planned; use another --run for the new model"
        )
    if model.model.maps_version != plan.maps_version:
        raise RunError(
            f"run {run.root} was planned by another version of nucleiseg, which "
            "makes other maps of this network; use another --run, or that version"
        )


def load(
    run: CountRun, plan: Plan, config: Config, model: BundleInfo, *, n_threads: int
) -> tuple[Compute, TiledNetwork]:
    """Choose the compute setting, or take the run's, and load the network.

    It has run once on the shape that most images need: a worker that joins computes,
    and the first shard does not pay for tracing.

    Raises
    ------
    NucleisegError
        This machine cannot compute the run.
    """
    # What binds is read from the plan, which partial tables are stamped with.
    settings = InferenceConfig.model_validate(
        {**plan.settings["inference"], "device": config.inference.device}
    )
    views = InstancesConfig.model_validate(plan.settings["instances"]).views
    measured: list[TiledNetwork] = []

    def measure(wanted: Compute) -> Compute:
        network = TiledNetwork(model, wanted, n_threads=n_threads, views=views)
        measured.append(network)
        tile_shape = _main_tile_shape(plan, network)
        found = network.measure(tile_shape)
        if settings.xla is None and wanted.device == "gpu":
            found = network.try_xla(tile_shape)
        return found

    is_long = count_pixels(plan) >= _WORTH_MEASURING_PIXELS
    compute = choose_compute(run, settings, measure=measure if is_long else None)
    # Not loaded twice, unless another worker has chosen something else meanwhile.
    if measured and measured[0].bind(compute):
        network = measured[0]
    else:
        network = TiledNetwork(model, compute, n_threads=n_threads, views=views)
    if len(plan.shards):
        network.warm_up(_main_tile_shape(plan, network))
    return compute, network


def count_pixels(plan: Plan) -> int:
    """Count the pixels of all images of a run."""
    rows = plan.shards.rows
    pixels = rows["height"].astype(float) * rows["width"] * plan.shards.n_new_images
    return int(pixels.sum())


def _main_tile_shape(plan: Plan, network: TiledNetwork) -> tuple[int, int]:
    """Shape of the tiles that most pixels of the run lie in."""
    pixels: Counter[tuple[int, int]] = Counter()
    for share in plan.dataset_shares:
        height, width = share.image_shape
        shape = network.tiling(share.image_shape).tile_shape
        pixels[shape] += share.n_images * height * width
    return pixels.most_common(1)[0][0]
