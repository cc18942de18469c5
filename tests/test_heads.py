"""Heads of the network, the maps made of them, and their losses."""

import keras
import numpy as np
import pytest

from nucleiseg.config import ModelConfig, TrainingConfig
from nucleiseg.dataset import N_CHANNELS, targets
from nucleiseg.devices import import_tensorflow
from nucleiseg.errors import ConfigError
from nucleiseg.model import (
    add_prediction,
    build_unet,
    image_accuracies,
    image_losses,
    n_maps,
    predict,
)
from nucleiseg.model.heads import add_maps
from tests.test_targets import TOUCHING

HEADS = ("mask", "boundary", "distance", "combined")
LABELS = np.stack([TOUCHING, np.zeros_like(TOUCHING)])


def answer_rightly(head, made):
    """What a perfect network would say, short of certainty."""
    if head == "mask":
        right = made
    else:
        classes = np.eye(3, dtype=np.float32)[made[..., 0].astype(int)]
        inside = (made[..., :1] > 0).astype(np.float32)
        right = {
            "boundary": classes,
            "distance": np.concatenate([inside, made[..., 1:2]], axis=-1),
            "combined": np.concatenate([classes, made[..., 1:2]], axis=-1),
        }[head]
    right = np.clip(right, 1e-6, 1 - 1e-6).astype(np.float32)
    if head == "mask":
        return right
    logits = np.log(right)
    if head in ("distance", "combined"):
        logits[..., -1] -= np.log1p(-right[..., -1])
    if head == "distance":
        logits[..., 0] -= np.log1p(-right[..., 0])
    return logits


def losses_of(head, made, output, **settings):
    found = image_losses(made, output, head=head, settings=TrainingConfig(**settings))
    return found.numpy()


@pytest.mark.parametrize("head", HEADS)
def test_shapes_of_outputs_and_maps(head):
    settings = ModelConfig(head=head, base_filters=1)
    network = build_unet(settings)
    images = np.random.default_rng(0).random((2, 32, 48), dtype=np.float32)
    output = predict(network, images, batch_size=2)
    assert output.shape[:-1] == images.shape
    maps = predict(add_prediction(network, settings), images, batch_size=2)
    assert maps.shape == (*images.shape, n_maps(settings))
    assert maps.dtype == np.float32
    assert 0 <= maps.min() <= maps.max() <= 1 + 1e-6
    made = targets(np.zeros((1, 32, 48), np.uint16), head)
    assert made.shape[-1] == N_CHANNELS[head]


def test_maps_of_the_combined_head_are_those_of_its_definition():
    settings = ModelConfig(head="combined", base_filters=1)
    network = build_unet(settings)
    images = np.random.default_rng(0).random((1, 32, 32), dtype=np.float32)
    output = predict(network, images, batch_size=1)
    maps = predict(add_prediction(network, settings), images, batch_size=1)
    powers = np.exp(output[..., :3])
    classes = powers / powers.sum(axis=-1, keepdims=True)
    distance = 1 / (1 + np.exp(-output[..., 3]))
    np.testing.assert_allclose(
        maps[..., 1], np.sqrt(classes[..., 1] * distance), rtol=1e-4
    )
    foreground = classes[..., 1] + classes[..., 2] * np.minimum(10 * distance, 1)
    np.testing.assert_allclose(maps[..., 0], foreground, rtol=1e-4)


def test_a_boundary_is_foreground_as_far_as_it_lies_inside():
    settings = ModelConfig(head="combined", base_filters=1)
    # Certainly boundary; its distance 0, a twentieth and a half.
    output = np.array([[0, 0, 30, logit] for logit in (-30, np.log(1 / 19), 0)])
    maps = np.asarray(add_maps(keras.ops.cast(output, "float32"), settings))
    np.testing.assert_allclose(maps[:, 0], [0, 0.5, 1], atol=1e-5)


@pytest.mark.parametrize("head", HEADS)
def test_a_right_answer_costs_nothing_and_a_wrong_one_does(head):
    made = targets(LABELS, head)
    right = answer_rightly(head, made)
    assert losses_of(head, made, right).max() < 0.02
    for image in range(2):
        other = right.copy()
        other[image] = right[1 - image]
        losses = losses_of(head, made, other)
        assert losses[image] > 1
        assert losses[1 - image] < 0.02
    accuracies = image_accuracies(made, right, head=head).numpy()
    np.testing.assert_array_equal(accuracies, 1)
    half = right.copy()
    half[1, :24] = right[0, 24, 18]
    assert image_accuracies(made, half, head=head).numpy()[1] == 0.5


def test_the_mask_s_loss_is_the_notebook_s():
    made = targets(LABELS, "mask")
    output = np.random.default_rng(0).random(made.shape, dtype=np.float32)
    expected = keras.losses.BinaryCrossentropy()(made, output)
    found = losses_of("mask", made, output, border_weight=50, dice=9)
    assert float(expected) == pytest.approx(found.mean(), rel=1e-5)


@pytest.mark.parametrize("head", ["boundary", "distance", "combined"])
def test_mistakes_where_nuclei_touch_weigh_more(head):
    made = targets(LABELS, head)
    right = answer_rightly(head, made)
    # The same answer at one pixel near the contact, and at one far from it.
    near, far = right.copy(), right.copy()
    near[0, 24, 30] = right[0, 0, 0]
    far[0, 24, 12] = right[0, 0, 0]
    base = losses_of(head, made, right, border_weight=5, dice=0)[0]
    losses = [
        losses_of(head, made, wrong, border_weight=5, dice=0)[0] - base
        for wrong in (near, far)
    ]
    assert losses[0] > 3 * losses[1] > 0


def test_half_resolution_gives_maps_of_the_image_s_size():
    settings = ModelConfig(
        resolution="half", filters=[2, 3, 4, 5], decoder="conv1", dropout=0
    )
    images = np.random.default_rng(0).random((2, 48, 32), dtype=np.float32)
    network = build_unet(settings)
    assert predict(network, images, batch_size=2).shape == (2, 48, 32, 4)
    kinds = [type(layer).__name__ for layer in network.layers]
    assert kinds.count("MaxPooling2D") == 3
    assert network.layers[1].strides == (2, 2)


def test_gradients_do_not_vanish_where_the_network_is_certain_and_wrong():
    tensorflow = import_tensorflow()
    made = targets(LABELS, "combined")
    wrong = tensorflow.constant(-20 * answer_rightly("combined", made))
    with tensorflow.GradientTape() as tape:
        tape.watch(wrong)
        loss = image_losses(made, wrong, head="combined", settings=TrainingConfig())
    gradient = tape.gradient(loss, wrong).numpy()
    assert np.isfinite(gradient).all()
    n_pixels = made[0, ..., 0].size
    assert (np.abs(gradient[..., :3]).max(axis=-1) > 0.5 / n_pixels).all()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"filters": [2, 4, 8, 16, 32], "resolution": "half"}, "at most 4"),
        ({"filters": [2, 0]}, "1 or more"),
    ],
)
def test_filters_that_cannot_be(changes, words):
    with pytest.raises((ConfigError, ValueError), match=words):
        ModelConfig(**changes)
