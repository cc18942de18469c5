"""What a training step is made of: batches, learning rates, weights of images."""

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

from nucleiseg import synthetic
from nucleiseg.config import TrainingConfig, load_config
from nucleiseg.errors import ConfigError
from nucleiseg.training.feeding import feed, to_device
from nucleiseg.training.optimizers import _learning_rate, make_optimizer
from nucleiseg.training.replicas import Replicas
from nucleiseg.training.steps import Machine, Sums
from tests.conftest import run_nucleiseg

ONE = Replicas("cpu", 1, None)


def batches(*sizes):
    """Give a dataset of batches of ones."""

    def draw():
        for size in sizes:
            yield np.ones((size, 16, 16, 1), "float32"), np.ones((size, 16, 16, 1))

    shape = (None, 16, 16, 1)
    spec = tf.TensorSpec(shape, "float32")
    return tf.data.Dataset.from_generator(draw, output_signature=(spec, spec))


def test_batches_are_filled_up_with_images_that_do_not_count():
    images, masks, weights = [*feed(batches(4, 3), ONE, batch_size=4, must_fill=True)][
        1
    ]
    assert images.shape == masks.shape == (4, 16, 16, 1)
    np.testing.assert_array_equal(images.numpy().max(axis=(1, 2, 3)), [1, 1, 1, 0])
    np.testing.assert_allclose(weights, [1 / 3, 1 / 3, 1 / 3, 0])


def test_one_device_gets_them_as_they_are():
    found = [*feed(batches(4, 3), ONE, batch_size=4, must_fill=False)]
    assert [len(images) for images, _, _ in found] == [4, 3]
    for _, _, weights in found:
        assert float(tf.reduce_sum(weights)) == pytest.approx(1)


def test_batches_are_copied_to_a_device_ahead():
    fed = feed(batches(4, 3), ONE, batch_size=4, must_fill=False)
    images = [images for images, _, _ in to_device(fed, "/CPU:0")]
    assert [len(each) for each in images] == [4, 3]
    assert images[0].device.endswith("CPU:0")


def make_machine(**settings):
    config = load_config(
        None,
        [
            "model.head=mask",
            "model.base_filters=1",
            "training.batch_size=4",
            "model.dropout=0",
        ],
    )
    training = config.training.model_copy(update=settings)
    return Machine(
        config.model_copy(update={"training": training}),
        ONE,
        precision="float32",
        image_shape=(16, 16),
        n_steps=10,
    )


def test_what_fills_a_batch_up_moves_neither_figures_nor_weights():
    rng = np.random.default_rng(0)
    images = rng.random((3, 16, 16, 1), dtype="float32")
    masks = (images > 0.5).astype("float32")
    weights = np.full(3, 1 / 3, "float32")
    ends = []
    for n_more in (0, 2):
        # Not black, so that it would show.
        more = np.ones((n_more, 16, 16, 1), "float32")
        machine = make_machine()
        sums = machine.train(
            Sums.start(),
            0,
            (
                tf.constant(np.concatenate([images, more])),
                tf.constant(np.concatenate([masks, 0 * more])),
                tf.constant(np.append(weights, [0] * n_more).astype("float32")),
            ),
        )
        assert sums.to_numpy()[2] == 3
        ends.append((sums.mean(), machine.network.get_weights()))
    (ours, our_weights), (theirs, their_weights) = ends
    assert ours == pytest.approx(theirs, rel=1e-5)
    for one, other in zip(our_weights, their_weights, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


def rates(n_steps, *steps, **settings):
    schedule = _learning_rate(TrainingConfig(learning_rate=1.0, **settings), n_steps)
    return [float(schedule(step)) for step in steps]


def test_learning_rates():
    assert _learning_rate(TrainingConfig(learning_rate=0.5), 10) == 0.5
    assert rates(100, 0, 5, 10, 60, 99, warmup_steps=10) == [0, 0.5, 1, 1, 1]
    found = rates(100, 0, 50, 100, schedule="cosine")
    assert found == pytest.approx([1, 0.5, 0], abs=1e-6)
    found = rates(110, 0, 5, 10, 60, 110, schedule="cosine", warmup_steps=10)
    assert found == pytest.approx([0, 0.5, 1, 0.5, 0], abs=1e-6)
    with pytest.raises(ConfigError, match="leaves nothing of the 10 steps"):
        rates(10, 0, warmup_steps=10)


def test_weight_decay_leaves_biases_alone():
    import keras

    kernel = keras.Variable(np.ones((2, 2)), name="kernel")
    bias = keras.Variable(np.ones(2), name="bias")
    settings = TrainingConfig(optimizer="adamw", learning_rate=0.1, weight_decay=0.5)
    optimizer = make_optimizer(
        settings, [kernel, bias], precision="float32", n_steps=10
    )
    optimizer.apply([tf.zeros((2, 2)), tf.zeros(2)])
    np.testing.assert_allclose(kernel.numpy(), 0.95)
    np.testing.assert_array_equal(bias.numpy(), 1)


def test_averaged_weights_follow_the_weights():
    machine = make_machine(ema_decay=0.9, learning_rate=0.1)
    before = machine.network.get_weights()
    batch = next(iter(feed(batches(4), ONE, batch_size=4, must_fill=False)))
    machine.train(Sums.start(), 0, batch)
    after = machine.network.get_weights()
    # In the first step the average keeps a tenth, not nine.
    for average, old, new in zip(machine.kept_weights(), before, after, strict=True):
        np.testing.assert_allclose(average, 0.1 * old + 0.9 * new, atol=1e-6)
    with machine.averaged():
        for weight, average in zip(
            machine.network.get_weights(), machine.kept_weights(), strict=True
        ):
            np.testing.assert_array_equal(weight, average)
    for weight, new in zip(machine.network.get_weights(), after, strict=True):
        np.testing.assert_array_equal(weight, new)


def test_xla_and_several_replicas_are_refused():
    config = load_config(None, ["training.xla=true"])
    with pytest.raises(ConfigError, match=r"compiles for one replica, not 2"):
        Machine(
            config,
            Replicas("cpu", 2, None),
            precision="float32",
            image_shape=(16, 16),
            n_steps=10,
        )


@pytest.mark.slow
def test_two_replicas_train_as_one_does(tmp_path):
    """The same batches, the last of an epoch with one image, for 56 steps."""
    images, labels = synthetic.draw_fields(39, (32, 32), seed=5)
    masks = (labels > 0).astype("uint8")
    np.savez(tmp_path / "train.npz", X=images, y=masks)
    config = tmp_path / "train.yaml"
    config.write_text(
        f"data: {{archive: {tmp_path / 'train.npz'}}}\n"
        "model: {base_filters: 2, dropout: 0}\n"
        "training: {epochs: 7, batch_size: 4, clip_norm: 0.05, ema_decay: 0.9,"
        " precision: float32, device: cpu}\n"
    )
    tables = []
    for replicas in (1, 2):
        root = tmp_path / str(replicas)
        answer = run_nucleiseg(
            *("train", config, "--run", root),
            *("--set", f"training.replicas={replicas}"),
        )
        assert answer.returncode == 0, answer.stderr
        tables.append(pd.read_csv(root / "history.csv"))
    assert "training on 29 images, validating on 10, 2 x cpu" in answer.stderr
    np.testing.assert_allclose(tables[0], tables[1], rtol=1e-3)
