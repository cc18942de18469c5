"""An image in blocks is counted as in one piece."""

import dataclasses
import itertools
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage

from nucleiseg.config import InstancesConfig
from nucleiseg.instances import (
    BlockSummary,
    count_nuclei,
    join_blocks,
    saturation_limit,
    summarise_block,
)
from nucleiseg.instances.unions import find_roots

DEFAULT = InstancesConfig()


def count(image, probability, settings, **options):
    summary = count_nuclei(image, probability[..., np.newaxis], settings, **options)
    return without_flags(summary)


def without_flags(summary):
    """All that blocks give exactly; what flags are made of, they measure one by one."""
    return dataclasses.replace(summary, flags="")


def make_block(image, probability, core, shape, settings, *, limit):
    maps = probability[..., np.newaxis]
    return summarise_block(image, maps, core, shape, settings, limit=limit)


def cut(length, edges):
    ends = sorted({0, length, *edges})
    return [slice(start, stop) for start, stop in itertools.pairwise(ends)]


def make_blocks(image, probability, rows, columns, settings):
    """Every block through its bytes, as between two workers."""
    limit = saturation_limit(image.dtype, float(image.max()))
    parts = []
    for core in itertools.product(rows, columns):
        block = make_block(
            image[core], probability[core], core, image.shape, settings, limit=limit
        )
        parts.append((core, BlockSummary.from_bytes(block.to_bytes())))
    return parts


def count_in_blocks(image, probability, rows, columns, settings):
    parts = make_blocks(image, probability, rows, columns, settings)
    return without_flags(join_blocks(parts, image.shape, settings))


def draw(text):
    lines = text.split()
    return np.array(
        [[0.9 if pixel == "#" else 0.1 for pixel in line] for line in lines],
        dtype=np.float32,
    )


@st.composite
def thin_maps(draw_one):
    """Lines in all directions, rings and specks: what crosses seams awkwardly."""
    height, width = draw_one(st.integers(1, 24)), draw_one(st.integers(1, 24))
    probability = np.zeros((height, width), np.float32)
    rows, columns = np.indices(probability.shape)
    bright = st.floats(0.5, 1, width=32, exclude_min=True)
    for _ in range(draw_one(st.integers(0, 5))):
        shift = draw_one(st.integers(-24, 48))
        line = draw_one(
            st.sampled_from([rows - columns, rows + columns, rows, columns])
        )
        probability[line == shift] = draw_one(bright)
    for _ in range(draw_one(st.integers(0, 3))):
        center = draw_one(st.integers(0, 24)), draw_one(st.integers(0, 24))
        radius = draw_one(st.integers(0, 12))
        distance = np.maximum(abs(rows - center[0]), abs(columns - center[1]))
        probability[distance == radius] = draw_one(bright)
        probability[distance == radius - 1] = 0
    return probability


noise = hnp.arrays(
    np.float32,
    hnp.array_shapes(min_dims=2, max_dims=2, max_side=16),
    elements=st.sampled_from([0, 0.2, 0.9]) | st.floats(0, 1, width=32),
    fill=st.just(0.0),
)


