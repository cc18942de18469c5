"""Ranges: of whole images, of their pieces, and of images in a stack."""

import json
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from nucleiseg.config import PreprocessConfig
from nucleiseg.errors import ArchiveError
from nucleiseg.preprocess import (
    Range,
    RangeFinder,
    find_range,
    normalise,
    normalise_stack,
    scale,
)
from nucleiseg.preprocess.order import count_values, find_in_order

PERCENTILE = PreprocessConfig()
NONE = PreprocessConfig(normalisation="none")
DTYPES = ["uint8", "uint16", ">u2", "int16", "float16", "float32", ">f4", "float64"]

percents = st.tuples(
    st.floats(0, 100) | st.sampled_from([0.0, 1.0, 50.0]),
    st.floats(0, 100) | st.sampled_from([99.8, 100.0, 50.0]),
).filter(lambda pair: pair[0] < pair[1])
configs = percents.map(
    lambda pair: PreprocessConfig(low_percentile=pair[0], high_percentile=pair[1])
)
shapes = hnp.array_shapes(min_dims=2, max_dims=2, max_side=12)


def draw_images(dtype):
    kind = np.dtype(dtype)
    if kind.kind == "f":
        widest = 6e4 if kind.itemsize == 2 else 2.0**90
        elements = st.floats(
            -widest, widest, width=16 if kind.itemsize == 2 else 32
        ) | st.sampled_from([0.0, -0.0, 1.0, -1.0, 2.0])
    else:
        limits = np.iinfo(kind)
        elements = st.integers(int(limits.min), int(limits.max)) | st.integers(0, 3)
    return hnp.arrays(kind, shapes, elements=elements, fill=st.nothing())


any_image = st.sampled_from(DTYPES).flatmap(draw_images)


def make_image(shape, dtype, seed=0):
    rng = np.random.default_rng(seed)
    return (rng.gamma(2, 20, shape)).clip(0, 250).astype(dtype)


def as_hex(array):
    """Bits of a result, in which -0.0 and 0.0 differ."""
    return array.view(np.uint32).tolist()


def stream(pieces, dtype, settings):
    finder = RangeFinder(dtype, settings)
    for piece in pieces:
        finder.add(piece)
    if finder.needs_second_pass:
        finder.second_pass()
        for piece in reversed(pieces):
            finder.add(piece)
    assert not finder.needs_second_pass
    return finder


class TestFindRange:
    @examples(deadline=None, max_examples=300)
    @given(any_image, configs)
    def test_as_numpy(self, image, settings):
        values = image.astype(np.float64)
        expected = np.percentile(
            values, (settings.low_percentile, settings.high_percentile)
        )
        if expected[1] <= expected[0]:
            expected = values.min(), values.max()
        if 0 < expected[1] - expected[0] <= 1e-30:
            with pytest.raises(ArchiveError, match="span"):
                find_range(image, settings)
            return
        found = find_range(image, settings)
        widest = np.abs(values).max()
        assert found.low == pytest.approx(expected[0], abs=1e-14 * widest)
        assert found.high == pytest.approx(expected[1], abs=1e-14 * widest)

    @pytest.mark.parametrize("shape", [(30, 40), (600, 700)])
    def test_same_values_of_any_dtype_give_the_same_bits(self, shape):
        # The larger shape is counted, the smaller one partitioned.
        image = make_image(shape, np.uint8)
        expected = normalise(image, PERCENTILE)
        for dtype in DTYPES:
            found = normalise(image.astype(dtype), PERCENTILE)
            np.testing.assert_array_equal(found, expected, strict=True)

    @pytest.mark.parametrize("dtype", ["uint16", "int16"])
    @pytest.mark.parametrize("shape", [(100, 100), (520, 512)])
    def test_16_bits_either_way(self, dtype, shape):
        limits = np.iinfo(dtype)
        rng = np.random.default_rng(1)
        image = rng.integers(limits.min, limits.max, shape, dtype, endpoint=True)
        expected = np.percentile(image.astype(float), (1.0, 99.8))
        found = find_range(image, PERCENTILE)
        assert [found.low, found.high] == pytest.approx(expected, abs=1e-9)

    @examples(deadline=None, max_examples=200)
    @given(
        hnp.arrays(np.float32, st.integers(1, 30), elements=st.integers(-3, 3)),
        st.data(),
    )
    def test_ranks_are_those_of_sorting(self, values, data):
        last = values.size - 1
        low = data.draw(st.integers(0, last))
        high = data.draw(st.integers(low, last))
        ranks = (low, min(low + 1, last), high, min(high + 1, last))
        expected = np.sort(values)[list(ranks)].tolist()
        assert find_in_order(values, ranks) == expected
        assert find_in_order(values.astype(np.int16), ranks) == expected

    def test_counts_beyond_what_float32_holds(self):
        # One more than 2^24: as float32, which OpenCV counts in, it is even.
        values = np.zeros(2**24 + 1, dtype=np.uint8)
        assert count_values(values)[0] == 2**24 + 1

    def test_empty_image_is_refused(self):
        with pytest.raises(ArchiveError, match="no pixels"):
            find_range(np.zeros((0, 5)), PERCENTILE)

    @pytest.mark.parametrize("span", [1e-35, 1e35])
    def test_span_that_float32_cannot_scale_is_refused(self, span):
        image = np.linspace(0, span, 100, dtype=np.float32).reshape(10, 10)
        with pytest.raises(ArchiveError, match="span"):
            find_range(image, PERCENTILE)
        np.testing.assert_array_equal(normalise(image, NONE), image)


