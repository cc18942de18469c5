"""The notebook's steps against plain code that does what the notebook did."""

import math
import shutil
from pathlib import Path

import cv2
import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from sklearn.model_selection import train_test_split

from nucleiseg import synthetic
from nucleiseg.cli import main
from nucleiseg.config import AugmentationConfig, load_config
from nucleiseg.dataset import (
    BatchOrder,
    Gatherer,
    inspect_labelled,
    make_batches,
    open_labelled,
    split_indices,
    targets,
    training_order,
)
from nucleiseg.runs import TrainRun

PRESET = Path(__file__).parents[1] / "configs" / "notebook.yaml"

N_IMAGES = 28
N_TEST = 21


@pytest.fixture(scope="module")
def archives(tmp_path_factory):
    """The notebook's two files, small: X and y, and X to predict."""
    folder = tmp_path_factory.mktemp("notebook")
    images, labels = synthetic.draw_fields(N_IMAGES, (32, 32), seed=1)
    np.savez_compressed(
        folder / "X_and_y.npz",
        X=images.astype("float32"),
        y=(labels > 0).astype("float32"),
    )
    test_images, _ = synthetic.draw_fields(N_TEST, (32, 32), seed=2)
    np.savez_compressed(folder / "test_images.npz", X=test_images.astype("float32"))
    return folder


@pytest.fixture(scope="module")
def config(archives):
    return load_config(
        PRESET,
        [
            f"data.archive={archives / 'X_and_y.npz'}",
            "model.base_filters=2",
            "training.epochs=2",
        ],
    )


@pytest.fixture(scope="module")
def labelled(config, tmp_path_factory):
    run = TrainRun(tmp_path_factory.mktemp("data"))
    return open_labelled(inspect_labelled(config.data), config, run)


@pytest.fixture(scope="module")
def run(archives, tmp_path_factory):
    """A whole notebook run, with fewer filters and epochs."""
    folder = tmp_path_factory.mktemp("run") / "notebook"
    status = main(
        [
            *("train", str(PRESET), "--run", str(folder)),
            *("--set", f"data.archive={archives / 'X_and_y.npz'}"),
            *("--set", "model.base_filters=2", "--set", "training.epochs=2"),
        ]
    )
    assert status == 0
    return folder


def test_preset_is_the_notebook():
    preset = load_config(PRESET)
    assert preset.model.base_filters == 64
    assert preset.model.dropout == 0.5
    assert (preset.training.optimizer, preset.training.learning_rate) == (
        "rmsprop",
        1e-4,
    )
    assert (preset.training.epochs, preset.training.batch_size) == (50, 16)
    assert preset.table.format == "notebook"
    # Its split is scikit-learn's, and what is in both parts stays there.
    assert preset.data.overlap == "keep"
    assert preset.augmentation == AugmentationConfig()


def gather_all(labelled, part):
    order = BatchOrder(part.n_crops, part.n_crops, shuffle=False, seed=0)
    store = labelled.make_store(part, order, first_batch=0, n_batches=1)
    gatherer = Gatherer(labelled, part, order, store, AugmentationConfig())
    images, masks = gatherer.gather(0)
    return images[..., 0], masks[..., 0]


def test_split_is_that_of_train_test_split(archives, labelled):
    with np.load(archives / "X_and_y.npz") as archive:
        X, y = archive["X"], archive["y"]
    expected = train_test_split(X, y, random_state=123)
    images, masks = gather_all(labelled, labelled.training)
    np.testing.assert_array_equal(images, expected[0])
    np.testing.assert_array_equal(masks, expected[2])
    images, masks = gather_all(labelled, labelled.validation)
    np.testing.assert_array_equal(images, expected[1])
    np.testing.assert_array_equal(masks, expected[3])


def test_2000_images_are_split_1500_to_500(config):
    training, validation = split_indices(2000, config.data)
    assert (training.size, validation.size) == (1500, 500)
    order = training_order(1500, config.training)
    sizes = [order.indices(batch).size for batch in range(order.n_batches)]
    assert sizes == [16] * 93 + [12]


def test_batches_are_tf_data_in_the_split_s_order_and_not_normalised(
    archives, config, labelled
):
    part = labelled.training
    order = training_order(part.n_crops, config.training, part)
    ours = make_batches(
        labelled, part, order, first_batch=0, n_batches=2 * order.n_batches
    )
    assert isinstance(ours, tf.data.Dataset)
    training, _ = split_indices(N_IMAGES, config.data)
    with np.load(archives / "X_and_y.npz") as archive:
        images, masks = archive["X"][training, ..., None], archive["y"][training]
    masks = masks[..., None]
    theirs = tf.data.Dataset.from_tensor_slices((images, masks)).batch(16).repeat(2)
    pairs = list(zip(ours, theirs, strict=True))
    assert [int(mine[0].shape[0]) for mine, _ in pairs] == [16, 5, 16, 5]
    for mine, expected in pairs:
        np.testing.assert_array_equal(mine[0], expected[0])
        np.testing.assert_array_equal(mine[1], expected[1])
    assert images.max() > 1


