"""Each nucleus by itself: as scipy measures it, however its image was cut."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from scipy import ndimage

from nucleiseg.config import InstancesConfig
from nucleiseg.instances import (
    Nuclei,
    join_blocks,
    join_nuclei,
    measure_nuclei,
    nuclei,
    number_blocks,
    score_nuclei,
    segment_and_measure,
    segment_nuclei,
    summarise_block,
)
from nucleiseg.quality import Calibration
from tests.test_instances_blocks import cut
from tests.test_instances_seeds import noises
from tests.test_quality import CALIBRATION, make_maps

# Scores of noise are anywhere.
EVERYWHERE = Calibration((0.0, 0.4, 1.0), (0.1, 0.2, 0.9))


def number_pixels(seed, shape, n_labels):
    """Draw a label image of specks all over the place, without gaps in the numbers."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, n_labels + 1, shape) * (rng.random(shape) < 0.6)
    found, numbers = np.unique(np.append(labels, 0), return_inverse=True)
    assert found[0] == 0
    return numbers[:-1].reshape(shape).astype(np.int32)


label_images = st.builds(
    number_pixels,
    st.integers(0, 2**32),
    st.tuples(st.integers(1, 30), st.integers(1, 30)),
    st.integers(0, 40),
)


def draw_lines(data, shape):
    return [
        cut(side, data.draw(st.lists(st.integers(0, side), max_size=4)))
        for side in shape
    ]


class TestMeasure:
    @pytest.mark.parametrize("pixels_at_once", [1, 40, 2**18])
    @pytest.mark.parametrize("shape", [(30, 25), (1, 40), (40, 1)])
    def test_as_scipy_has_it(self, monkeypatch, pixels_at_once, shape):
        monkeypatch.setattr(nuclei, "_PIXELS_AT_ONCE", pixels_at_once)
        labels = number_pixels(3, shape, 12)
        numbers = np.arange(1, labels.max() + 1)
        assert len(numbers) > 8
        maps = np.random.default_rng(0).random((*shape, 2), np.float32)
        found = measure_nuclei(maps, labels, calibration=EVERYWHERE)
        assert len(found) == len(numbers)
        assert found.areas.tolist() == np.bincount(labels.ravel())[1:].tolist()
        # As in regionprops, the first pixel's centre is at 0.
        y, x = found.find_centroids()
        expected = ndimage.center_of_mass(np.ones(shape), labels, numbers)
        np.testing.assert_allclose(np.stack([y, x], axis=1), expected, atol=1e-12)
        is_edge = np.ones(shape, np.bool_)
        is_edge[1:-1, 1:-1] = False
        expected = [n in labels[is_edge] for n in numbers]
        assert found.at_border.tolist() == expected
        scores = score_nuclei(maps, labels)
        np.testing.assert_array_equal(
            found.find_shares(EVERYWHERE), EVERYWHERE.apply(scores)
        )

    def test_one_pixel(self):
        labels = np.zeros((5, 7), np.int32)
        labels[2, 4] = 1
        found = measure_nuclei(np.zeros((5, 7, 1), np.float32), labels)
        assert [list(values) for values in found.find_centroids()] == [[2], [4]]
        assert (found.areas.tolist(), found.at_border.tolist()) == ([1], [False])
        assert found.score_sums.tolist() == [0]

    def test_none(self):
        found = measure_nuclei(
            np.zeros((5, 6, 2), np.float32),
            np.zeros((5, 6), np.int32),
            calibration=EVERYWHERE,
        )
        assert len(found) == 0
        assert found.to_bytes() == b""
        assert len(Nuclei.from_bytes(b"")) == 0

    @pytest.mark.parametrize("n_maps", [1, 2])
    @pytest.mark.parametrize("calibration", [None, CALIBRATION])
    @pytest.mark.parametrize("factor", [0.5, 1, 2])
    def test_beside_the_summary_of_the_image(self, n_maps, calibration, factor):
        """At any scale the same labels and figures, and each nucleus in them."""
        maps = make_maps()[..., :n_maps]
        shape = tuple(int(side * factor) for side in maps.shape[:2])
        image = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
        arguments = image, maps, InstancesConfig()
        expected = segment_nuclei(*arguments, calibration=calibration)
        labels, summary, found = segment_and_measure(
            *arguments, calibration=calibration
        )
        np.testing.assert_array_equal(labels, expected[0])
        assert summary == expected[1]
        assert len(found) == summary.count > 3
        assert found.areas.tolist() == np.bincount(labels.ravel())[1:].tolist()
        assert np.count_nonzero(found.at_border) == summary.border_count
        if calibration is not None:
            mean = float(found.find_shares(calibration).mean())
            assert summary.confidence == pytest.approx(mean, abs=6e-5)


