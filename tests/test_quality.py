"""Flags against images drawn for them, and confidence against counted cases."""

import dataclasses
import itertools

import cv2
import numpy as np
import pytest
from scipy import ndimage

from nucleiseg.config import InstancesConfig
from nucleiseg.instances import (
    count_nuclei,
    join_blocks,
    saturation_limit,
    score_nuclei,
    segment_nuclei,
    summarise_block,
)
from nucleiseg.quality import (
    FLAGS,
    Calibration,
    Measures,
    QualityLimits,
    estimate_blur,
    estimate_noise,
    find_contrast,
    find_edge_contrast,
    find_flags,
    find_gaussianity,
    find_skewness,
    measure_image,
)

NOISE = 1.5
KNOWN = (12.0, 30.0)


def draw_disks(shape=(160, 192), radius=9, seed=0):
    """Disks on a jittered grid, never touching; about a quarter of the places empty."""
    rng = np.random.default_rng(seed)
    rows, columns = np.indices(shape)
    mask = np.zeros(shape, bool)
    step = 3 * radius
    corners = itertools.product(
        range(step, shape[0] - radius, step), range(step, shape[1] - radius, step)
    )
    for row, column in corners:
        if rng.random() < 0.75:
            row, column = row + rng.integers(-3, 4), column + rng.integers(-3, 4)
            mask |= (rows - row) ** 2 + (columns - column) ** 2 <= radius**2
    return mask


def expose(light, *, noise=NOISE, seed=1):
    """A camera's 8 bits of light, with noise."""
    rng = np.random.default_rng(seed)
    values = light + rng.normal(0, noise, light.shape)
    return np.rint(values).clip(0, 255).astype(np.uint8)


def light(mask, *, blur=1.0, ground=20.0, height=120.0):
    sharp = ground + height * mask.astype(np.float64)
    return ndimage.gaussian_filter(sharp, blur) if blur else sharp


MASK = draw_disks()
IMAGE = expose(light(MASK))
N_DISKS = ndimage.label(MASK)[1]


def flag(image, mask=MASK, *, count=None, **options):
    count = ndimage.label(mask)[1] if count is None else count
    return find_flags(
        measure_image(image, mask), count=count, diameters_px=KNOWN, **options
    )