class TestEqualsTheWhole:
    @examples(deadline=None, max_examples=600)
    @given(
        thin_maps() | noise,
        st.sampled_from(["uint8", "int16", "float32", "float64"]),
        st.sampled_from([1, 200, 1000, 100000]),
        st.integers(0, 20),
        st.sampled_from([0.5, 0.15, 0.004]),
        st.data(),
    )
    def test_any_map_any_grid(
        self, probability, dtype, brightest, min_area_px, threshold, data
    ):
        height, width = probability.shape
        bright = np.rint(probability * brightest)
        limit = 1e9 if dtype[0] == "f" else np.iinfo(dtype).max
        image = bright.clip(0, limit).astype(dtype)
        settings = InstancesConfig(threshold=threshold, min_area_px=min_area_px)
        rows = cut(height, data.draw(st.lists(st.integers(0, height), max_size=6)))
        columns = cut(width, data.draw(st.lists(st.integers(0, width), max_size=6)))
        expected = count(image, probability, settings)
        parts = make_blocks(image, probability, rows, columns, settings)
        parts = data.draw(st.permutations(parts))
        found = join_blocks(parts, image.shape, settings)
        assert without_flags(found) == expected

    @examples(deadline=None, max_examples=60)
    @given(thin_maps() | noise, st.integers(0, 20))
    def test_blocks_of_one_pixel(self, probability, min_area_px):
        settings = InstancesConfig(min_area_px=min_area_px)
        rows, columns = (cut(side, range(side)) for side in probability.shape)
        found = count_in_blocks(probability, probability, rows, columns, settings)
        assert found == count(probability, probability, settings)

    @pytest.mark.parametrize("min_area_px", [0, 1, 9, 10, 40, 41])
    def test_a_spiral_through_all_blocks(self, min_area_px):
        # One nucleus that enters most blocks several times, one pixel at its end.
        probability = draw("""
            #########
            ........#
            #######.#
            #.....#.#
            #.###.#.#
            #.#...#.#
            #.#####.#
            #.......#
            #########
        """)
        settings = InstancesConfig(min_area_px=min_area_px)
        whole = count(probability, probability, settings)
        for side in (1, 2, 3, 4, 5):
            lines = cut(9, range(0, 9, side))
            found = count_in_blocks(probability, probability, lines, lines, settings)
            assert found == whole

    def test_corners_of_four_blocks(self):
        lines = cut(4, [2])
        for picture in ("#... .#.. ..#. ...#", "...# ..#. .#.. #..."):
            probability = draw(picture)
            found = count_in_blocks(probability, probability, lines, lines, DEFAULT)
            assert found.count == 1
            assert found.mean_area_px == 4

    def test_border_is_the_images(self):
        # Both touch seams; only the right one touches the image's edge, and in
        # another block than most of it lies.
        probability = draw("........ .#.####. .#.#..## .#.####. ........")
        for column in range(1, 8):
            found = count_in_blocks(
                probability, probability, cut(5, [2]), cut(8, [column]), DEFAULT
            )
            assert (found.count, found.border_count) == (2, 1)

    @pytest.mark.parametrize("min_area_px", [0, 30])
    def test_at_size(self, min_area_px):
        rng = np.random.default_rng(5)
        field = ndimage.gaussian_filter(rng.random((700, 900), np.float32), 3)
        probability = ((field - field.mean()) / field.std() / 4 + 0.5).clip(0, 1)
        image = (probability * 80000).clip(0, 65535).astype(np.uint16)
        settings = InstancesConfig(min_area_px=min_area_px)
        whole = count(image, probability, settings)
        assert whole.count > 200
        assert whole.saturated_share > 0
        rows, columns = cut(700, range(0, 700, 64)), cut(900, [100, 101, 500])
        assert count_in_blocks(image, probability, rows, columns, settings) == whole


class TestSummariseBlock:
    CORE = (slice(2, 5), slice(0, 4))

    def summarise(self, image, probability, core=CORE, limit=None, shape=(8, 9)):
        return make_block(image, probability, core, shape, DEFAULT, limit=limit)

    @pytest.mark.parametrize("value", [np.nan, np.inf])
    def test_not_finite(self, value):
        probability = np.zeros((3, 4), np.float32)
        probability[1, 1] = value
        with pytest.raises(ValueError, match=r"^not finite$"):
            self.summarise(np.zeros((3, 4), np.uint8), probability)

    def test_floats_need_the_limit(self):
        zeros = np.zeros((3, 4), np.float32)
        with pytest.raises(ValueError, match="saturation limit of the whole image"):
            self.summarise(zeros, zeros)

    def test_context_is_refused(self):
        zeros = np.zeros((5, 6), np.float32)
        with pytest.raises(ValueError, match=r"expected \(3, 4\); leave the context"):
            self.summarise(np.zeros((3, 4), np.uint8), zeros)

    @pytest.mark.parametrize(
        "core", [(slice(6, 9), slice(0, 4)), (slice(-1, 2), slice(0, 4))]
    )
    def test_outside_the_image_is_refused(self, core):
        zeros = np.zeros((3, 4), np.float32)
        with pytest.raises(ValueError, match="does not lie in an image"):
            self.summarise(zeros, zeros, core, limit=1.0)

    def test_only_what_touches_a_seam_stays_open(self):
        probability = draw("#...# .#... ....# ..##.")
        block = make_block(
            probability,
            probability,
            (slice(0, 4), slice(0, 5)),
            (4, 10),
            DEFAULT,
            limit=1.0,
        )
        # The left one ends here; upper right and lower right touch the seam.
        assert block.finished.count == 1
        assert block.finished.n_foreground == 2
        assert block.areas.tolist() == [1, 3]
        assert block.right.tolist() == [1, 0, 2, 0]
        assert block.at_border.tolist() == [True, True]
        assert not len(block.left)


