"""The U-Net: building it, and its weights in a model bundle."""

from nucleiseg.model.rounding import round_kernel
from nucleiseg.model.unet import LEVELS, build_unet, describe, predict
from nucleiseg.model.weights import load_network, save_weights

__all__ = [
    "LEVELS",
    "build_unet",
    "describe",
    "load_network",
    "predict",
    "round_kernel",
    "save_weights",
]