def test_training_is_keras_fit_as_in_the_notebook(archives, config, run):
    with np.load(archives / "X_and_y.npz") as archive:
        X, y = archive["X"], archive["y"]
    X_train, X_valid, y_train, y_valid = train_test_split(X, y, random_state=123)
    train = tf.data.Dataset.from_tensor_slices((X_train[..., None], y_train[..., None]))
    valid = tf.data.Dataset.from_tensor_slices((X_valid[..., None], y_valid[..., None]))
    keras.utils.set_random_seed(config.training.seed)
    model = build_notebook_network(32, filters=2)
    model.compile(
        optimizer=keras.optimizers.RMSprop(learning_rate=1e-4),
        loss="binary_crossentropy",
        metrics=["accuracy"],
    )
    history = model.fit(
        train.batch(16), validation_data=valid.batch(16), epochs=2, verbose=0
    ).history
    ours = pd.read_csv(run / "history.csv")
    assert list(ours["epoch"]) == [1, 2]
    for name, values in history.items():
        np.testing.assert_allclose(ours[name], values, rtol=1e-5)
    assert math.isfinite(ours["loss"].sum())


def build_notebook_network(side, filters):
    """The notebook's network, written again without looking at ours."""
    layers = keras.layers

    def conv(x, n):
        return layers.Conv2D(n, (3, 3), activation="relu", padding="same")(x)

    inputs = layers.Input((side, side, 1))
    x, skips = inputs, []
    for level in range(4):
        x = conv(conv(x, filters * 2**level), filters * 2**level)
        skips.append(x)
        x = layers.MaxPooling2D((2, 2))(x)
    x = conv(conv(x, filters * 16), filters * 16)
    for level in (3, 2, 1, 0):
        x = conv(layers.UpSampling2D((2, 2))(x), filters * 2**level)
        x = layers.concatenate([x, skips[level]])
        x = conv(conv(x, filters * 2**level), filters * 2**level)
    x = layers.Dropout(0.5)(x)
    return keras.Model(inputs, layers.Conv2D(1, (1, 1), activation="sigmoid")(x))


def test_table_equals_a_loop_over_predict_and_connected_components(archives, run):
    model = keras.models.load_model(run / "model" / "model.keras", compile=False)
    X = np.load(archives / "test_images.npz")["X"]
    predictions = model.predict(X[..., None].astype("float32"), batch_size=16)
    assert predictions.shape == (N_TEST, 32, 32, 1)
    rows = []
    for index, prediction in enumerate(predictions):
        mask = np.round(prediction[..., 0]).astype("uint8")
        rows.append((index, cv2.connectedComponents(mask)[0] - 1))
    frame = pd.DataFrame(rows, columns=["index", "count"])
    expected = frame.to_csv(index=False).encode("utf-8-sig")
    assert (run / "test" / "U-Net Project Results.csv").read_bytes() == expected


def test_run_ends_with_the_notebook_s_plots_and_pictures(run):
    for path in (run / "loss.png", run / "accuracy.png"):
        assert cv2.imread(str(path)).size > 0
    pictures = {path.name for path in (run / "test" / "pictures").iterdir()}
    assert sum(name.endswith("_soft.png") for name in pictures) == 4
    assert sum(name.endswith("_rounded.png") for name in pictures) == 4
    assert len(pictures - {"overview.png"}) == 12


def test_a_longer_training_moves_the_counts_of_the_model_before_aside(
    archives, run, tmp_path
):
    longer = shutil.copytree(run, tmp_path / "longer")
    table = longer / "test" / "U-Net Project Results.csv"
    before = table.read_bytes()
    status = main(
        [
            *("train", str(PRESET), "--run", str(longer)),
            *("--set", f"data.archive={archives / 'X_and_y.npz'}"),
            *("--set", "model.base_filters=2", "--set", "training.epochs=3"),
            *("--set", "table.pictures=0"),
        ]
    )
    assert status == 0
    assert (longer / "test-before-1" / table.name).read_bytes() == before
    assert len(table.read_bytes().splitlines()) == N_TEST + 1


def test_masks_are_whatever_is_above_0():
    labels = np.array([[[0, 1], [2, 255]]], dtype="uint16")
    np.testing.assert_array_equal(targets(labels)[..., 0], [[[0, 1], [1, 1]]])
    assert targets(labels).dtype == np.float32