class TestFlags:
    def test_a_good_image_has_none(self):
        assert N_DISKS > 15
        assert flag(IMAGE) == ""

    @pytest.mark.parametrize("noise", [0.5, 5.0, 20.0])
    def test_nor_has_a_noisy_one(self, noise):
        assert flag(expose(light(MASK), noise=noise)) == ""

    @pytest.mark.parametrize("blur", [3.0, 4.0, 5.5])
    def test_out_of_focus(self, blur):
        blurred = light(MASK, blur=blur)
        # Where an outline would be drawn in it.
        mask = blurred > (blurred.max() + blurred.min()) / 2
        assert flag(expose(blurred), mask) == "out_of_focus"

    def test_what_is_blurred_for_small_nuclei_is_sharp_for_large_ones(self):
        large = draw_disks((300, 300), radius=30)
        image = expose(light(large, blur=3))
        flags = find_flags(measure_image(image, large), count=5)
        assert flags == ""
        small = expose(light(draw_disks(radius=5), blur=3))
        assert flag(small, draw_disks(radius=5)).startswith("out_of_focus")

    @pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
    def test_saturated(self, dtype):
        gain = np.where(MASK, light(MASK) * (1 + np.indices(MASK.shape)[1] / 200), 20)
        top = np.quantile(gain[MASK], 0.6)
        image = expose(np.minimum(gain, top), noise=0.0)
        # A camera of 12 bits ends below the end of its 16.
        factor = {"uint8": 1, "uint16": 16, "float32": 1 / 255}[dtype]
        assert flag((image * np.float32(factor)).astype(dtype)) == "saturated"

    def test_inverted(self):
        assert flag(255 - IMAGE) == "inverted"

    def test_inverted_and_the_ground_taken_for_nuclei(self):
        assert flag(255 - IMAGE, ~MASK, count=1) == "inverted"

    def test_inverted_and_nothing_found(self):
        assert flag(255 - IMAGE, np.zeros_like(MASK)) == "inverted"
        assert find_flags(measure_image(255 - IMAGE), count=0) == "inverted"

    def test_a_crowd_is_not_inverted(self):
        # More nuclei than ground: the histogram alone looks as if inverted.
        crowd = ~draw_disks(radius=4, seed=3)
        rows = np.indices(crowd.shape)
        crowd &= (rows[0] % 14 > 0) & (rows[1] % 14 > 0)
        image = expose(light(crowd, blur=0.7))
        assert find_skewness(measure_image(image, crowd)) < QualityLimits().skewness
        assert "inverted" not in find_flags(measure_image(image, crowd), count=150)

    @pytest.mark.parametrize("correlation", [0.0, 0.7, 1.5])
    @pytest.mark.parametrize("slope", [0.0, 30.0])
    def test_noise_is_empty_whatever_was_found_in_it(self, correlation, slope):
        rng = np.random.default_rng(5)
        noise = ndimage.gaussian_filter(rng.normal(size=(200, 200)), correlation)
        noise *= 4 / noise.std()
        image = expose(60 + slope * np.linspace(0, 1, 200) + noise, noise=0.0)
        # As a network does it that takes the brightest for nuclei.
        smooth = ndimage.gaussian_filter(noise, 3)
        found = smooth > np.quantile(smooth, 0.85)
        assert flag(image, found, count=20) == "empty"

    @pytest.mark.parametrize("value", [0, 7, 255, 0.1, -1e6])
    @pytest.mark.parametrize("count", [0, 1])
    def test_constant_is_empty(self, value, count):
        image = np.full((40, 50), value, np.float32)
        inside = np.zeros(image.shape, bool)
        inside[10:30, 10:30] = count
        assert flag(image, inside, count=count) == "empty"

    def test_nothing_found_is_empty(self):
        assert flag(IMAGE, np.zeros_like(MASK)) == "empty"
        assert find_flags(measure_image(IMAGE), count=0) == "empty"

    @pytest.mark.parametrize(
        ("scale", "expected"),
        [(1.0, ""), (0.5, "foreign_scale"), (1.9, ""), (2.2, "foreign_scale")],
    )
    def test_foreign_scale_is_that_which_the_network_saw(self, scale, expected):
        # 18 px: with the margin, 9.6 to 37.5 px are known.
        assert flag(IMAGE, scale=scale) == expected

    def test_no_scale_is_foreign_to_a_model_that_does_not_say(self):
        assert find_flags(measure_image(IMAGE, MASK), count=N_DISKS, scale=99) == ""

    def test_several(self):
        blurred = light(draw_disks(radius=30), blur=9).clip(0, 110)
        found = find_flags(
            measure_image(expose(blurred, noise=0), blurred > 70),
            count=4,
            diameters_px=(8, 20),
        )
        assert found == "out_of_focus;saturated;foreign_scale"

    def test_names(self):
        assert len({*FLAGS}) == 5
        # So that each is counted by itself.
        pairs = itertools.permutations(FLAGS, 2)
        assert not any(one in other for one, other in pairs)

    def test_small_images(self):
        image = np.array([[9, 0], [9, 0]], np.uint8)
        assert find_flags(measure_image(image, image > 0), count=1) == "saturated"
        assert find_flags(measure_image(image), count=0) == "empty"

    @pytest.mark.parametrize("image", [IMAGE, expose(light(MASK, blur=5)), 255 - IMAGE])
    def test_same_whatever_the_unit(self, image):
        expected = flag(image)
        for changed in (
            image.astype(np.uint16) * 257,
            image.astype(">u2"),
            image.astype(np.float32) / 255,
            image.astype(np.float64) * 1e-20,
            image.astype(np.float32) * 1e30,
            image.astype(np.int32) * 1000 - 30000,
            np.asfortranarray(image),
        ):
            assert flag(changed) == expected

    def test_inputs_are_unchanged(self):
        image, mask = IMAGE.copy(), MASK.copy()
        image.flags.writeable = mask.flags.writeable = False
        measure_image(image, mask)
        np.testing.assert_array_equal(image, IMAGE)
        np.testing.assert_array_equal(mask, MASK)


