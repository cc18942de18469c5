"""Building the U-Net."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nucleiseg.config import ModelConfig
from nucleiseg.devices import dtype_policy, import_tensorflow
from nucleiseg.model.heads import add_head, add_maps

LEVELS = 4
"""Resolutions above the bottom; each halves the sides."""


def find_filters(settings: ModelConfig) -> list[int]:
    """Find the filters of each level, from the first to the bottom."""
    if settings.filters is not None:
        return settings.filters
    levels = LEVELS - int(settings.resolution == "half")
    return [settings.base_filters * 2**level for level in range(levels + 1)]


def build_unet(
    settings: ModelConfig,
    *,
    precision: str = "float32",
    image_shape: tuple[int | None, int | None] = (None, None),
) -> Any:
    """Build the U-Net of notebook step N5, with any head and number of filters.

    Parameters
    ----------
    settings : ModelConfig
        Head, filters and dropout. `mask` with 64 base filters is the notebook's, of
        34,512,193 parameters.
    precision : {"float32", "bfloat16", "float16"}
        Computation type; weights, the first convolution and the output stay float32.
    image_shape : (int or None, int or None)
        Height and width, multiples of 16, or None for any.

    Returns
    -------
    keras.Model
        (N, H, W, 1) float32 to the head's output, see
        :func:`nucleiseg.model.heads.add_head`.
    """
    import_tensorflow()
    import keras

    layers = keras.layers
    policy = dtype_policy(precision)

    # The notebook's is Keras's default. He et al., ICCV 2015, fits ReLU.
    start = "glorot_uniform" if settings.head == "mask" else "he_normal"

    def convolve(
        features: Any,
        filters: int,
        *,
        times: int = 1,
        side: int = 3,
        stride: int = 1,
        dtype: str = policy,
    ) -> Any:
        for _ in range(times):
            features = layers.Conv2D(
                filters,
                side,
                strides=stride,
                padding="same",
                activation="relu",
                kernel_initializer=start,
                dtype=dtype,
            )(features)
        return features

    filters = find_filters(settings)
    bottom = len(filters) - 1
    image = keras.Input((*image_shape, 1), dtype="float32")
    # In float32 whatever the precision: the images have more than the 8 bits of
    # bfloat16, and half of its error came from here. It is 0.6 % of the arithmetic.
    side, stride = (4, 2) if settings.resolution == "half" else (3, 1)
    features = convolve(image, filters[0], side=side, stride=stride, dtype="float32")
    skips = []
    for level in range(bottom):
        features = convolve(features, filters[level], times=2 if level else 1)
        skips.append(features)
        features = layers.MaxPooling2D(2, dtype=policy)(features)
    features = convolve(features, filters[bottom], times=2)
    for level in reversed(range(bottom)):
        if settings.decoder == "conv1":
            features = convolve(features, filters[level], side=1)
        features = layers.UpSampling2D(2, dtype=policy)(features)
        if settings.decoder == "conv3":
            features = convolve(features, filters[level])
        features = layers.Concatenate(dtype=policy)([features, skips[level]])
        features = convolve(features, filters[level], times=2)
    features = layers.Dropout(settings.dropout, dtype=policy)(features)
    return keras.Model(image, add_head(features, settings), name="unet")


def add_prediction(network: Any, settings: ModelConfig) -> Any:
    """Make the network that predicts maps out of the one that is trained.

    Parameters
    ----------
    network : keras.Model
        By :func:`build_unet`.
    settings : ModelConfig

    Returns
    -------
    keras.Model
        (N, H, W, 1) float32 to maps (N, H, W, C) float32, in [0, 1]: the foreground
        probability and, for all heads but `mask`, the marker map. Weights are shared.
    """
    import keras

    if settings.head == "mask":
        return network
    maps = add_maps(network.outputs[0], settings)
    return keras.Model(network.inputs[0], maps, name="maps")


def describe(network: Any) -> str:
    """Table of the layers: name, kind, output shape and parameters.

    Keras's own table is cut off where output is not a wide terminal.
    """
    rows = [("layer", "kind", "output", "parameters")]
    for layer in network.layers:
        sides = ", ".join(
            "?" if side is None else str(side) for side in layer.output.shape
        )
        rows.append(
            (layer.name, type(layer).__name__, sides, f"{layer.count_params():,}")
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        f"{name:<{widths[0]}}  {kind:<{widths[1]}}  {output:<{widths[2]}}  "
        f"{parameters:>{widths[3]}}"
        for name, kind, output, parameters in rows
    )


def predict(
    network: Any,
    images: NDArray[np.float32],
    *,
    batch_size: int,
    after_batch: Callable[[], None] | None = None,
) -> NDArray[np.float32]:
    """Predict images that fit into memory, as the notebook does (N8).

    Parameters
    ----------
    network : keras.Model
    images : (N, H, W) float32 ndarray
        Normalised; H and W multiples of 16.
    batch_size : int
    after_batch : callable, optional
        Called after each batch; what it raises ends the prediction.

    Returns
    -------
    (N, H, W, C) float32 ndarray, in [0, 1]
    """
    import keras

    callbacks = []
    if after_batch is not None:
        callback = keras.callbacks.LambdaCallback(
            on_predict_batch_end=lambda batch, logs: after_batch()
        )
        callbacks.append(callback)
    output = network.predict(
        images[..., np.newaxis], batch_size=batch_size, callbacks=callbacks, verbose=0
    )
    return np.asarray(output, dtype=np.float32)
