"""Maps that are the mean over views of an image."""

import keras
import numpy as np
import pytest

from nucleiseg.config import ModelConfig
from nucleiseg.model import add_prediction, build_unet, predict
from nucleiseg.model.views import average_views

SETTINGS = ModelConfig(head="combined", base_filters=1, resolution="half")


@pytest.fixture(scope="module")
def network():
    keras.utils.set_random_seed(0)
    return add_prediction(build_unet(SETTINGS), SETTINGS)


@pytest.fixture
def images():
    return np.random.default_rng(0).random((2, 32, 48), dtype=np.float32)


def run(network, images):
    return predict(network, np.ascontiguousarray(images), batch_size=2)


@pytest.mark.parametrize(
    ("n_views", "axes"), [(2, [(), (1, 2)]), (4, [(), (1, 2), (2,), (1,)])]
)
def test_they_are_the_mean_of_what_each_view_gives(network, images, n_views, axes):
    each = [np.flip(run(network, np.flip(images, one)), one) for one in axes]
    assert not np.allclose(each[0], each[1], atol=1e-3)
    found = run(average_views(network, n_views), images)
    np.testing.assert_allclose(found, np.mean(each, axis=0), atol=1e-6)


def test_of_four_views_a_mirrored_image_has_the_mirrored_maps(network, images):
    views = average_views(network, 4)
    for axis in (1, 2):
        mirrored = run(views, np.flip(images, axis))
        np.testing.assert_allclose(
            np.flip(mirrored, axis), run(views, images), atol=1e-6
        )


def test_one_view_is_the_network_itself(network):
    assert average_views(network, 1) is network


def test_another_number_is_refused(network):
    with pytest.raises(ValueError, match="views is 3, expected 1, 2 or 4"):
        average_views(network, 3)
