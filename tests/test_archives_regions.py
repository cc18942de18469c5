"""Parts of large images, and HDF5 chunks that span many images."""

import tracemalloc
import zipfile

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nucleiseg import archives
from nucleiseg.archives import chunks, seek_points
from nucleiseg.archives.chunks import ChunkLayout
from tests.test_archives import (
    draw,
    flip,
    get_error,
    make_h5_saver,
    save_npz,
)

SAVERS = {
    "deflated": np.savez_compressed,
    "stored": np.savez,
    "bzip2": lambda p, **a: save_npz(p, compression=zipfile.ZIP_BZIP2, **a),
    "contiguous": make_h5_saver(),
    "auto-chunked": make_h5_saver(chunks=True, compression="gzip"),
}
SHAPE = (37, 29)


@pytest.fixture(params=SAVERS)
def save(request):
    return SAVERS[request.param]


@pytest.mark.parametrize(
    "shape", [SHAPE, (3, *SHAPE), (*SHAPE, 1), (3, *SHAPE, 1), (1, *SHAPE)]
)
@pytest.mark.parametrize("dtype", ["u1", ">u2", "<f4"])
@pytest.mark.parametrize("is_indexed", [False, True])
def test_regions_equal_the_array(tmp_path, save, shape, dtype, is_indexed):
    path = tmp_path / "a"
    X = draw("float64", shape).astype(dtype)
    with open(path, "wb") as file:
        save(file if save in (np.savez, np.savez_compressed) else path, X=X)
    index = make_index(path, tmp_path) if is_indexed else None
    images = X.reshape(-1, *SHAPE)
    with archives.open_reader(path, "X", index=index) as reader:
        for image, rows, columns in [
            (0, (0, 37), (0, 29)),
            (len(images) - 1, (5, 30), (3, 17)),
            (len(images) // 2, (0, 37), (28, 29)),
            (0, (36, 37), (0, 29)),
            (0, (7, 7), (0, 29)),
        ]:
            region = reader.read_region(image, rows, columns)
            assert region.flags.c_contiguous
            assert region.dtype == X.dtype.newbyteorder("=")
            expected = images[image][slice(*rows), slice(*columns)]
            np.testing.assert_array_equal(region, expected)
            region[...] = 0  # the caller's own


def make_index(path, folder):
    fingerprint = archives.fingerprint(path)
    if archives.needs_pass(path, "X"):
        archives.pass_member(
            path, "X", folder=folder / "index", fingerprint=fingerprint, n_threads=1
        )
    return folder / "index", fingerprint


@pytest.mark.parametrize("shape", [SHAPE, (1, *SHAPE), (*SHAPE, 1), (1, *SHAPE, 1)])
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_regions_in_fortran_order(tmp_path, save, shape):
    path = tmp_path / "a.npz"
    X = np.asfortranarray(draw(">u2", shape))
    save(path, X=X)
    with archives.open_reader(path, "X") as reader:
        region = reader.read_region(0, (5, 30), (3, 17))
        assert region.flags.c_contiguous
        np.testing.assert_array_equal(region, X.reshape(SHAPE)[5:30, 3:17])
        np.testing.assert_array_equal(reader.read(0, 1)[0], X.reshape(SHAPE))


def test_regions_outside_are_refused(tmp_path, save):
    path = tmp_path / "a"
    with open(path, "wb") as file:
        save(
            file if save in (np.savez, np.savez_compressed) else path,
            X=draw(shape=(3, *SHAPE)),
        )
    reader = archives.open_reader(path, "X")
    for region, words in [
        ((3, (0, 1), (0, 1)), "3 images"),
        ((-1, (0, 1), (0, 1)), "3 images"),
        ((0, (0, 38), (0, 1)), r"37 rows; \[0, 38\)"),
        ((0, (0, 1), (5, 4)), r"29 columns; \[5, 4\)"),
    ]:
        with pytest.raises(ValueError, match=words):
            reader.read_region(*region)
    reader.close()
    with pytest.raises(ValueError, match="closed"):
        reader.read_region(0, (0, 1), (0, 1))


@pytest.mark.parametrize("kind", ["stored", "indexed", "hdf5"])
def test_a_region_takes_memory_for_itself_only(tmp_path, kind, monkeypatch):
    """Of an image of 128 MB (mostly a hole in the file, or easily deflated)."""
    path = tmp_path / "a"
    corner = draw("uint16", (100, 100))
    if kind == "hdf5":
        with h5py.File(path, "w") as file:
            d = file.create_dataset(
                "X", (8000, 8000), "uint16", chunks=(500, 500), compression="gzip"
            )
            d[7000:7100, 7000:7100] = corner
    else:
        X = np.zeros((8000, 8000), "uint16")
        X[7000:7100, 7000:7100] = corner
        with zipfile.ZipFile(
            path, "w", 0 if kind == "stored" else 8, compresslevel=1
        ) as file:
            with file.open("X.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, X)
        del X
    index = make_index(path, tmp_path)
    tracemalloc.start()
    try:
        with archives.open_reader(path, "X", index=index) as reader:
            region = reader.read_region(0, (7000, 7100), (7000, 7100))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    np.testing.assert_array_equal(region, corner)
    assert peak < 2 * seek_points.PIECE_BYTES + (4 << 20)


def test_damage_of_a_region_names_the_image(tmp_path):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        d = file.create_dataset("X", data=draw(), chunks=(1, 12, 5), compression="gzip")
        place = d.id.get_chunk_info_by_coord((4, 0, 5)).byte_offset
    flip(path, place + 8)
    with archives.open_reader(path, "X") as reader:
        region = reader.read_region(4, (0, 12), (0, 5))
        np.testing.assert_array_equal(region, draw()[4, :, :5])
        message = get_error(reader.read_region, 4, (0, 12), (4, 6))
        assert f"{path}:/X: image 4 cannot be read" in message


# --- chunks --------------------------------------------------------------------


class CountingDataset:
    """Stands before a dataset and notes the images of each reading."""

    def __init__(self, dataset):
        self._dataset = dataset
        self.slices = []

    def read_direct(self, target, source_sel):
        self.slices.append((source_sel.start, source_sel.stop))
        self._dataset.read_direct(target, source_sel=source_sel)


def open_counting(path):
    reader = archives.open_reader(path, "X")
    reader._dataset = CountingDataset(reader._dataset)
    return reader, reader._dataset.slices


def save_chunked(path, X, chunk_shape, compression="gzip"):
    with h5py.File(path, "w") as file:
        file.create_dataset("X", data=X, chunks=chunk_shape, compression=compression)


def test_chunks_of_many_images_are_inflated_once(tmp_path):
    path = tmp_path / "a.h5"
    X = draw("uint16", (250, 24, 20))
    save_chunked(path, X, (100, 12, 20))
    (info,) = archives.list_datasets(path)
    assert info.chunk_images == 100
    assert info.access_problem is None
    reader, slices = open_counting(path)
    with reader:
        for i in range(0, 250, 7):
            np.testing.assert_array_equal(reader.read(i, min(i + 7, 250)), X[i : i + 7])
    assert slices == [(0, 100), (100, 200), (200, 250)]


def test_aligned_ranges_are_read_without_a_copy(tmp_path):
    path = tmp_path / "a.h5"
    X = draw("uint16", (250, 24, 20))
    save_chunked(path, X, (50, 24, 20))
    reader, slices = open_counting(path)
    with reader:
        np.testing.assert_array_equal(reader.read(50, 200), X[50:200])
        assert reader._slab is None
    assert slices == [(50, 100), (100, 150), (150, 200)]


def test_a_layer_too_large_to_keep_is_inflated_once_a_slab(tmp_path, monkeypatch):
    monkeypatch.setattr(chunks, "MAX_KEPT_BYTES", 30 * 24 * 20 * 2)
    path = tmp_path / "a.h5"
    X = draw("uint16", (250, 24, 20))
    save_chunked(path, X, (100, 12, 20))
    (info,) = archives.list_datasets(path)
    assert info.access_problem == (
        "one chunk spans 100 images: 0 MB are inflated for each 30 images read; "
        "repack with h5repack -l X:CHUNK=250x24x20 or write with h5py "
        "chunks=(250, 24, 20)"
    )
    reader, slices = open_counting(path)
    with reader:
        for i in range(250):
            np.testing.assert_array_equal(reader.read(i, i + 1)[0], X[i])
        assert reader._slab.nbytes <= chunks.MAX_KEPT_BYTES
    expected = [0, 30, 60, 90, 100, 130, 160, 190, 200, 230, 250]
    assert [start for start, _ in slices] == expected[:-1]
    assert [stop for _, stop in slices] == expected[1:]


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    n=st.integers(1, 40),
    layer=st.integers(1, 50),
    kept=st.integers(1, 50),
    ranges=st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)), max_size=6),
)
def test_any_ranges_of_any_chunks(
    tmp_path_factory, monkeypatch, n, layer, kept, ranges
):
    path = tmp_path_factory.mktemp("chunks") / "a.h5"
    monkeypatch.setattr(chunks, "MAX_KEPT_BYTES", kept * 80)
    X = draw(shape=(n, 8, 10))
    with h5py.File(path, "w") as file:
        file.create_dataset(
            "X", data=X, chunks=(layer, 8, 10), maxshape=(None, 8, 10), compression=1
        )
    with archives.open_reader(path, "X") as reader:
        for one, other in ranges:
            start, stop = sorted((min(one, n), min(other, n)))
            np.testing.assert_array_equal(reader.read(start, stop), X[start:stop])