class TestMeasures:
    @pytest.mark.parametrize("blur", [0.0, 1.0, 2.0, 3.0, 5.0, 8.0])
    def test_blur_of_an_edge_is_found(self, blur):
        edge = light(np.indices((200, 400))[1] > 200, blur=blur)
        found = estimate_blur(measure_image(edge, edge > 80))
        assert found == pytest.approx(blur, abs=0.06 + 0.05 * blur)

    def test_noise_does_not_hide_blur_nor_make_it(self):
        for noise, blur in itertools.product([0.0, 2.0, 6.0], [1.0, 3.0]):
            image = expose(light(MASK, blur=blur), noise=noise)
            found = estimate_blur(measure_image(image, MASK))
            assert found == pytest.approx(blur, rel=0.35)

    @pytest.mark.parametrize("noise", [0.5, 3.0, 20.0])
    def test_noise_is_found(self, noise):
        rng = np.random.default_rng(2)
        image = 100 + rng.normal(0, noise, (256, 256)) + np.linspace(0, 50, 256)
        measures = measure_image(image, np.zeros(image.shape, bool))
        assert estimate_noise(measures) == pytest.approx(noise, rel=0.03)

    def test_by_their_definitions(self):
        measures = measure_image(IMAGE, MASK)
        values = IMAGE.astype(np.float64)
        assert measures.n_inside == MASK.sum()
        assert measures.inside_sum == values[MASK].sum()
        assert measures.value_sum == values.sum()
        assert measures.highest == IMAGE.max()
        assert measures.n_highest == (IMAGE[MASK] == IMAGE.max()).sum()
        assert (
            measures.n_outside
            == (~ndimage.binary_dilation(MASK, np.ones((3, 3)))).sum()
        )

        binomial = np.outer([1, 4, 6, 4, 1], [1, 4, 6, 4, 1]) / 256
        smooth = ndimage.convolve(values, binomial, mode="mirror")[::2, ::2]
        smoother = ndimage.convolve(smooth, binomial, mode="mirror")
        coarse = smoother[::2, ::2]
        middle = coarse - ndimage.convolve(coarse, binomial, mode="mirror")
        assert measures.fine_energy == pytest.approx(((smooth - smoother) ** 2).sum())
        assert measures.middle_energy == pytest.approx((middle**2).sum())
        assert measures.middle_size == pytest.approx(abs(middle).sum())
        slopes = [ndimage.sobel(smooth, axis=axis, mode="mirror") for axis in (0, 1)]
        outline = ndimage.binary_dilation(
            MASK, np.ones((3, 3))
        ) ^ ndimage.binary_erosion(MASK, np.ones((3, 3)), border_value=1)
        expected = sum(abs(slope)[outline[::2, ::2]].sum() for slope in slopes)
        assert measures.outline_slope == pytest.approx(expected)

        spread = coarse.std()
        inside, outside = values[MASK].mean(), values[~MASK].mean()
        assert find_contrast(measures) == pytest.approx((inside - outside) / spread)
        skewness = ((coarse - coarse.mean()) ** 3).mean() / spread**3
        assert find_skewness(measures) == pytest.approx(skewness)
        gaussianity = abs(middle).mean() / np.sqrt((middle**2).mean())
        assert find_gaussianity(measures) == pytest.approx(gaussianity)
        assert find_edge_contrast(measures) > 10

    def test_without_nuclei_what_is_measured_is_the_same(self):
        one = dataclasses.asdict(measure_image(IMAGE))
        other = dataclasses.asdict(measure_image(IMAGE, np.zeros_like(MASK)))
        for name in ("n_pixels", "value_sum", "smooth_cube", "n_middle"):
            assert one[name] == other[name]

    def test_a_large_image_is_measured_in_strips(self, monkeypatch):
        whole = measure_image(IMAGE, MASK)
        monkeypatch.setattr("nucleiseg.quality.measures._PIXELS_AT_ONCE", 10_000)
        strips = measure_image(IMAGE, MASK)
        assert strips != whole
        for name in ("n_pixels", "n_inside", "n_highest", "highest", "value_sum"):
            assert getattr(strips, name) == getattr(whole, name)
        assert estimate_blur(strips) == pytest.approx(estimate_blur(whole), rel=0.1)
        monkeypatch.setattr("nucleiseg.quality.measures._PIXELS_AT_ONCE", 1)
        assert measure_image(IMAGE, MASK).n_pixels == IMAGE.size
        assert measure_image(IMAGE[:5], MASK[:5]).n_pixels == IMAGE[:5].size

    def test_back_and_forth(self):
        measures = measure_image(IMAGE, MASK)
        assert Measures.from_numbers(measures.as_numbers()) == measures
        assert Measures.from_numbers(Measures().as_numbers()) == Measures()
        kinds = [type(value) for value in dataclasses.astuple(measures)]
        assert {*kinds} == {int, float}

    def test_sums_know_their_largest_value(self):
        one, two = (measure_image(part, part > 0) for part in np.eye(2)[:, None] * 5)
        three = measure_image(np.full((1, 4), 7), np.ones((1, 4), bool))
        assert (one + two).n_highest == 2
        assert (one + three + two).n_highest == 4
        assert sum((one, two), Measures()).highest == 5


