"""What training makes small."""

from typing import Any

from nucleiseg.config import TrainingConfig
from nucleiseg.devices import import_tensorflow

# Keeps logarithms finite, as in Keras.
_LEAST = 1e-7
# Of an image without nuclei, where Dice would be 0 / 0.
_SMOOTH = 32.0
# The distance's error is small beside cross-entropy.
_DISTANCE_SHARE = 2.0


def image_losses(
    targets: Any, output: Any, *, head: str, settings: TrainingConfig
) -> Any:
    """Loss of each image.

    Parameters
    ----------
    targets : (N, H, W, C) float32 tensor
        By :func:`nucleiseg.dataset.targets`.
    output : (N, H, W, K) float32 tensor, in [0, 1]
        By :func:`nucleiseg.model.heads.add_head`.
    head : str
    settings : TrainingConfig
        `border_weight` and `dice`.

    Returns
    -------
    (N,) float32 tensor

    Notes
    -----
    `mask`: binary cross-entropy, the mean over the pixels (the notebook's). Others:
    cross-entropy whose pixels weigh `border_weight` where nuclei touch or nearly do
    (after Ronneberger et al., MICCAI 2015), `dice` times 1 - Dice of the foreground
    (Milletari et al., 3DV 2016), and the absolute error of the distance.
    """
    import keras

    tensorflow = import_tensorflow()
    if head == "mask":
        pixels = keras.losses.binary_crossentropy(targets, output)
        return tensorflow.reduce_mean(pixels, axis=[1, 2])
    classes, distance, near = (targets[..., channel] for channel in range(3))
    inside = tensorflow.cast(classes > 0.5, "float32")
    weights = 1 + (settings.border_weight - 1) * near
    if head == "distance":
        foreground = output[..., 0]
        right = tensorflow.where(inside > 0.5, foreground, 1 - foreground)
    else:
        one_hot = tensorflow.one_hot(tensorflow.cast(classes, "int32"), 3)
        right = tensorflow.reduce_sum(one_hot * output[..., :3], axis=-1)
        foreground = 1 - output[..., 0]
    pixels = -weights * tensorflow.math.log(tensorflow.maximum(right, _LEAST))
    losses = tensorflow.reduce_mean(pixels, axis=[1, 2])
    losses += settings.dice * (1 - _dice(inside, foreground))
    if head != "boundary":
        errors = weights * tensorflow.abs(output[..., -1] - distance)
        losses += _DISTANCE_SHARE * tensorflow.reduce_mean(errors, axis=[1, 2])
    return losses


def _dice(inside: Any, foreground: Any) -> Any:
    """Dice of each image's foreground; 1 where both are empty."""
    tensorflow = import_tensorflow()
    common = tensorflow.reduce_sum(inside * foreground, axis=[1, 2])
    total = tensorflow.reduce_sum(inside + foreground, axis=[1, 2])
    return (2 * common + _SMOOTH) / (total + _SMOOTH)


def image_accuracies(targets: Any, output: Any, *, head: str) -> Any:
    """Share of each image's pixels whose foreground is right, (N,) float32 tensor."""
    tensorflow = import_tensorflow()
    if head in ("mask", "distance"):
        is_inside = output[..., 0] > 0.5
    else:
        is_inside = output[..., 0] < 0.5
    is_right = tensorflow.equal(is_inside, targets[..., 0] > 0.5)
    return tensorflow.reduce_mean(tensorflow.cast(is_right, "float32"), axis=[1, 2])
