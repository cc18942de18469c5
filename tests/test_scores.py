"""Validation scores: what is true is decided source by source."""

import logging

import numpy as np
import pytest

from nucleiseg.config import load_config
from nucleiseg.dataset import inspect_labelled, open_labelled
from nucleiseg.model import build_unet
from nucleiseg.runs import TrainRun
from nucleiseg.training.scores import score_counts


@pytest.fixture
def sources(tmp_path):
    """Two nuclei that touch in each image: as labels in one archive, a mask in another.

    One more image with labels holds a single nucleus in two parts.
    """
    images = np.random.default_rng(0).random((9, 32, 32), dtype="float32")
    labels = np.zeros((9, 32, 32), "uint16")
    labels[:, 8:24, 4:16], labels[:, 8:24, 16:28] = 1, 2
    mask = (labels > 0).astype("uint8")
    labels[0] = 0
    labels[0, 2:10, 2:10] = labels[0, 20:28, 20:28] = 1
    # An image's hash decides on overlap: no two are alike.
    np.savez(tmp_path / "labels.npz", X=images, y=labels)
    np.savez(tmp_path / "masks.npz", X=images + 1, y=mask)
    return tmp_path


@pytest.fixture
def labelled(sources):
    config = load_config(
        None,
        [
            f"data.archive={sources / 'labels.npz'}",
            f"data.more=[{{archive: {sources / 'masks.npz'}}}]",
            "data.validation_share=0.5",
            "model.base_filters=1",
            "model.head=distance",
        ],
    )
    run = TrainRun(sources / "run")
    return config, open_labelled(inspect_labelled(config.data), config, run)


def test_true_nuclei_are_counted_by_the_kind_of_their_source(labelled):
    config, data = labelled
    weights = build_unet(config.model).get_weights()
    scores = score_counts(config, weights, data, lambda: False)
    images = data.validation.images
    expected = [1 if image == 0 or image >= 9 else 2 for image in images.tolist()]
    assert {1, 2} <= set(expected)
    assert scores["true_total"] == sum(expected)
    assert scores["n_images"] == 9


def test_one_nucleus_with_a_label_is_no_mask(labelled):
    _, data = labelled
    assert [data.is_mask(image) for image in (0, 1, 9, 17)] == [
        False,
        False,
        True,
        True,
    ]


def test_masks_among_labels_are_warned_of(labelled, sources, caplog):
    config, _ = labelled
    caplog.set_level(logging.WARNING)
    run = TrainRun(sources / "run")
    open_labelled(inspect_labelled(config.data), config, run)
    (record,) = [r for r in caplog.records if "masks of 0 and 1" in r.message]
    assert "masks.npz" in record.message
    assert "labels.npz" not in record.message
