"""Tiles: nothing lost, nothing twice, and tiled equals untiled."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nucleiseg.tiling import Tiling

SHAPES = [
    *((1, length) for length in (1, 16, 17, 600)),
    (600, 1),
    (16, 16),
    (17, 15),
    (511, 512),
    (512, 513),
    (513, 511),
    (1000, 700),
    (2000, 48),
    (48, 2000),
]
CUTS = [(512, 64), (64, 16), (128, 0), (96, 32), (256, 112)]


def draw_image(shape, seed=0):
    """Whole numbers, never 0: sums are exact, and a pixel that is missed shows."""
    return np.random.default_rng(seed).integers(1, 16, shape).astype(np.float32)


def sum_around(image, radius):
    """Stub network: each output is the sum of all pixels within a radius.

    Beyond the image are zeros, as at the edge of a network's input.
    """
    side = 2 * radius + 1
    return cv2.boxFilter(
        image, cv2.CV_32F, (side, side), normalize=False, borderType=cv2.BORDER_CONSTANT
    )


def sum_blocks_around(image, n_blocks):
    """Stub network with four poolings: sees blocks of 16x16 pixels, not pixels."""
    height, width = image.shape
    blocks = image.reshape(height // 16, 16, width // 16, 16).sum((1, 3))
    return np.kron(sum_around(blocks, n_blocks), np.ones((16, 16), np.float32))


def compute_tiled(tiling, image, network):
    return tiling.join([network(tile.copy()) for tile in tiling.split(image)])


def compute_untiled(tiling, image, network):
    whole = Tiling(tiling.image_shape, tile_px=2**20, context_px=0)
    (tile,) = whole.split(image)
    return whole.join([network(tile)])


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("tile_px", "context_px"), CUTS)
class TestGeometry:
    def test_cores_cover_every_padded_pixel_once(self, shape, tile_px, context_px):
        tiling = Tiling(shape, tile_px, context_px)
        covered = np.zeros(tiling.padded_shape, np.int32)
        for tile in tiling.tiles:
            covered[tile.core] += 1
        assert (covered == 1).all()

    def test_padding_is_least(self, shape, tile_px, context_px):
        for side, padded in zip(
            shape, Tiling(shape, tile_px, context_px).padded_shape, strict=True
        ):
            assert padded % 16 == 0
            assert side <= padded < side + 16

    def test_tiles_lie_inside_at_multiples_of_16(self, shape, tile_px, context_px):
        tiling = Tiling(shape, tile_px, context_px)
        for tile in tiling.tiles:
            for axis in range(2):
                origin, length = tile.origin[axis], tiling.tile_shape[axis]
                assert origin % 16 == 0
                assert length % 16 == 0
                assert length <= tile_px
                assert 0 <= origin <= tiling.padded_shape[axis] - length

    def test_core_has_context_except_at_the_edge(self, shape, tile_px, context_px):
        tiling = Tiling(shape, tile_px, context_px)
        for tile in tiling.tiles:
            for axis in range(2):
                start, stop = tile.origin[axis], tile.origin[axis]
                stop += tiling.tile_shape[axis]
                core = tile.core[axis]
                assert core.start - start >= context_px or core.start == start == 0
                assert stop - core.stop >= context_px or (
                    core.stop == stop == tiling.padded_shape[axis]
                )

    def test_split_and_join_give_the_image_back(self, shape, tile_px, context_px):
        tiling = Tiling(shape, tile_px, context_px)
        image = draw_image(shape)
        tiles = tiling.split(image)
        assert {tile.shape for tile in tiles} == {tiling.tile_shape}
        assert len(tiles) == len(tiling.tiles)
        np.testing.assert_array_equal(tiling.join(tiles), image)


@settings(deadline=None, max_examples=60)
@given(
    height=st.integers(1, 300),
    width=st.integers(1, 300),
    tile_px=st.integers(4, 12).map(lambda n: 16 * n),
    context_px=st.integers(0, 1).map(lambda n: 16 * n),
)
def test_tiled_equals_untiled_for_any_shape(height, width, tile_px, context_px):
    tiling = Tiling((height, width), tile_px, context_px)
    image = draw_image((height, width))

    def network(values):
        return sum_around(values, context_px)

    np.testing.assert_array_equal(
        compute_tiled(tiling, image, network), compute_untiled(tiling, image, network)
    )


class TestTiledEqualsUntiled:
    SHAPES = ((1000, 700), (513, 512), (2000, 48), (1, 600), (600, 1040))

    @pytest.mark.parametrize("shape", SHAPES)
    @pytest.mark.parametrize(("tile_px", "radius"), [(512, 64), (256, 64), (64, 16)])
    def test_where_context_is_as_far_as_the_network_sees(self, shape, tile_px, radius):
        tiling = Tiling(shape, tile_px, context_px=radius)
        image = draw_image(shape)

        def network(values):
            return sum_around(values, radius)

        np.testing.assert_array_equal(
            compute_tiled(tiling, image, network),
            compute_untiled(tiling, image, network),
        )

    @pytest.mark.parametrize("shape", SHAPES)
    @pytest.mark.parametrize(("tile_px", "context_px"), [(512, 64), (128, 48)])
    def test_with_poolings(self, shape, tile_px, context_px):
        # A block and n blocks beside it: at most 16 n + 15 pixels away.
        tiling = Tiling(shape, tile_px, context_px)
        image = draw_image(shape)

        def network(values):
            return sum_blocks_around(values, context_px // 16 - 1)

        np.testing.assert_array_equal(
            compute_tiled(tiling, image, network),
            compute_untiled(tiling, image, network),
        )

    @pytest.mark.parametrize("context_px", [0, 16, 64])
    def test_one_pixel_too_little_shows(self, context_px):
        # The tests above can fail: one pixel beyond the context is enough.
        tiling = Tiling((1000, 700), 256, context_px)
        image = draw_image((1000, 700))

        def network(values):
            return sum_around(values, context_px + 1)

        tiled = compute_tiled(tiling, image, network)
        differs = tiled != compute_untiled(tiling, image, network)
        # Only along the seams, where the first two cores meet.
        seam = tiling.tiles[0].core[0].stop
        assert differs[seam - 1, 0]
        assert differs[seam, 0]
        assert not differs[: seam - 1, : seam - 1].any()

    def test_origin_off_the_grid_shows(self):
        # Why origins are multiples of 16: a pooling would begin in another place.
        image = draw_image((64, 64))
        whole = sum_blocks_around(image, 0)
        moved = sum_blocks_around(image[8:56, :].copy(), 0)
        assert (moved != whole[8:56]).any()
        moved = sum_blocks_around(image[16:48, :].copy(), 0)
        np.testing.assert_array_equal(moved, whole[16:48])


def test_padding_is_a_reflection_at_the_end():
    image = np.arange(18 * 16, dtype=np.float32).reshape(18, 16)
    (tile,) = Tiling((18, 16), 512, 64).split(image)
    assert tile.shape == (32, 16)
    np.testing.assert_array_equal(tile[:18], image)
    np.testing.assert_array_equal(tile[18:], image[16:2:-1])


def test_single_row_is_padded_with_itself():
    (tile,) = Tiling((1, 16), 512, 64).split(np.arange(16, dtype=np.float32)[None])
    np.testing.assert_array_equal(tile, np.tile(np.arange(16), (16, 1)))


def test_image_of_another_shape_is_refused():
    with pytest.raises(ValueError, match=r"\(20, 30\), expected \(30, 20\)"):
        Tiling((30, 20), 64, 16).split(np.zeros((20, 30), np.float32))


@pytest.mark.parametrize("n_outputs", [0, 5, 7])
def test_wrong_number_of_outputs_is_refused(n_outputs):
    tiling = Tiling((1000, 700), 512, 64)
    assert len(tiling.tiles) == 6
    with pytest.raises(ValueError, match="outputs, expected 6"):
        tiling.join([np.zeros((512, 512), np.float32)] * n_outputs)


@pytest.mark.parametrize("shape", [(128, 128), (100, 70), (300, 130)])
def test_a_stack_is_cut_and_joined_image_by_image(shape):
    tiling = Tiling(shape, tile_px=128, context_px=16)
    images = draw_image((3, *shape))
    tiles = tiling.split_stack(images)
    assert tiles.shape == (3 * len(tiling.tiles), *tiling.tile_shape)
    one_by_one = [tile for image in images for tile in tiling.split(image)]
    np.testing.assert_array_equal(tiles, one_by_one)
    np.testing.assert_array_equal(tiling.join_stack(tiles), images)


@pytest.mark.parametrize("shape", [(128, 128), (100, 70), (300, 130)])
def test_channels_stay_beside_each_other(shape):
    tiling = Tiling(shape, tile_px=128, context_px=16)
    images = draw_image((3, *shape))
    tiles = tiling.split_stack(images)
    joined = tiling.join_stack(np.stack([tiles, -tiles], axis=-1))
    assert joined.shape == (3, *shape, 2)
    np.testing.assert_array_equal(joined[..., 0], images)
    np.testing.assert_array_equal(joined[..., 1], -images)
    one_image = tiles[: len(tiling.tiles)]
    joined = tiling.join(np.stack([one_image, -one_image], axis=-1))
    np.testing.assert_array_equal(joined, np.stack([images[0], -images[0]], axis=-1))
    for block in tiling.blocks(1):
        outputs = block.split(images[0][block.region])
        pairs = [np.stack([output, -output], axis=-1) for output in outputs]
        expected = images[0][block.core]
        np.testing.assert_array_equal(
            block.join(pairs), np.stack([expected, -expected], axis=-1)
        )


@settings(max_examples=60, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 400), st.integers(1, 400)),
    cut=st.sampled_from([(64, 16), (128, 0), (96, 32), (64, 0)]),
    max_pixels=st.integers(1, 40_000),
)
def test_blocks_give_what_the_whole_image_gives(shape, cut, max_pixels):
    tiling = Tiling(shape, tile_px=cut[0], context_px=cut[1])
    image = draw_image(shape)

    def network(tile):
        return sum_around(tile, 5)

    whole = tiling.join([network(tile.copy()) for tile in tiling.split(image)])
    times_given = np.zeros(shape, dtype=int)
    for block in tiling.blocks(max_pixels):
        part = image[block.region]
        outputs = [network(tile.copy()) for tile in block.split(part)]
        np.testing.assert_array_equal(block.join(outputs), whole[block.core])
        assert tiling.block_of(block.core) == block
        times_given[block.core] += 1
    assert (times_given == 1).all()


def test_blocks_are_bounded_whatever_the_image_is_like():
    for shape in [(30_000, 30_000), (4000, 4000), (100, 1_000_000), (1_000_000, 520)]:
        blocks = Tiling(shape, tile_px=512, context_px=64).blocks(2**22)
        areas = [
            (core[0].stop - core[0].start) * (core[1].stop - core[1].start)
            for core in (block.core for block in blocks)
        ]
        assert sum(areas) == shape[0] * shape[1]
        # A context wider at the image's edges, where a core begins without one.
        assert max(areas) < 1.1 * 2**22
        assert len(blocks) < 2 + 2 * sum(areas) / 2**21


def test_a_block_refuses_another_region():
    block = Tiling((600, 600), tile_px=512, context_px=64).blocks(1)[0]
    with pytest.raises(ValueError, match=r"part is \(3, 3\), expected \(512, 512\)"):
        block.split(np.zeros((3, 3), np.float32))


def test_a_core_that_no_tiles_give_is_refused():
    tiling = Tiling((600, 600), tile_px=512, context_px=64)
    with pytest.raises(ValueError, match="no block of this tiling has the core"):
        tiling.block_of((slice(0, 600), slice(3, 600)))