class TestBytes:
    def make(self):
        probability = draw("#.#.# .##.# ....# #.#..")
        core = (slice(0, 4), slice(4, 9))
        return make_block(probability, probability, core, (8, 12), DEFAULT, limit=1.0)

    def test_back_and_forth(self):
        block = self.make()
        data = block.to_bytes()
        back = BlockSummary.from_bytes(data)
        assert back.to_bytes() == data == self.make().to_bytes()
        for field in dataclasses.fields(BlockSummary):
            before, after = getattr(block, field.name), getattr(back, field.name)
            if isinstance(before, np.ndarray):
                np.testing.assert_array_equal(before, after, strict=True)
            else:
                assert before == after

    def test_every_damaged_byte_is_noticed(self):
        data = self.make().to_bytes()
        for position in range(len(data)):
            damaged = bytearray(data)
            damaged[position] ^= 0x10
            with pytest.raises(ValueError, match="damaged"):
                BlockSummary.from_bytes(bytes(damaged))

    def test_every_missing_byte_is_noticed(self):
        data = self.make().to_bytes()
        for length in range(len(data)):
            with pytest.raises(ValueError, match="damaged"):
                BlockSummary.from_bytes(data[:length])
        with pytest.raises(ValueError, match="damaged"):
            BlockSummary.from_bytes(data + b"\0")

    def test_another_version_is_refused(self):
        data = self.make().to_bytes().replace(b"nucblk3", b"nucblk1")
        with pytest.raises(ValueError, match="another version"):
            BlockSummary.from_bytes(data)

    def test_edges_that_name_no_nucleus_are_refused(self):
        block = self.make()
        wrong = dataclasses.replace(block, left=block.left + 100)
        with pytest.raises(ValueError, match="open nuclei"):
            BlockSummary.from_bytes(wrong.to_bytes())


class TestJoin:
    def make(self):
        probability = np.random.default_rng(0).random((8, 9), np.float32)
        lines = cut(8, [3]), cut(9, [4, 5])
        return make_blocks(probability, probability, *lines, DEFAULT)

    def test_missing_doubled_or_overlapping_blocks(self):
        parts = self.make()
        for wrong in (
            parts[:-1],
            [],
            [*parts, parts[0]],
            [((slice(0, 4), slice(0, 4)), parts[0][1]), *parts[1:]],
        ):
            with pytest.raises(ValueError, match="do not cover an image"):
                join_blocks(wrong, (8, 9), DEFAULT)

    @pytest.mark.parametrize("shape", [(8, 10), (9, 9), (7, 9)])
    def test_another_images_shape(self, shape):
        with pytest.raises(ValueError, match="do not cover an image"):
            join_blocks(self.make(), shape, DEFAULT)

    def test_a_block_of_another_place(self):
        parts = self.make()
        cores = [core for core, _ in parts]
        swapped = [parts[1][1], parts[0][1], *(block for _, block in parts[2:])]
        with pytest.raises(ValueError, match="was made with shape"):
            join_blocks(list(zip(cores, swapped, strict=True)), (8, 9), DEFAULT)

    @pytest.mark.parametrize(
        "settings", [InstancesConfig(min_area_px=3), InstancesConfig(threshold=0.6)]
    )
    def test_other_settings(self, settings):
        with pytest.raises(ValueError, match="threshold, min_area_px"):
            join_blocks(self.make(), (8, 9), settings)

    def test_256_large_blocks_in_two_seconds(self):
        # Noise: far more nuclei on the seams than any microscope sees.
        side, n_blocks = 1875, 16
        rng = np.random.default_rng(0)
        total = side * n_blocks
        probability = rng.random((side, side), np.float32)
        image = np.zeros((side, side), np.uint8)
        shape = (total, total)
        made = {}
        parts = []
        for row, column in itertools.product(range(n_blocks), repeat=2):
            core = (
                slice(row * side, (row + 1) * side),
                slice(column * side, (column + 1) * side),
            )
            # Blocks with seams on the same sides are the same here.
            kind = (row == 0, row == 15, column == 0, column == 15)
            if kind not in made:
                made[kind] = make_block(
                    image,
                    probability,
                    core,
                    shape,
                    InstancesConfig(threshold=0.7),
                    limit=None,
                )
            parts.append((core, made[kind]))
        started = time.process_time()
        summary = join_blocks(parts, shape, InstancesConfig(threshold=0.7))
        assert time.process_time() - started < 2
        assert summary.foreground_share == pytest.approx(0.3, abs=0.001)


class TestFindRoots:
    @examples(deadline=None, max_examples=200)
    @given(st.integers(1, 40), st.data())
    def test_against_a_search(self, n_nodes, data):
        node = st.integers(0, n_nodes - 1)
        pairs = data.draw(st.lists(st.tuples(node, node), max_size=60))
        expected = list(range(n_nodes))
        for _ in range(n_nodes):
            for one, other in pairs:
                expected[one] = expected[other] = min(expected[one], expected[other])
        first, second = np.array(pairs, dtype=np.int64).reshape(-1, 2).T
        assert find_roots(n_nodes, first, second).tolist() == expected

    @pytest.mark.parametrize("order", ["rising", "falling", "shuffled"])
    def test_long_chains_take_few_rounds(self, order):
        n_nodes = 200_000
        chain = np.arange(n_nodes)
        if order == "falling":
            chain = chain[::-1].copy()
        if order == "shuffled":
            np.random.default_rng(0).shuffle(chain)
        started = time.process_time()
        roots = find_roots(n_nodes, chain[:-1], chain[1:])
        assert time.process_time() - started < 2
        assert not roots.any()
