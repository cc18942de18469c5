"""Normalisation, against percentiles worked out by hand."""

import numpy as np
import pytest

from nucleiseg.config import PreprocessConfig
from nucleiseg.errors import ArchiveError
from nucleiseg.preprocess import normalise

PERCENTILE = PreprocessConfig()
NONE = PreprocessConfig(normalisation="none")


def draw_image(shape=(40, 30), seed=0):
    """A few bright discs on a dim ground, uint8."""
    rng = np.random.default_rng(seed)
    rows, columns = np.indices(shape)
    image = 20 + 5 * rng.random(shape)
    for top, left, radius in rng.integers(3, 30, (6, 3)):
        image[(rows - top) ** 2 + (columns - left) ** 2 < radius] += 150
    return image.round().clip(0, 255).astype(np.uint8)


def find_percentile(values, percent):
    """Percentile by its definition: linear between the two nearest ranks."""
    ordered = sorted(float(value) for value in np.ravel(values))
    rank = percent / 100 * (len(ordered) - 1)
    below = int(rank)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (rank - below) * (ordered[above] - ordered[below])


@pytest.mark.parametrize(("low", "high"), [(1.0, 99.8), (0.0, 100.0), (37.0, 61.5)])
def test_percentiles_become_0_and_1(low, high):
    image = draw_image()
    settings = PreprocessConfig(low_percentile=low, high_percentile=high)
    bottom, top = find_percentile(image, low), find_percentile(image, high)
    expected = (image.astype(np.float64) - bottom) / (top - bottom)
    np.testing.assert_allclose(normalise(image, settings), expected, atol=1e-5)


def test_by_hand_and_without_clipping():
    image = np.arange(101, dtype=np.uint8).reshape(1, 101)
    settings = PreprocessConfig(low_percentile=10, high_percentile=60)
    result = normalise(image, settings)
    np.testing.assert_allclose(
        result[0, [0, 10, 35, 60, 100]], [-0.2, 0, 0.5, 1, 1.8], atol=1e-6
    )


@pytest.mark.parametrize("value", [0, 7, 255])
def test_constant_image_is_0(value):
    assert not normalise(np.full((5, 4), value, np.uint8), PERCENTILE).any()


@pytest.mark.parametrize("dtype", ["uint8", "int16", "float32"])
def test_one_bright_pixel_on_a_constant_ground_stays_visible(dtype):
    image = np.full((50, 50), 9, dtype)
    image[20, 30] = 90
    result = normalise(image, PERCENTILE)
    expected = np.zeros((50, 50))
    expected[20, 30] = 1
    np.testing.assert_array_equal(result, expected)


@pytest.mark.parametrize("settings", [PERCENTILE, NONE])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_nan_and_infinite_values_are_refused(settings, dtype, value):
    image = np.zeros((8, 8), dtype)
    image[3, 4] = value
    with pytest.raises(ArchiveError, match="NaN or infinite"):
        normalise(image, settings)


def test_beyond_float32_is_refused_without_a_warning():
    image = np.array([[0.0, 1e300]])
    with pytest.raises(ArchiveError, match="infinite"):
        normalise(image, NONE)


@pytest.mark.parametrize(
    "convert",
    [
        lambda image: image.astype(np.uint16) * 257,
        lambda image: (image.astype(np.uint16) * 257).astype(">u2"),
        lambda image: image.astype(np.int16) - 100,
        lambda image: image.astype(np.float32) / 255,
        lambda image: image.astype(np.float64),
        np.asfortranarray,
    ],
    ids=["uint16", "big-endian", "int16", "0 to 1", "float64", "Fortran"],
)
def test_dtype_and_scale_do_not_matter(convert):
    image = draw_image()
    np.testing.assert_allclose(
        normalise(convert(image), PERCENTILE), normalise(image, PERCENTILE), atol=2e-6
    )


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32", "float64"])
def test_none_keeps_the_values(dtype):
    image = draw_image().astype(dtype)
    np.testing.assert_array_equal(normalise(image, NONE), image)


@pytest.mark.parametrize("settings", [PERCENTILE, NONE])
@pytest.mark.parametrize("dtype", ["uint8", ">u2", "float16", "float32", "float64"])
def test_result_is_float32_and_the_input_unchanged(settings, dtype):
    image = draw_image().astype(dtype)
    before = image.copy()
    result = normalise(image, settings)
    assert result.dtype == np.float32
    assert result.dtype.isnative
    assert result.shape == image.shape
    assert result.flags.c_contiguous
    np.testing.assert_array_equal(image, before)
    assert image.dtype == before.dtype
