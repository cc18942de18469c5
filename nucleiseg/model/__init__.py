"""The U-Net: building it, its heads and losses, and its weights in a model bundle."""

from nucleiseg.model.averaging import average_models
from nucleiseg.model.heads import n_maps
from nucleiseg.model.losses import image_accuracies, image_losses
from nucleiseg.model.rounding import round_kernel
from nucleiseg.model.unet import (
    LEVELS,
    add_prediction,
    build_unet,
    describe,
    find_filters,
    predict,
)
from nucleiseg.model.views import average_views
from nucleiseg.model.weights import load_network, save_weights, set_weights

__all__ = [
    "LEVELS",
    "add_prediction",
    "average_models",
    "average_views",
    "build_unet",
    "describe",
    "find_filters",
    "image_accuracies",
    "image_losses",
    "load_network",
    "n_maps",
    "predict",
    "round_kernel",
    "save_weights",
    "set_weights",
]
