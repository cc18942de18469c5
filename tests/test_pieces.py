"""Images on their way: every one once, in order, and failures stay their own."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nucleiseg.archives import open_reader
from nucleiseg.config import PreprocessConfig
from nucleiseg.errors import ArchiveError
from nucleiseg.inference.compute import Compute
from nucleiseg.inference.network import TiledNetwork
from nucleiseg.inference.pieces import Piece, divide, join, prepare, read_piece
from nucleiseg.inference.times import STAGES, StageTimes
from nucleiseg.tiling import Tiling

KEEP = PreprocessConfig(normalisation="none")


class Echo(TiledNetwork):
    """Gives its input back, doubled in a second map, and notes the batches' shapes."""

    def __init__(self, n_tiles, n_maps=1):
        self._scales = np.arange(1, n_maps + 1, dtype=np.float32)
        self._compute = Compute("cpu", "float32", n_tiles, 64, 16)
        self._n_calls = 2
        self.shapes = []

    def run(self, tiles):
        self.shapes.append(tiles.shape)
        return tiles[..., np.newaxis] * self._scales


@given(
    start=st.integers(0, 1000),
    n_images=st.integers(0, 3000),
    image_pixels=st.integers(1, 2**24),
    multiple=st.integers(2, 64),
)
def test_a_range_is_divided_without_gaps(start, n_images, image_pixels, multiple):
    pieces = list(
        divide(start, start + n_images, image_pixels=image_pixels, multiple=multiple)
    )
    covered = [index for first, last in pieces for index in range(first, last)]
    assert covered == list(range(start, start + n_images))
    for first, last in pieces:
        n_in_piece = last - first
        assert n_in_piece == 1 or n_in_piece * image_pixels <= 4 * 2**20


def test_first_pieces_are_small_so_that_the_network_need_not_wait():
    pieces = list(divide(7, 507, image_pixels=128 * 128, multiple=16))
    sizes = [last - first for first, last in pieces]
    assert sizes[:4] == [16, 32, 64, 64]
    assert sum(sizes) == 500


def test_last_pieces_are_small_so_that_little_is_left_to_label():
    pieces = list(divide(7, 507, image_pixels=128 * 128, multiple=16))
    sizes = [last - first for first, last in pieces]
    assert sizes[-5:] == [64, 32, 16, 16, 4]
    # Whole batches, but for the last.
    assert all(size % 16 == 0 for size in sizes[:-1])


@given(
    sizes=st.lists(st.integers(1, 9), max_size=8),
    n_tiles=st.integers(2, 7),
    shape=st.sampled_from([(64, 64), (40, 50), (100, 64)]),
    n_maps=st.integers(1, 2),
)
def test_pieces_are_pooled_into_batches_and_come_back(sizes, n_tiles, shape, n_maps):
    tiling = Tiling(shape, tile_px=64, context_px=16)
    images = np.random.default_rng(1).random((sum(sizes), *shape)).astype(np.float32)
    network = Echo(n_tiles, n_maps)

    def pieces():
        start = 0
        for size in sizes:
            piece = Piece(start, images[start : start + size])
            yield prepare(piece, KEEP, tiling)
            start += size

    back = list(network.predict(pieces()))
    assert [piece.start for piece in back] == [
        sum(sizes[:n]) for n in range(len(sizes))
    ]
    if back:
        joined = np.concatenate([join(piece, tiling) for piece in back])
        assert joined.shape == (*images.shape, n_maps)
        for number in range(n_maps):
            np.testing.assert_array_equal(joined[..., number], (number + 1) * images)
    # Only the last batch is not full.
    assert all(found == (n_tiles, *tiling.tile_shape) for found in network.shapes[:-1])
    total = sum(sizes) * len(tiling.tiles)
    assert sum(found[0] for found in network.shapes) == total


def test_a_bad_image_does_not_harm_its_neighbours(tmp_path):
    images = np.ones((5, 32, 32), np.float32)
    images[2, 3, 4] = np.nan
    np.savez(tmp_path / "a.npz", X=images)
    with open_reader(tmp_path / "a.npz", "X") as reader:
        piece = read_piece(reader, 0, 5)
    tiling = Tiling((32, 32), tile_px=64, context_px=16)
    piece = prepare(piece, KEEP, tiling)
    assert list(piece.reasons) == [2]
    assert "NaN" in piece.reasons[2]
    assert piece.tiles[[0, 1, 3, 4]].min() == 1
    assert piece.tiles[2].max() == 0


def test_of_a_damaged_range_the_images_that_can_be_read_are_kept(tmp_path):
    images = np.arange(1, 7, dtype=np.uint8)[:, None, None] * np.ones(
        (1, 16, 16), np.uint8
    )
    np.savez(tmp_path / "a.npz", X=images)

    class Damaged:
        def __init__(self, reader):
            self.reader, self.info = reader, reader.info

        def read(self, start, stop):
            if start <= 3 < stop:
                raise ArchiveError("a.npz:X: damaged", reason=f"bad sector {start}")
            return self.reader.read(start, stop)

    with open_reader(tmp_path / "a.npz", "X") as reader:
        piece = read_piece(Damaged(reader), 1, 6)
    assert piece.reasons == {2: "bad sector 3"}
    assert piece.pixels[:, 0, 0].tolist() == [2, 3, 0, 5, 6]


def test_a_failing_stage_ends_the_others():
    tiling = Tiling((64, 64), tile_px=64, context_px=16)

    def pieces():
        yield prepare(Piece(0, np.zeros((3, 64, 64), np.uint8)), KEEP, tiling)
        raise ArchiveError("gone", reason="gone")

    with pytest.raises(ArchiveError, match="gone"):
        list(Echo(2).predict(pieces()))


def test_times_add_up_and_travel():
    import pickle

    times = StageTimes(n_images=4)
    work = times.timed("label", lambda n: sum(range(n)))
    assert work(200_000) == sum(range(200_000))
    assert times.core_s["label"] > 0
    with pytest.raises(ZeroDivisionError):
        times.timed("read", lambda n: 1 / n)(0)
    total = StageTimes()
    total.add(times)
    total.add(pickle.loads(pickle.dumps(times)))
    assert total.n_images == 8
    assert total.core_s["label"] == pytest.approx(2 * times.core_s["label"])
    assert list(total.as_dict()["core_ms"]) == list(STAGES)
    assert dataclasses.is_dataclass(total)
