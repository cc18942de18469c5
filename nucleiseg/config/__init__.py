"""Configuration: typed, frozen, strict at every level, read from YAML.

One :class:`Config` describes an experiment or a site. ``train`` and ``count`` read
the sections that concern them from the same file, so that a lab can keep one file
for both. What a run really used, defaults and overrides included, is saved in its
directory.
"""

from nucleiseg.config.cluster import ClusterConfig
from nucleiseg.config.data import AugmentationConfig, DataConfig, LabelledArchive
from nucleiseg.config.methods import refuse_unseeded
from nucleiseg.config.reading import load_config
from nucleiseg.config.schema import (
    Config,
    InferenceConfig,
    InstancesConfig,
    ModelConfig,
    Precision,
    PreprocessConfig,
    ShardsConfig,
    TableConfig,
    TrainingConfig,
)
from nucleiseg.config.section import SIDE_MULTIPLE

__all__ = [
    "SIDE_MULTIPLE",
    "AugmentationConfig",
    "ClusterConfig",
    "Config",
    "DataConfig",
    "InferenceConfig",
    "InstancesConfig",
    "LabelledArchive",
    "ModelConfig",
    "Precision",
    "PreprocessConfig",
    "ShardsConfig",
    "TableConfig",
    "TrainingConfig",
    "load_config",
    "refuse_unseeded",
]
