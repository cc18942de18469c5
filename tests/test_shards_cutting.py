"""Sizes of shards: by pixels and workers, whole chunks, blocks of large images."""

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nucleiseg.archives import DatasetInfo
from nucleiseg.config import Config
from nucleiseg.shards import Entries, make_plan, read_plan, write_plan
from nucleiseg.shards.cutting import ShardSize, choose_pixels, cut
from nucleiseg.tiling import Tiling

BLOCKS = {"shards": {"block_pixels": 200 * 300}}
# Pixels of a block of an image that has more than those.
BLOCK = int(200 * 300 * 0.66)
SMALL_TILES = {"inference": {"tile_px": 96, "context_px": 16}}


def describe(n_images, height=8, width=8, chunk_images=1):
    return DatasetInfo(
        "X", (n_images, height, width), "uint8", "", None, chunk_images=chunk_images
    )


def cut_bounds(info, images):
    rows = cut(info, ShardSize(images, 1), Config())
    return [(int(row["start"]), int(row["stop"])) for row in rows]


class TestChunks:
    @pytest.mark.parametrize(
        ("images", "chunk_images", "size"),
        [
            (10, 1, 10),
            # Whole chunks, down to one.
            (10, 4, 8),
            (10, 5, 10),
            (10, 7, 7),
            (10, 10, 10),
            # A shard grows to one chunk, up to eight times.
            (10, 11, 11),
            (10, 80, 80),
            (10, 81, 10),
            (1, 8, 8),
            (1, 9, 1),
            (1, 1000, 1),
        ],
    )
    def test_by_hand(self, images, chunk_images, size):
        info = describe(1000, chunk_images=chunk_images)
        assert ShardSize(images, 1).images_of(info) == size
        assert cut_bounds(info, images)[0] == (0, size)

    @given(st.integers(0, 300), st.integers(1, 100), st.integers(1, 400))
    def test_each_image_once_and_no_chunk_twice(self, n_images, images, chunk_images):
        bounds = cut_bounds(describe(n_images, chunk_images=chunk_images), images)
        assert [i for start, stop in bounds for i in range(start, stop)] == [
            *range(n_images)
        ]
        if chunk_images <= 8 * images:
            assert all(start % chunk_images == 0 for start, _ in bounds)
            longest = max(images, chunk_images)
        else:
            longest = images
        assert all(stop - start <= longest for start, stop in bounds)

    def test_of_pixels(self):
        # 10 1/2 images of 64 pixels are wished.
        info = describe(100, chunk_images=5)
        assert ShardSize(None, 64 * 10 + 32).images_of(info) == 10

    @pytest.mark.parametrize(
        ("wished", "size"), [(1, 1), (127, 127), (128, 128), (191, 128), (2047, 1984)]
    )
    def test_many_images_are_whole_rounds_of_batches(self, wished, size):
        assert ShardSize(None, 64 * wished + 5).images_of(describe(5000)) == size
        assert ShardSize(wished, 1).images_of(describe(5000)) == wished

    def test_of_a_file(self, tmp_path, make_bundle):
        with h5py.File(tmp_path / "a.h5", "w") as file:
            file.create_dataset("X", (50, 8, 8), "u1", chunks=(16, 8, 8))
        plan = plan_files(make_bundle, tmp_path / "a.h5", shards={"images": 40})
        assert [(s.start, s.stop) for s in plan.shards] == [(0, 32), (32, 50)]


def plan_files(make_bundle, *paths, options=None, **sections):
    config = Config.model_validate(sections)
    return make_plan([str(p) for p in paths], config, make_bundle(), **(options or {}))


@pytest.fixture
def large(tmp_path):
    """2**32 pixels that were never written: the file has a header only."""
    path = tmp_path / "large.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("X", (2**16, 256, 256), "u1")
    assert path.stat().st_size < 10_000
    return path


