"""The diameter of nuclei, estimated with a network that knows one size."""

import numpy as np
import pytest

from nucleiseg.config import InstancesConfig, PreprocessConfig
from nucleiseg.inference.estimating import estimate_diameter
from nucleiseg.inference.windows import WINDOW_PX, cut_windows, pad_window
from nucleiseg.preprocess import normalise
from tests.disks import WANTED_PX, draw_disks, find_disks

SETTINGS = InstancesConfig()


def estimate(*images, predict=find_disks):
    normalised = [normalise(image, PreprocessConfig()) for image in images]
    return estimate_diameter(normalised, predict, SETTINGS, WANTED_PX)


class TestEstimate:
    @pytest.mark.parametrize("diameter_px", [7, 10, 15, 22, 30, 45, 65, 100])
    def test_disks_of_any_size(self, diameter_px):
        side = max(200, 8 * diameter_px)
        images = [draw_disks((side, side), diameter_px, seed=n)[0] for n in range(4)]
        found = estimate(*images)
        assert found.diameter_px == pytest.approx(diameter_px, rel=0.15)
        assert found.n_nuclei > 10

    def test_the_same_disks_enlarged_are_as_much_larger(self):
        image, _ = draw_disks((256, 256), 14)
        one = estimate(image).diameter_px
        twice = estimate(np.kron(image, np.ones((2, 2), image.dtype))).diameter_px
        assert twice / one == pytest.approx(2, rel=0.05)

    def test_it_is_the_same_each_time(self):
        image, _ = draw_disks((300, 300), 17, noise=8)
        assert estimate(image, image) == estimate(image, image)

    def test_of_sizes_that_differ_from_image_to_image_it_is_one_between(self):
        images = [
            draw_disks((220, 220), diameter_px, seed=n)[0]
            for n, diameter_px in enumerate([9, 12, 14, 18])
        ]
        assert 10 < estimate(*images).diameter_px < 16

    def test_one_image_full_of_specks_does_not_outweigh_the_others(self):
        """Specks: far more of them, and over far more of the image."""
        specks, _ = draw_disks((512, 512), 9, gap=1.3)
        few = [draw_disks((128, 190), 24, gap=2.6, seed=n)[0] for n in range(7)]
        assert estimate(specks).diameter_px == pytest.approx(9, rel=0.15)
        assert estimate(*few, specks).diameter_px == pytest.approx(24, rel=0.15)

    @pytest.mark.parametrize(
        "image",
        [
            np.zeros((128, 128), np.uint8),
            np.full((1, 1), 7.0),
            draw_disks((200, 200), 400)[0],
        ],
        ids=["empty", "pixel", "one bright thing"],
    )
    def test_without_nuclei_there_is_no_diameter(self, image):
        assert estimate(image).diameter_px is None

    def test_without_images_there_is_no_diameter(self):
        assert estimate(predict=pytest.fail).diameter_px is None

    def test_output_that_is_not_finite_is_no_nucleus(self):
        image, _ = draw_disks((200, 200), 26)

        def predict(windows):
            return np.full((*windows.shape, 2), np.nan, np.float32)

        assert estimate(image, predict=predict).diameter_px is None


class TestWindows:
    @pytest.mark.parametrize("scale", [0.25, 0.71, 1.0, 1.41, 4.0])
    @pytest.mark.parametrize("shape", [(3, 500), (256, 256), (700, 300)])
    def test_all_are_padded_to_one_shape(self, shape, scale):
        image = np.random.default_rng(1).random(shape, dtype=np.float32)
        windows = cut_windows(image, scale, 5)
        assert 1 <= len(windows) <= 5
        for window in windows:
            expected = [min(WINDOW_PX, round(side * scale)) for side in shape]
            np.testing.assert_allclose(window.shape, np.maximum(expected, 1), atol=1)
            padded = pad_window(window)
            assert padded.shape == (WINDOW_PX, WINDOW_PX)
            height, width = window.shape
            np.testing.assert_array_equal(padded[:height, :width], window)

    def test_the_busiest_parts_come_first(self):
        image = np.zeros((1024, 1024), np.float32)
        image[300:330, 600:630] = 1
        image[900:905, 10:15] = 1
        (first, second, third) = cut_windows(image, 1.0, 3)
        assert first.sum() == 900
        assert second.sum() == 25
        assert third.sum() == 0

    def test_windows_of_an_image_do_not_overlap(self):
        image = np.arange(1024 * 600, dtype=np.float32).reshape(1024, 600)
        windows = cut_windows(image, 1.0, 100)
        seen = np.concatenate([window.ravel() for window in windows])
        assert len(windows) == 8
        assert len(np.unique(seen)) == 8 * WINDOW_PX**2