class TestBlocks:
    @pytest.mark.parametrize(
        "image",
        [
            IMAGE,
            255 - IMAGE,
            expose(light(MASK, blur=5)),
            np.minimum(IMAGE, 100),
            IMAGE.astype(np.float32) / 255,
            np.full_like(IMAGE, 9),
        ],
        ids=["good", "inverted", "blurred", "cut off", "float", "constant"],
    )
    def test_flags_are_those_of_the_whole(self, image):
        maps = MASK.astype(np.float32)[..., np.newaxis] * 0.9
        settings = InstancesConfig()
        limit = saturation_limit(image.dtype, float(image.max()))
        parts = []
        for rows, columns in itertools.product(
            (slice(0, 70), slice(70, 160)), (slice(0, 100), slice(100, 192))
        ):
            core = (rows, columns)
            block = summarise_block(
                image[core], maps[core], core, image.shape, settings, limit=limit
            )
            parts.append((core, type(block).from_bytes(block.to_bytes())))
        found = join_blocks(parts, image.shape, settings)
        assert found == count_nuclei(image, maps, settings)


CALIBRATION = Calibration((0.2, 0.6, 0.9), (0.1, 0.5, 1.0), (3.0, 50.0))


def make_maps(seed=0, shape=(90, 110)):
    """Foreground with touching nuclei, and markers of various heights."""
    rng = np.random.default_rng(seed)
    noise = ndimage.gaussian_filter(rng.random(shape), 3)
    noise = (noise - noise.min()) / np.ptp(noise)
    markers = ndimage.gaussian_filter(rng.random(shape), 2)
    markers = (markers - markers.min()) / np.ptp(markers)
    return np.stack([noise, markers], axis=-1).astype(np.float32)


