"""Counting in one call, against labelling by SciPy and plain sums."""

import math
from dataclasses import astuple
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage

from nucleiseg.config import InstancesConfig
from nucleiseg.instances import (
    ImageSummary,
    count_nuclei,
    label_nuclei,
    saturation_limit,
    summarise,
)
from nucleiseg.instances.sums import (
    UNIT,
    mean_probability,
    sum_by_label,
    sum_probabilities,
)

probabilities = hnp.arrays(
    np.float32,
    hnp.array_shapes(min_dims=2, max_dims=2, max_side=14),
    elements=st.sampled_from([0, 0.25, 0.5, 0.75, 1]) | st.floats(0, 1, width=32),
)
configs = st.builds(
    InstancesConfig,
    threshold=st.sampled_from([0.5, 0.3, 0.7, 0.01, 0.003, 1e-6, 0.999]),
    min_area_px=st.integers(0, 20),
)


def label(probability, settings):
    return label_nuclei(probability[..., np.newaxis], settings)


def summarise_labels(image, probability, labels):
    return summarise(image, probability[..., np.newaxis], labels)


def count(image, probability, settings, **options):
    return count_nuclei(image, probability[..., np.newaxis], settings, **options)


def summarise_by_hand(image, probability, settings, limit):
    """All figures by their definition, with exact fractions."""
    mask = probability > np.float32(settings.threshold)
    labels, n_labels = ndimage.label(mask, structure=np.ones((3, 3)))
    nuclei = [labels == number for number in range(1, n_labels + 1)]
    nuclei = [nucleus for nucleus in nuclei if nucleus.sum() >= settings.min_area_px]
    edge = np.ones(mask.shape, bool)
    edge[1:-1, 1:-1] = False
    area = sum(int(nucleus.sum()) for nucleus in nuclei)
    total = sum(
        (Fraction(float(p)) for nucleus in nuclei for p in probability[nucleus]),
        Fraction(0),
    )
    return ImageSummary(
        count=len(nuclei),
        foreground_share=round(area / mask.size, 4),
        mean_area_px=round(area / len(nuclei), 2) if nuclei else None,
        border_count=sum(bool((nucleus & edge).any()) for nucleus in nuclei),
        saturated_share=round(int((image == limit).sum()) / mask.size, 4),
        confidence=round(float(total / area), 4) if nuclei else None,
        flags=flag_by_hand(image, nuclei),
    )


def flag_by_hand(image, nuclei):
    """Flags of an image too small for anything but counts of pixels."""
    if not nuclei:
        return "empty"
    values = np.concatenate([image[nucleus] for nucleus in nuclei])
    return "saturated" if (values == image.max()).mean() > 0.15 else ""


class TestCountNuclei:
    @examples(deadline=None, max_examples=400)
    @given(probabilities, configs)
    def test_by_hand_and_as_in_two_steps(self, probability, settings):
        image = (probability * 255).astype(np.uint8)
        expected = summarise_by_hand(image, probability, settings, 255)
        assert count(image, probability, settings) == expected
        labels = label(probability, settings)
        assert summarise_labels(image, probability, labels) == expected

    @pytest.mark.parametrize("min_area_px", [0, 2, 30, 10**6])
    @pytest.mark.parametrize("shape", [(128, 128), (1100, 1000)])
    def test_as_in_two_steps_at_size(self, shape, min_area_px):
        # The larger shape is summed in several parts.
        rng = np.random.default_rng(3)
        probability = ndimage.gaussian_filter(rng.random(shape, np.float32), 2)
        probability = (probability - 0.4) * 5
        settings = InstancesConfig(min_area_px=min_area_px)
        image = probability.astype(np.float16)
        labels = label(probability, settings)
        expected = summarise_labels(image, probability, labels)
        assert count(image, probability, settings) == expected
        assert (expected.count > 10) == (min_area_px < 10**6)
        foreground = probability[labels > 0]
        if expected.count:
            mean = foreground.mean(dtype=np.float64)
            assert expected.confidence == round(float(mean), 4)
        assert expected.foreground_share == round(foreground.size / labels.size, 4)

    @pytest.mark.parametrize("value", [np.nan, np.inf])
    @pytest.mark.parametrize("others", [0.1, 0.9])
    def test_not_finite(self, value, others):
        probability = np.full((5, 6), others, np.float32)
        probability[2, 3] = value
        with pytest.raises(ValueError, match=r"^not finite$"):
            count(probability, probability, InstancesConfig())

    def test_inputs_are_unchanged(self):
        probability = np.random.default_rng(0).random((30, 30), np.float32)
        image = (probability * 255).astype(np.uint8)
        before = image.copy(), probability.copy()
        image.flags.writeable = probability.flags.writeable = False
        count(image, probability, InstancesConfig(min_area_px=4))
        np.testing.assert_array_equal(image, before[0])
        np.testing.assert_array_equal(probability, before[1])

    def test_views(self):
        # A tile's inner part, and an array in Fortran order.
        probability = np.random.default_rng(0).random((40, 50), np.float32)
        part = probability[3:33, 5:45]
        expected = count(part.copy(), part.copy(), InstancesConfig())
        assert count(part, part, InstancesConfig()) == expected
        turned = np.asfortranarray(part)
        assert count(turned, turned, InstancesConfig()) == expected

    def test_figures_are_plain(self):
        image = np.full((4, 4), 255, np.uint8)
        summary = count(image, np.ones((4, 4), np.float32), InstancesConfig())
        kinds = [type(value) for value in astuple(summary)]
        assert kinds == [int, float, float, int, float, float, str]