class TestPixels:
    @pytest.mark.parametrize(
        ("n_pixels", "n_workers", "device", "filters", "expected"),
        [
            (2**40, 1, "gpu", 64, 2**31),
            (2**40, 1, "cpu", 64, 2**22),
            (2**40, 1, "cpu", 16, 2**26),
            (2**40, 1, "auto", 16, 2**26),
            (2**40, 1, "cpu", 1, 2**29),
            # Six shards a worker.
            (6 * 2**30, 4, "gpu", 16, 2**28),
            (6 * 2**22, 2, "cpu", 16, 2**21),
            # Of one that is alone four.
            (4 * 2**22, 1, "cpu", 16, 2**22),
            (2**25, 3, "cpu", 16, 2**25 // 18),
            # No less than 2**20.
            (2**24, 4, "cpu", 16, 2**20),
            (2**25, 1000, "gpu", 16, 2**20),
            (0, 0, "auto", 16, 2**20),
            (2**40, 0, "gpu", 64, 2**31),
        ],
    )
    def test_choice(self, n_pixels, n_workers, device, filters, expected):
        found = choose_pixels(
            n_pixels, n_workers=n_workers, device=device, base_filters=filters
        )
        assert found == expected

    @pytest.mark.parametrize(("device", "expected"), [("cpu", 2**24), ("gpu", 2**31)])
    def test_four_views_are_a_quarter_of_the_pixels(self, device, expected):
        found = choose_pixels(
            2**40, n_workers=1, device=device, base_filters=16, views=4
        )
        assert found == expected

    def plan(self, make_bundle, path, n_workers, device="auto", pixels=None):
        options = {"n_workers": n_workers, "device": device, "shard_pixels": pixels}
        return plan_files(make_bundle, path, options=options)

    def test_every_worker_gets_several(self, large, make_bundle):
        for n_workers, wanted in ((1, 4), (16, 96), (100, 600)):
            plan = self.plan(make_bundle, large, n_workers, "gpu")
            assert wanted <= len(plan.shards) <= wanted + n_workers
        assert len(self.plan(make_bundle, large, 1, "cpu").shards) == 2**32 // 2**26

    def test_is_kept_for_another_number_of_workers(self, large, make_bundle, tmp_path):
        plan = self.plan(make_bundle, large, 16, "gpu")
        assert plan.shard_pixels == 2**32 // (6 * 16)
        write_plan(tmp_path / "plan.parquet", plan)
        kept = read_plan(tmp_path / "plan.parquet").shard_pixels
        again = self.plan(make_bundle, large, 3, "cpu", kept)
        assert again.identity == plan.identity
        assert again.shard_pixels == kept
        # It would be another otherwise.
        assert self.plan(make_bundle, large, 3, "cpu").identity != plan.identity

    def test_set_pixels(self, large, make_bundle):
        config = {"shards": {"pixels": 2**25}}
        for options in ({}, {"shard_pixels": 2**30}, {"n_workers": 64}):
            plan = plan_files(make_bundle, large, options=options, **config)
            assert (plan.shard_pixels, len(plan.shards)) == (2**25, 2**7)

    def test_set_images(self, large, make_bundle):
        config = {"shards": {"images": 2**15}}
        for options in ({}, {"shard_pixels": 2**30}, {"n_workers": 64}):
            plan = plan_files(make_bundle, large, options=options, **config)
            assert (plan.shard_pixels, len(plan.shards)) == (None, 2)

    def test_of_all_archives_together(self, large, make_bundle, tmp_path):
        np.savez(tmp_path / "b.npz", X=np.zeros((4, 512, 512), "u1"))
        paths = [large, tmp_path / "b.npz", tmp_path / "missing.npz"]
        plan = plan_files(make_bundle, *paths, options={"n_workers": 128})
        assert plan.shard_pixels == (2**32 + 2**20) // (6 * 128)


class TestBlocks:
    @pytest.fixture
    def plan(self, tmp_path, make_bundle):
        with h5py.File(tmp_path / "a.h5", "w") as file:
            file.create_dataset("slide", (1000, 700), "u2")
            file.create_dataset("stack", (2, 500, 400), "u1")
            file.create_dataset("tiles", (5, 200, 300), "u1")
        return plan_files(
            make_bundle,
            *(f"{tmp_path / 'a.h5'}:{k}" for k in KEYS),
            **BLOCKS,
            **SMALL_TILES,
        )

    def test_images_once_and_blocks_in_order(self, plan):
        assert plan.n_images == 1 + 2 + 5
        shares = {s.dataset: (s.n_images, s.n_shards) for s in plan.dataset_shares}
        n_slide, n_stack = (
            len(tile(shape).blocks(BLOCK)) for shape in ((1000, 700), (500, 400))
        )
        assert shares == {
            "/slide": (1, n_slide),
            "/stack": (2, 2 * n_stack),
            "/tiles": (5, 1),
        }
        assert min(n_slide, n_stack) > 3
        assert [shard.shard for shard in plan.shards] == [*range(len(plan.shards))]

    def test_are_those_of_the_tiling(self, plan):
        slide = [s for s in plan.shards if s.dataset == "/slide"]
        cores = [block.core for block in tile((1000, 700)).blocks(BLOCK)]
        assert [shard.block.core for shard in slide] == cores
        assert {(s.start, s.stop, s.image_shape) for s in slide} == {
            (0, 1, (1000, 700))
        }
        stack = [s for s in plan.shards if s.dataset == "/stack"]
        assert [shard.start for shard in stack] == sorted(s.start for s in stack)

    def test_cover_each_image_once(self, plan):
        for key, number, shape in (
            ("/slide", 0, (1000, 700)),
            ("/stack", 1, (500, 400)),
        ):
            covered = np.zeros(shape, int)
            blocks = [s for s in plan.shards if (s.dataset, s.start) == (key, number)]
            for shard in blocks:
                covered[shard.block.core] += 1
            assert (covered == 1).all()
            assert [s.is_first_block for s in blocks] == [True] + [False] * (
                len(blocks) - 1
            )

    def test_image_that_is_just_small_enough_is_whole(self, plan):
        (tiles,) = (s for s in plan.shards if s.dataset == "/tiles")
        assert tiles.block is None
        assert not tiles.is_first_block
        assert tiles.n_images == tiles.n_new_images == 5

    def test_are_named(self, plan):
        first, second = plan.shards[0], plan.shards[1]
        bottom, right = first.block.bottom, first.block.right
        assert plan.describe(first) == (
            f"a.h5:/slide[0] rows 0:{bottom}, columns 0:{right}"
        )
        assert plan.describe(second) != plan.describe(first)

    def test_are_in_the_identity(self, plan, tmp_path, make_bundle):
        other = {"shards": {"block_pixels": 200 * 300 + 400 * 500}}
        inputs = [f"{tmp_path / 'a.h5'}:{k}" for k in KEYS]
        again = plan_files(make_bundle, *inputs, **BLOCKS, **SMALL_TILES)
        changed = plan_files(make_bundle, *inputs, **other, **SMALL_TILES)
        assert again.identity == plan.identity != changed.identity

    def test_of_one_tile_are_no_blocks(self, tmp_path, make_bundle):
        """What is larger than a block and fits one tile is computed whole anyway."""
        np.savez(tmp_path / "a.npz", X=np.zeros((3, 90, 90), "u1"))
        plan = plan_files(
            make_bundle, tmp_path / "a.npz", shards={"block_pixels": 100}, **SMALL_TILES
        )
        assert [(s.n_images, s.block) for s in plan.shards] == [(3, None)]

    def test_of_a_slide_there_are_hundreds_of_a_field_none(self, tmp_path, make_bundle):
        with h5py.File(tmp_path / "a.h5", "w") as file:
            file.create_dataset("slide", (30_000, 30_000), "u2")
            file.create_dataset("field", (2048, 2048), "u2")
        slide, field = (
            plan_files(
                make_bundle,
                f"{tmp_path / 'a.h5'}:{key}",
                shards={"block_pixels": 2**22},
            )
            for key in ("slide", "field")
        )
        assert len(field.shards) == 1
        assert field.shards[0].block is None
        assert 200 < len(slide.shards) < 500
        assert slide.n_images == 1


KEYS = "slide", "stack", "tiles"


def tile(shape):
    return Tiling(shape, **SMALL_TILES["inference"])


@settings(deadline=None, max_examples=50)
@given(st.integers(2, 400), st.integers(2, 400), st.integers(1, 200_000))
def test_any_image_is_covered_once(height, width, block_pixels):
    config = Config.model_validate(
        {**SMALL_TILES, "shards": {"block_pixels": block_pixels}}
    )
    info = describe(2, height, width)
    shards = Entries(cut(info, ShardSize(None, 1), config), ["X"], [])
    covered = np.zeros((2, height, width), int)
    for shard in shards:
        core = shard.block.core if shard.block else (slice(None), slice(None))
        covered[(slice(shard.start, shard.stop), *core)] += 1
    assert (covered == 1).all()
    assert shards.n_images == 2