def test_chunks_without_compression_are_read_as_asked(tmp_path):
    path = tmp_path / "a.h5"
    save_chunked(path, draw("uint8", (50, 24, 20)), (50, 24, 20), compression=None)
    reader, slices = open_counting(path)
    with reader:
        reader.read(3, 5)
    assert slices == [(3, 5)]


@pytest.mark.parametrize(
    ("shape", "chunk_shape", "words"),
    [
        ((4096, 128, 128), (4096, 64, 64), None),
        ((5000, 128, 128), (5000, 64, 64), "82 MB are inflated for each 4,096 images"),
        ((100_000, 128, 128), (3125, 8, 8), None),
        ((20_000, 1024, 1024), (313, 32, 32), "328 MB are inflated for each 64 images"),
        ((9, 512, 512), (9, 512, 512), None),
        ((30_000, 30_000), (30_000, 30_000), "one chunk holds 900 MB, all of which"),
        ((30_000, 30_000), (512, 512), None),
        ((30_000, 30_000, 1), (30_000, 30_000, 1), "CHUNK=512x512x1 or"),
        ((2, 30_000, 30_000), (1, 30_000, 30_000), "chunks=(1, 512, 512)"),
        ((10**9,), (10**9,), None),
        ((0, 64, 64), (10**6, 64, 64), None),
    ],
)
def test_what_chunks_cost(shape, chunk_shape, words):
    problem = ChunkLayout(shape, chunk_shape, 1, is_compressed=True).find_problem("/X")
    assert (problem is None) == (words is None)
    assert words is None or words in problem
    assert (
        ChunkLayout(shape, chunk_shape, 1, is_compressed=False).find_problem("X")
        is None
    )


def test_hdf5_holds_little_of_an_index_of_many_chunks(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("X", (9, 8, 8), "uint8", chunks=(1, 8, 8))
    with archives.open_reader(tmp_path / "a.h5", "X") as reader:
        config = reader._file.id.get_mdc_config()
        assert config.max_size == config.initial_size == 1 << 20
