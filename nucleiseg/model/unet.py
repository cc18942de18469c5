"""Building the U-Net."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from nucleiseg.config import ModelConfig
from nucleiseg.devices import dtype_policy, import_tensorflow

LEVELS = 4
"""Resolutions above the bottom; each halves the sides."""


def build_unet(
    settings: ModelConfig,
    *,
    precision: str = "float32",
    image_shape: tuple[int | None, int | None] = (None, None),
) -> Any:
    """Build the U-Net of notebook step N5, with any number of base filters.

    Parameters
    ----------
    settings : ModelConfig
        Base filters f and dropout; the levels have f, 2f, 4f, 8f filters, the bottom
        16f. f = 64 gives the notebook's 34,512,193 parameters.
    precision : {"float32", "bfloat16", "float16"}
        Computation type; weights, the first convolution and the output stay float32.
    image_shape : (int or None, int or None)
        Height and width, multiples of 16, or None for any.

    Returns
    -------
    keras.Model
        (N, H, W, 1) float32 to the foreground probability (N, H, W, 1) float32,
        in [0, 1].
    """
    import_tensorflow()
    import keras

    layers = keras.layers
    policy = dtype_policy(precision)

    def convolve(features: Any, filters: int, times: int, dtype: str = policy) -> Any:
        for _ in range(times):
            features = layers.Conv2D(
                filters, 3, padding="same", activation="relu", dtype=dtype
            )(features)
        return features

    filters = [settings.base_filters * 2**level for level in range(LEVELS + 1)]
    image = keras.Input((*image_shape, 1), dtype="float32")
    # In float32 whatever the precision: the images have more than the 8 bits of
    # bfloat16, and half of its error came from here. It is 0.6 % of the arithmetic.
    features = convolve(image, filters[0], times=1, dtype="float32")
    skips = []
    for level in range(LEVELS):
        features = convolve(features, filters[level], times=2 if level else 1)
        skips.append(features)
        features = layers.MaxPooling2D(2, dtype=policy)(features)
    features = convolve(features, filters[LEVELS], times=2)
    for level in reversed(range(LEVELS)):
        features = layers.UpSampling2D(2, dtype=policy)(features)
        features = convolve(features, filters[level], times=1)
        features = layers.Concatenate(dtype=policy)([features, skips[level]])
        features = convolve(features, filters[level], times=2)
    features = layers.Dropout(settings.dropout, dtype=policy)(features)
    # In float32 whatever the precision: near 0.5 a bfloat16 probability has steps
    # of 0.002, which would move outlines.
    probability = layers.Conv2D(1, 1, activation="sigmoid", dtype="float32")(features)
    return keras.Model(image, probability, name="unet")


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
    network: Any, images: NDArray[np.float32], *, batch_size: int
) -> NDArray[np.float32]:
    """Predict images that fit into memory, as the notebook does (N8).

    Parameters
    ----------
    network : keras.Model
    images : (N, H, W) float32 ndarray
        Normalised; H and W multiples of 16.
    batch_size : int

    Returns
    -------
    (N, H, W) float32 ndarray, in [0, 1]
    """
    output = network.predict(images[..., np.newaxis], batch_size=batch_size, verbose=0)
    return np.asarray(output[..., 0], dtype=np.float32)
