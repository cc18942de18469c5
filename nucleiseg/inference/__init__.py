"""The worker's side of a count run: shard in, partial table out."""

from nucleiseg.inference.compute import Compute, choose_compute, read_compute
from nucleiseg.inference.engine import Engine, ShardResult
from nucleiseg.inference.facts import forget_failed_facts
from nucleiseg.inference.pictures import draw_pictures
from nucleiseg.inference.process import compute_shard, get_engine
from nucleiseg.inference.scale_records import DatasetScale, read_scales
from nucleiseg.inference.scales import find_scale
from nucleiseg.inference.setting_up import refuse_other_model
from nucleiseg.inference.sources import find_index
from nucleiseg.inference.times import StageTimes

__all__ = [
    "Compute",
    "DatasetScale",
    "Engine",
    "ShardResult",
    "StageTimes",
    "choose_compute",
    "compute_shard",
    "draw_pictures",
    "find_index",
    "find_scale",
    "forget_failed_facts",
    "get_engine",
    "read_compute",
    "read_scales",
    "refuse_other_model",
]
