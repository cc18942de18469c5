"""What training makes small."""

from typing import Any

from nucleiseg.config import TrainingConfig
from nucleiseg.devices import import_tensorflow

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
    output : (N, H, W, K) float32 tensor
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
    # From logits: the gradient of a pixel that is wrong and certain must not vanish,
    # or training collapses to certainty (it did, in half an epoch).
    if head == "distance":
        foreground = tensorflow.sigmoid(output[..., 0])
        pixels = tensorflow.nn.sigmoid_cross_entropy_with_logits(
            labels=inside, logits=output[..., 0]
        )
    else:
        foreground = 1 - tensorflow.nn.softmax(output[..., :3])[..., 0]
        pixels = tensorflow.nn.sparse_softmax_cross_entropy_with_logits(
            labels=tensorflow.cast(classes, "int32"), logits=output[..., :3]
        )
    losses = tensorflow.reduce_mean(weights * pixels, axis=[1, 2])
    losses += settings.dice * (1 - _dice(inside, foreground))
    if head != "boundary":
        errors = weights * tensorflow.abs(
            tensorflow.sigmoid(output[..., -1]) - distance
        )
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
    if head == "mask":
        is_inside = output[..., 0] > 0.5
    elif head == "distance":
        is_inside = output[..., 0] > 0
    else:
        is_inside = tensorflow.reduce_max(output[..., 1:3], axis=-1) > output[..., 0]
    is_right = tensorflow.equal(is_inside, targets[..., 0] > 0.5)
    return tensorflow.reduce_mean(tensorflow.cast(is_right, "float32"), axis=[1, 2])