class TestBytes:
    def test_there_and_back(self):
        labels = number_pixels(1, (20, 30), 9)
        maps = np.random.default_rng(0).random((20, 30, 1), np.float32)
        found = measure_nuclei(maps, labels, calibration=EVERYWHERE)
        data = found.to_bytes()
        assert Nuclei.count_packed(data) == 9
        assert len(data) == 9 * 33
        again = Nuclei.from_bytes(data)
        assert again.to_bytes() == data
        for values, others in zip(again.sums, found.sums, strict=True):
            np.testing.assert_array_equal(values, others)
        # Those of two images, one after the other.
        assert Nuclei.from_bytes(data + data).areas.tolist() == [*found.areas] * 2

    def test_a_part_of_a_nucleus_is_refused(self):
        with pytest.raises(ValueError, match="34 bytes, expected 33 each"):
            Nuclei.from_bytes(bytes(34))


class TestBlocks:
    @examples(deadline=None, max_examples=100)
    @given(label_images, st.data())
    def test_one_label_image_however_it_is_cut(self, labels, data):
        """The same bytes: not only about the same positions and scores."""
        shape = labels.shape
        rng = np.random.default_rng(labels.size)
        maps = rng.random((*shape, 2), np.float32)
        whole = measure_nuclei(maps, labels, calibration=EVERYWHERE)
        parts, numbers = [], []
        for core in itertools.product(*draw_lines(data, shape)):
            its, places = np.unique(np.append(labels[core], 0), return_inverse=True)
            part = places[:-1].reshape(labels[core].shape).astype(np.int32)
            found = measure_nuclei(
                maps[core], part, core=core, image_shape=shape, calibration=EVERYWHERE
            )
            parts.append(Nuclei.from_bytes(found.to_bytes()))
            numbers.append(its.astype(np.uint32))
        assert join_nuclei(parts, numbers).to_bytes() == whole.to_bytes()

    @examples(deadline=None, max_examples=100)
    @given(noises, st.integers(0, 20), st.data())
    def test_rows_are_those_of_the_labels(self, maps, min_area_px, data):
        """Through all that happens to the blocks of a large image."""
        shape = maps.shape[:2]
        settings = InstancesConfig(min_area_px=min_area_px)
        image = np.zeros(shape, np.uint8)
        summaries, parts, pieces = [], [], []
        for core in itertools.product(*draw_lines(data, shape)):
            out = np.empty(image[core].shape, np.int32)
            block = summarise_block(
                image[core],
                maps[core],
                core,
                shape,
                settings,
                limit=None,
                calibration=EVERYWHERE,
                out=out,
            )
            summaries.append((core, block))
            pieces.append(out)
            parts.append(
                measure_nuclei(
                    np.ascontiguousarray(maps[core]),
                    out,
                    core=core,
                    image_shape=shape,
                    calibration=EVERYWHERE,
                )
            )
        numbers = number_blocks(summaries, shape, settings)
        labels = np.zeros(shape, np.int32)
        for (core, _), out, its in zip(summaries, pieces, numbers, strict=True):
            labels[core] = its[out]
        found = join_nuclei(parts, numbers)
        expected = measure_nuclei(maps, labels, calibration=EVERYWHERE)
        assert found.to_bytes() == expected.to_bytes()
        row = join_blocks(summaries, shape, settings, calibration=EVERYWHERE)
        assert len(found) == row.count
        if row.count:
            assert row.border_count == np.count_nonzero(found.at_border)
            mean = float(found.find_shares(EVERYWHERE).mean())
            assert row.confidence == pytest.approx(mean, abs=6e-5)

    def test_nuclei_of_another_block_are_refused(self):
        labels = number_pixels(0, (9, 9), 5)
        found = measure_nuclei(np.zeros((9, 9, 1), np.float32), labels)
        with pytest.raises(ValueError, match="a block has 5 nuclei, and 4 labels"):
            join_nuclei([found], [np.arange(5, dtype=np.uint32)])
