"""Validation scores: what is true is decided source by source."""

import logging

import numpy as np
import pytest

from nucleiseg.config import AugmentationConfig, load_config
from nucleiseg.dataset import (
    BatchOrder,
    Gatherer,
    inspect_labelled,
    open_labelled,
    targets,
)
from nucleiseg.dataset.targets import label_components
from nucleiseg.model import build_unet
from nucleiseg.runs import TrainRun
from nucleiseg.training.scores import score_counts


@pytest.fixture(params=[1, 255])
def foreground(request):
    """What masks hold where nuclei are."""
    return request.param


@pytest.fixture
def sources(tmp_path, foreground):
    """Two nuclei that touch in each image: as labels in one archive, a mask in another.

    One more image with labels holds a single nucleus in two parts; of one mask the
    nuclei lie apart.
    """
    images = np.random.default_rng(0).random((9, 32, 32), dtype="float32")
    labels = np.zeros((9, 32, 32), "uint16")
    labels[:, 8:24, 4:16], labels[:, 8:24, 16:28] = 1, 2
    mask = (labels > 0).astype("uint8") * np.uint8(foreground)
    mask[0, :, 14:18] = 0
    labels[0] = 0
    labels[0, 2:10, 2:10] = labels[0, 20:28, 20:28] = foreground
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
    expected = [1 if image == 0 or image > 9 else 2 for image in images.tolist()]
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


def test_masks_among_labels_are_warned_of(labelled, sources, foreground, caplog):
    config, _ = labelled
    caplog.set_level(logging.WARNING)
    run = TrainRun(sources / "run")
    open_labelled(inspect_labelled(config.data), config, run)
    (record,) = [r for r in caplog.records if "are masks" in r.message]
    assert f"masks.npz (0 and {foreground})" in record.message
    assert "labels.npz" not in record.message


def test_targets_of_masks_are_those_of_their_components(labelled):
    _, data = labelled
    part = data.validation
    order = BatchOrder(part.n_crops, 1, shuffle=False, seed=0)
    store = data.make_store(part, order, first_batch=0, n_batches=order.n_batches)
    gatherer = Gatherer(data, part, order, store, AugmentationConfig())
    for number, image in enumerate(part.images.tolist()):
        _, found = gatherer.gather(number)
        _, (stored,) = gatherer.gather_labels(number)
        nuclei = label_components(stored) if image >= 9 else stored
        np.testing.assert_array_equal(found[0], targets(nuclei, data.head))


def test_nuclei_of_masks_are_measured_one_by_one(labelled):
    _, data = labelled
    diameters = data.survey.diameters
    assert diameters[9] == pytest.approx(np.sqrt(16 * 10 * 4 / np.pi))
    assert diameters[10] == pytest.approx(np.sqrt(16 * 24 * 4 / np.pi))


def test_facts_of_an_earlier_meaning_are_found_anew(labelled, sources, caplog):
    config, data = labelled
    (path,) = (sources / "run" / "data").glob("survey-*.npz")
    with np.load(path) as stored:
        facts = {name: stored[name] for name in stored if name != "smallest_labels"}
    path.unlink()
    # As it was named before, and as one of now that is cut short.
    for name in ("survey-" + "0" * 32 + ".npz", path.name):
        np.savez(path.with_name(name), **facts)
    run = TrainRun(sources / "run")
    again = open_labelled(inspect_labelled(config.data), config, run)
    assert again.survey.get_label_values(9, 18) == data.survey.get_label_values(9, 18)
    assert "it is made again" in caplog.text