class TestConfidence:
    @pytest.mark.parametrize("n_maps", [1, 2])
    @pytest.mark.parametrize("min_area_px", [0, 40])
    def test_by_hand(self, n_maps, min_area_px):
        maps = make_maps()[..., :n_maps]
        image = (maps[..., 0] * 255).astype(np.uint8)
        settings = InstancesConfig(min_area_px=min_area_px)
        labels, summary = segment_nuclei(image, maps, settings, calibration=CALIBRATION)
        numbers = range(1, labels.max() + 1)
        scores = [maps[labels == n, -1].mean(dtype=np.float64) for n in numbers]
        np.testing.assert_allclose(score_nuclei(maps, labels), scores, atol=1e-8)
        shares = np.interp(scores, CALIBRATION.scores, CALIBRATION.shares)
        assert len(shares) > 3
        assert summary.confidence == round(float(shares.mean()), 4)
        assert count_nuclei(image, maps, settings, calibration=CALIBRATION) == summary

    @pytest.mark.parametrize("n_maps", [1, 2])
    @pytest.mark.parametrize("min_area_px", [0, 40])
    def test_same_in_blocks(self, n_maps, min_area_px):
        maps = make_maps(3)[..., :n_maps]
        image = (maps[..., 0] * 255).astype(np.uint8)
        settings = InstancesConfig(min_area_px=min_area_px, method="components")
        parts = []
        for rows, columns in itertools.product(
            (slice(0, 33), slice(33, 90)), (slice(0, 50), slice(50, 110))
        ):
            core = (rows, columns)
            block = summarise_block(
                image[core],
                maps[core],
                core,
                image.shape,
                settings,
                limit=None,
                calibration=CALIBRATION,
            )
            parts.append((core, type(block).from_bytes(block.to_bytes())))
        found = join_blocks(parts, image.shape, settings, calibration=CALIBRATION)
        whole = count_nuclei(image, maps, settings, calibration=CALIBRATION)
        assert found.confidence == whole.confidence
        assert whole.count > 5

    def test_without_a_calibration_it_is_the_mean_probability(self):
        maps = make_maps()
        image = (maps[..., 0] * 255).astype(np.uint8)
        labels, summary = segment_nuclei(image, maps, InstancesConfig())
        mean = maps[labels > 0, 0].mean(dtype=np.float64)
        assert summary.confidence == round(float(mean), 4)

    def test_none_without_nuclei(self):
        maps = np.zeros((30, 30, 2), np.float32)
        image = np.zeros((30, 30), np.uint8)
        summary = count_nuclei(image, maps, InstancesConfig(), calibration=CALIBRATION)
        assert summary.confidence is None
        assert score_nuclei(maps, np.zeros((30, 30), np.int32)).tolist() == []

    def test_a_number_that_is_missing_has_no_score(self):
        labels = np.zeros((4, 4), np.int32)
        labels[0], labels[3] = 1, 3
        found = score_nuclei(np.full((4, 4, 1), 0.75, np.float32), labels)
        np.testing.assert_array_equal(found, [0.75, np.nan, 0.75])

    def test_diameters_are_those_of_the_calibration(self):
        maps = MASK.astype(np.float32)[..., np.newaxis]
        found = [
            count_nuclei(
                IMAGE,
                maps,
                InstancesConfig(),
                calibration=dataclasses.replace(CALIBRATION, diameters_px=known),
            ).flags
            for known in (None, (200.0, 300.0))
        ]
        assert found == ["", "foreign_scale"]

    def test_of_an_image_that_the_network_saw_enlarged(self):
        maps = np.stack([MASK, MASK * 0.6], axis=-1).astype(np.float32)
        large = maps.repeat(2, axis=0).repeat(2, axis=1)
        found = {}
        for known in ((14.0, 22.0), (30.0, 40.0)):
            calibration = dataclasses.replace(CALIBRATION, diameters_px=known)
            for name, seen in (("small", maps), ("large", large)):
                _, summary = segment_nuclei(
                    IMAGE, seen, InstancesConfig(), calibration=calibration
                )
                assert summary.count == N_DISKS
                # Interpolation makes the markers lower at the edges.
                assert summary.confidence == pytest.approx(0.5, abs=0.03)
                found[name, known[0]] = summary.flags
        assert found["small", 14] == found["large", 30] == ""
        assert found["small", 30] == found["large", 14] == "foreign_scale"


class TestCalibration:
    def test_is_linear_between_knots_and_constant_beyond(self):
        found = CALIBRATION.apply(np.array([0.0, 0.2, 0.4, 0.75, 0.9, 1.0]))
        np.testing.assert_allclose(found, [0.1, 0.1, 0.3, 0.75, 1.0, 1.0])

    @pytest.mark.parametrize(
        "calibration", [CALIBRATION, Calibration((0.5,), (0.8,)), None]
    )
    def test_back_and_forth(self, calibration):
        if calibration is not None:
            assert Calibration.from_dict(calibration.as_dict()) == calibration

    @pytest.mark.parametrize(
        ("scores", "shares", "diameters_px"),
        [
            ((), (), None),
            ((0.1, 0.2), (0.5,), None),
            ((0.2, 0.1), (0.1, 0.5), None),
            ((0.1, 0.1), (0.1, 0.5), None),
            ((0.1, 0.2), (0.5, 0.4), None),
            ((0.1, 0.2), (0.5, 1.1), None),
            ((0.1, 0.2), (-0.1, 1.0), None),
            ((float("nan"),), (0.5,), None),
            ((0.1,), (float("nan"),), None),
            ((0.1,), (0.5,), (5.0, 4.0)),
            ((0.1,), (0.5,), (0.0, 4.0)),
        ],
    )
    def test_damage_is_refused(self, scores, shares, diameters_px):
        with pytest.raises(ValueError, match="calibrate anew"):
            Calibration(scores, shares, diameters_px)


def test_opencv_sums_squares_of_large_values():
    # What the module relies on.
    values = np.full((20, 20), 1e30, np.float32)
    assert cv2.norm(values, cv2.NORM_L2SQR) == pytest.approx(4e62, rel=1e-6)