class TestScale:
    @examples(deadline=None, max_examples=100)
    @given(any_image, st.sampled_from([PERCENTILE, NONE]), st.data())
    def test_a_part_is_the_part_of_the_whole(self, image, settings, data):
        try:
            expected = normalise(image, settings)
        except ArchiveError:
            return
        rows = data.draw(st.slices(image.shape[0]))
        columns = data.draw(st.slices(image.shape[1]))
        found = scale(image[rows, columns], find_range(image, settings))
        assert as_hex(found) == as_hex(expected[rows, columns].copy())

    def test_into_an_array(self):
        image = make_image((9, 7), np.uint16)
        out = np.full((9, 7), np.nan, np.float32)
        assert scale(image, Range(10, 20), out=out) is out
        np.testing.assert_allclose(out, (image.astype(float) - 10) / 10, rtol=1e-6)

    def test_none_keeps_every_bit(self):
        values = np.array([[-0.0, 0.0, 1e-40, 3.4e38, -1.1]], np.float32)
        assert as_hex(normalise(values, NONE)) == as_hex(values)


class TestStack:
    @pytest.mark.parametrize("dtype", DTYPES)
    def test_as_one_by_one(self, dtype):
        images = np.stack([make_image((20, 30), dtype, seed) for seed in range(5)])
        images[2] = 7
        values, reasons = normalise_stack(images, PERCENTILE)
        assert reasons == [None] * 5
        assert values.dtype == np.float32
        for image, found in zip(images, values, strict=True):
            assert as_hex(found) == as_hex(normalise(image, PERCENTILE))

    def test_one_that_fails_stops_no_other(self):
        images = np.stack([make_image((8, 9), np.float32, seed) for seed in range(4)])
        images[1, 2, 3] = np.nan
        images[3] *= 1e35
        out = np.full(images.shape, np.nan, np.float32)
        values, reasons = normalise_stack(images, PERCENTILE, out=out)
        assert values is out
        assert "NaN" in reasons[1]
        assert "span" in reasons[3]
        assert reasons[0] is reasons[2] is None
        assert not values[[1, 3]].any()
        np.testing.assert_array_equal(values[2], normalise(images[2], PERCENTILE))