class TestSaturation:
    @pytest.mark.parametrize(
        ("dtype", "highest", "limit"),
        [
            ("uint8", 3, 255),
            ("int16", 3, 32767),
            (">u2", 3, 65535),
            ("float32", 0.5, 1),
            ("float32", 1.0, 1),
            ("float64", 1.5, 255),
            ("float32", 256, 65535),
            ("float32", 70000, 70000),
        ],
    )
    def test_limit(self, dtype, highest, limit):
        assert saturation_limit(dtype, highest) == limit

    @pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
    def test_a_part_with_the_limit_of_the_whole(self, dtype):
        # By itself, the part of a float image would seem to end at 1.
        image = np.array([[1, 1, 0, 0], [0, 0, 0, 0]], dtype)
        zeros = np.zeros(image.shape, np.float32)
        limit = saturation_limit(dtype, 200)
        found = [count(image, zeros, InstancesConfig(), limit=limit)]
        image[1, 1] = limit
        found.append(count(image, zeros, InstancesConfig(), limit=limit))
        assert [summary.saturated_share for summary in found] == [0, 1 / 8]


class TestSums:
    @examples(deadline=None, max_examples=200)
    @given(
        hnp.arrays(
            np.float32,
            (6, 9),
            elements=st.floats(np.float32(2**-7), 1, width=32),
        ),
        st.permutations(range(54)),
    )
    def test_exact_in_any_order(self, probability, order):
        mask = np.ones(probability.shape, bool)
        exact = sum(Fraction(float(value)) for value in probability.flat)
        found = sum_probabilities(probability, mask, 2**-7)
        assert Fraction(found) * Fraction(UNIT) == exact
        shuffled = probability.ravel()[order].reshape(6, 9)
        assert sum_probabilities(shuffled, mask, 2**-7) == found
        labels = mask.astype(np.int32)
        assert sum_by_label(probability, labels, 2, 2**-7).tolist() == [0, found]

    def test_exact_where_a_sum_of_floats_is_not(self):
        # 2^-30 beside ones: the sum of all in float32 would lose it.
        probability = np.ones((1030, 1030), np.float32)
        probability[5, 5] = np.float32(2**-7 + 2**-30)
        mask = np.ones(probability.shape, bool)
        found = sum_probabilities(probability, mask, 2**-7)
        assert found == (1030**2 - 1) * 2**30 + 2**23 + 1
        by_label = sum_by_label(probability, mask.astype(np.int32), 2, 2**-7)
        assert by_label.tolist() == [0, found]

    def test_below_the_unit_the_order_does_not_matter_either(self):
        rng = np.random.default_rng(0)
        values = (rng.random(4000) ** 20).astype(np.float32).reshape(40, 100)
        mask = values > 1e-9
        found = sum_probabilities(values, mask, 1e-9)
        units = [round(Fraction(float(value)) * 2**30) for value in values[mask]]
        assert found == sum(units)
        by_label = sum_by_label(values, mask.astype(np.int32), 2, 1e-9)
        assert by_label.tolist() == [0, found]
        assert found * UNIT == pytest.approx(math.fsum(values[mask]), abs=4000 * 2**-31)

    def test_mean_is_rounded_once(self):
        assert mean_probability(2**30, 3) == 1 / 3