class TestRangeFinder:
    @examples(deadline=None, max_examples=300)
    @given(any_image, configs | st.just(NONE), st.data())
    def test_as_the_whole_image(self, image, settings, data):
        cuts = data.draw(st.lists(st.integers(0, len(image)), max_size=3).map(sorted))
        pieces = data.draw(st.permutations(np.split(image, cuts)))
        try:
            expected = find_range(image, settings)
        except ArchiveError as error:
            with pytest.raises(ArchiveError, match=str(error)[:20]):
                stream(pieces, image.dtype, settings).find()
            return
        finder = stream(pieces, image.dtype, settings)
        found = finder.find()
        # Not only equal: -0.0 equals 0.0.
        assert found.as_dict() == expected.as_dict()
        assert finder.n_pixels == image.size
        assert finder.highest == float(image.max())

    @pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32", "int32"])
    @pytest.mark.parametrize("shape", [(1500, 1600), (1, 2_400_000), (2_400_000, 1)])
    def test_pieces_larger_than_what_is_converted_at_once(self, dtype, shape):
        image = make_image(shape, dtype)
        finder = stream([image], dtype, PERCENTILE)
        assert finder.find() == find_range(image, PERCENTILE)
        assert finder.n_pixels == image.size

    @pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16"])
    def test_integers_take_one_pass(self, dtype):
        finder = RangeFinder(dtype, PERCENTILE)
        finder.add(make_image((50, 50), dtype))
        assert not finder.needs_second_pass
        with pytest.raises(ValueError, match="no second pass"):
            finder.second_pass()

    def test_floats_take_two(self):
        finder = RangeFinder("float32", PERCENTILE)
        finder.add(make_image((50, 50), "float32"))
        assert finder.needs_second_pass
        with pytest.raises(ValueError, match="second_pass"):
            finder.find()

    @pytest.mark.parametrize("settings", [PERCENTILE, NONE])
    @pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e300])
    def test_not_finite_is_refused_as_at_once(self, settings, value):
        image = make_image((20, 20), "float64")
        image[7, 3] = value
        with pytest.raises(ArchiveError) as expected:
            find_range(image, settings)
        finder = RangeFinder("float64", settings)
        finder.add(image[10:])
        with pytest.raises(ArchiveError) as found:
            finder.add(image[:10])
        assert str(found.value) == str(expected.value)

    def test_highest_is_in_the_images_own_dtype(self):
        # As float32 it would be 255, and another pixel would be saturated.
        image = np.array([[0.0, 255.0 + 1e-9]])
        assert stream([image], "float64", PERCENTILE).highest == 255.0 + 1e-9

    def test_second_pass_must_see_the_same(self):
        image = make_image((50, 50), "float32")
        for other in (image[:-1], np.zeros_like(image)):
            finder = RangeFinder("float32", PERCENTILE)
            finder.add(image)
            finder.second_pass()
            finder.add(other)
            with pytest.raises(ArchiveError, match="other values than the first"):
                finder.find()

    def test_other_dtype_is_refused(self):
        with pytest.raises(ValueError, match="dtype float32, and the image uint8"):
            RangeFinder("uint8", NONE).add(np.zeros((2, 2), np.float32))

    @pytest.mark.parametrize("settings", [PERCENTILE, NONE])
    def test_nothing_added(self, settings):
        finder = RangeFinder("float32", settings)
        finder.add(np.zeros((0, 3), np.float32))
        for ask in (finder.find, lambda: finder.highest):
            with pytest.raises(ArchiveError, match="no pixels"):
                ask()

    @pytest.mark.parametrize("dtype", ["uint16", "float32"])
    def test_memory_does_not_grow_with_the_image(self, dtype):
        piece = make_image((2048, 2048), dtype)
        finder = RangeFinder(dtype, PERCENTILE)
        tracemalloc.start()
        for _ in range(3):
            finder.add(piece)
        if finder.needs_second_pass:
            finder.second_pass()
            for _ in range(3):
                finder.add(piece)
        finder.find()
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 20e6


class TestStoredRange:
    @given(st.floats(allow_nan=False), st.floats(allow_nan=False))
    def test_through_json(self, low, high):
        found = Range.from_dict(json.loads(json.dumps(Range(low, high).as_dict())))
        assert found.as_dict() == Range(low, high).as_dict()
        assert (found.low, found.high) == (low, high)
