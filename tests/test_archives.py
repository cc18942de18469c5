"""Archives: what is listed, chosen, read and refused, with NumPy and h5py as oracle."""

import io
import os
import subprocess
import sys
import time
import tracemalloc
import zipfile

import h5py
import hdf5plugin
import numpy as np
import pytest

from nucleiseg import archives
from nucleiseg.archives.globs import compile_glob
from nucleiseg.errors import ArchiveError

STACK_SHAPE = (7, 12, 10)


def draw(dtype="uint8", shape=STACK_SHAPE, seed=0):
    values = np.random.default_rng(seed).integers(0, 100, shape)
    return values.astype(dtype)


def save_npz(path, *, compression=zipfile.ZIP_DEFLATED, force_zip64=False, **arrays):
    """Write members one by one, with the details that np.savez hides."""
    with zipfile.ZipFile(path, "w", compression) as archive:
        for key, array in arrays.items():
            with archive.open(f"{key}.npy", "w", force_zip64=force_zip64) as member:
                np.lib.format.write_array(member, np.asanyarray(array))


class Unseekable(io.RawIOBase):
    """A pipe to a file: zipfile then writes data descriptors."""

    def __init__(self, path):
        self._file = open(path, "wb")

    def writable(self):
        return True

    def write(self, data):
        return self._file.write(data)

    def close(self):
        self._file.close()
        super().close()


def save_to_pipe(path, **arrays):
    with Unseekable(path) as pipe:
        np.savez_compressed(pipe, **arrays)


def make_h5_saver(**options):
    def save(path, **arrays):
        with h5py.File(path, "w") as file:
            for key, array in arrays.items():
                file.create_dataset(key, data=array, **options)

    return save


SAVERS = {
    "npz deflated": (np.savez_compressed, "deflated"),
    "npz stored": (np.savez, "stored"),
    "npz zip64": (lambda p, **a: save_npz(p, force_zip64=True, **a), "deflated"),
    "npz stored zip64": (
        lambda p, **a: save_npz(
            p, compression=zipfile.ZIP_STORED, force_zip64=True, **a
        ),
        "stored",
    ),
    "npz descriptors": (save_to_pipe, "deflated"),
    "npz bzip2": (
        lambda p, **a: save_npz(p, compression=zipfile.ZIP_BZIP2, **a),
        "zip compression 12",
    ),
    "h5 contiguous": (make_h5_saver(), "contiguous"),
    "h5 chunked": (make_h5_saver(chunks=(2, 5, 4)), "chunked 2x5x4"),
    "h5 gzip": (
        make_h5_saver(chunks=(1, 12, 10), compression="gzip", shuffle=True),
        "chunked 1x12x10, shuffle, gzip",
    ),
    "h5 lzf": (
        make_h5_saver(chunks=(3, 12, 10), compression="lzf"),
        "chunked 3x12x10, lzf",
    ),
    "h5 blosc": (
        make_h5_saver(chunks=(3, 12, 10), **hdf5plugin.Blosc()),
        "chunked 3x12x10, blosc",
    ),
    "h5 zstd": (
        make_h5_saver(chunks=(3, 12, 10), **hdf5plugin.Zstd()),
        "chunked 3x12x10, zstd",
    ),
    "h5 bitshuffle": (
        make_h5_saver(chunks=(3, 12, 10), **hdf5plugin.Bitshuffle()),
        "chunked 3x12x10, bitshuffle",
    ),
}
if "szip" in h5py.filters.encode:
    SAVERS["h5 szip"] = (
        make_h5_saver(chunks=(3, 12, 10), compression="szip"),
        "chunked 3x12x10, szip",
    )


@pytest.fixture(params=SAVERS)
def saver(request):
    return SAVERS[request.param]


@pytest.fixture(params=["npz deflated", "npz stored", "h5 contiguous", "h5 gzip"])
def common_saver(request):
    """Four that differ in the code that reads them; for stacks only."""
    return SAVERS[request.param][0]


@pytest.fixture(params=[np.savez_compressed, np.savez, make_h5_saver()])
def any_shape_saver(request):
    return request.param


def read_all(path, key):
    with archives.open_reader(path, key) as reader:
        return reader.read(0, reader.info.n_images)


def get_error(function, *arguments):
    with pytest.raises(ArchiveError) as caught:
        function(*arguments)
    message = str(caught.value)
    assert "\n" not in message
    assert "0x" not in message
    assert "time =" not in message
    return message


# --- reading -------------------------------------------------------------------


def test_ranges_equal_the_array(tmp_path, saver):
    save, storage = saver
    path = tmp_path / "a.npz"  # the suffix decides nothing
    X = draw("uint16")
    save(path, X=X)
    (info,) = archives.list_datasets(path)
    assert info.key.strip("/") == "X"
    assert (info.shape, info.dtype, info.problem) == (STACK_SHAPE, "uint16", None)
    assert (info.is_stack, info.n_images, info.image_shape) == (True, 7, (12, 10))
    assert info.storage == storage
    with archives.open_reader(path, info.key) as reader:
        assert reader.info == info
        # Forwards, with a gap, backwards, empty, all, and the end alone.
        for start, stop in [(0, 2), (2, 3), (5, 7), (1, 4), (3, 3), (0, 7), (6, 7)]:
            block = reader.read(start, stop)
            np.testing.assert_array_equal(block, X[start:stop], strict=True)
            assert block.flags.c_contiguous
            assert block.flags.writeable


@pytest.mark.parametrize(
    "dtype", ["uint8", "uint16", "int16", "float16", "float32", "float64"]
)
@pytest.mark.parametrize("order", "<>")
def test_dtypes_in_both_byte_orders(tmp_path, common_saver, dtype, order):
    path = tmp_path / "a.npz"
    X = draw(np.dtype(dtype).newbyteorder(order))
    common_saver(path, X=X)
    (info,) = archives.find_images(path, None)
    assert info.dtype == dtype
    assert ("big-endian" in info.storage) == (order == ">" and dtype != "uint8")
    got = read_all(path, info.key)
    np.testing.assert_array_equal(got, X.astype(dtype), strict=True)


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((12, 10), (1, 12, 10)),
        ((12, 10, 1), (1, 12, 10)),
        ((5, 12, 10, 1), (5, 12, 10)),
        ((1, 12, 10), (1, 12, 10)),
        ((0, 12, 10), (0, 12, 10)),
        ((0, 12, 10, 1), (0, 12, 10)),
        ((5, 4, 4), (5, 4, 4)),
        ((4, 4, 3), (4, 4, 3)),
    ],
)
def test_shapes(tmp_path, any_shape_saver, shape, expected):
    path = tmp_path / "a.npz"
    X = draw(shape=shape)
    any_shape_saver(path, X=X)
    (info,) = archives.find_images(path, "X")
    assert info.shape == shape
    assert (info.n_images, *info.image_shape) == expected
    np.testing.assert_array_equal(
        read_all(path, info.key), X.reshape(expected), strict=True
    )


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (draw(shape=(12, 10, 3)), "colour"),
        (draw(shape=(6, 12, 10, 4)), "colour"),
        (draw(shape=(6, 1, 12, 10)), "X[:, 0]"),
        (draw(shape=(2, 3, 12, 10, 1)), "(2, 3, 12, 10, 1)"),
        (draw(shape=(12,)), "(12,)"),
        (np.uint8(3), "shape ()"),
        (draw(shape=(3, 0, 10)), "without pixels"),
        (draw(shape=(3, 12, 0)), "without pixels"),
        (draw("bool"), '.astype("uint8")'),
        (draw("int32"), "int32"),
        (draw("int64"), '.astype("uint16")'),
        (draw("uint32"), "uint32"),
        (draw("complex64"), "np.abs"),
        (np.array([b"a", b"bc"]), "text or bytes"),
        (np.zeros(4, [("x", "f4"), ("y", "i2")]), "fields x, y"),
    ],
    ids=str,
)
def test_what_is_no_image_is_listed_and_refused(
    tmp_path, any_shape_saver, array, words
):
    path = tmp_path / "a.npz"
    any_shape_saver(path, X=array)
    (info,) = archives.list_datasets(path)
    assert info.shape == array.shape
    assert words in info.problem
    assert words in get_error(archives.find_images, path, "X")
    message = get_error(archives.find_images, path, None)
    assert words in message
    assert "holds no image dataset" in message


def test_objects_are_listed_but_never_unpickled(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (os.mkdir, (os.fspath(tmp_path / "exploded"),))

    np.savez(tmp_path / "a.npz", X=np.array([Bomb(), None], dtype=object))
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["X"] = ["one", "three"]
    for path in (tmp_path / "a.npz", tmp_path / "a.h5"):
        (info,) = archives.list_datasets(path)
        assert (info.dtype, info.shape) == ("object", (2,))
        for function in (archives.find_images, archives.find_labels):
            assert "never unpickled" in get_error(function, path, "X")
        assert "never unpickled" in get_error(archives.open_reader, path, "X")
    assert not (tmp_path / "exploded").exists()


def test_unicode_strings_of_npz(tmp_path):
    np.savez(tmp_path / "a.npz", names=np.array(["one", "three"]))
    (info,) = archives.list_datasets(tmp_path / "a.npz")
    assert info.dtype == "<U5"
    assert "text" in info.problem


@pytest.mark.parametrize("save", [save_npz, make_h5_saver(chunks=True)])
@pytest.mark.parametrize(
    ("dtype", "shape"),
    [(">u2", STACK_SHAPE), ("float32", (*STACK_SHAPE, 1)), ("uint8", (12, 10))],
)
def test_read_into_what_is_there(tmp_path, save, dtype, shape):
    path = tmp_path / "a.npz"
    values = draw(dtype, shape)
    save(path, X=values)
    expected = values.reshape(-1, 12, 10)[2:5] if len(shape) > 2 else values[np.newaxis]
    start = 2 if len(shape) > 2 else 0
    with archives.open_reader(path, "X") as reader:
        out = np.empty(expected.shape, reader.info.dtype)
        stop = start + len(expected)
        assert reader.read(start, stop, out=out) is out
        np.testing.assert_array_equal(out, expected)
        frozen = out.copy()
        frozen.flags.writeable = False
        for wrong in (out[:0], out.astype("float64"), out[:, :, ::-1], frozen):
            with pytest.raises(ValueError, match="C-contiguous and writeable"):
                reader.read(start, stop, out=wrong)


@pytest.mark.parametrize("shape", [STACK_SHAPE, (*STACK_SHAPE, 1), STACK_SHAPE[1:]])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"chunks": True},
        {"chunks": True, "compression": "gzip"},
        {"chunks": True, "fillvalue": 5},
    ],
    ids=str,
)
def test_what_was_never_written_is_zero(tmp_path, monkeypatch, shape, options):
    """HDF5 leaves memory as it was, of a dataset that asks for no fill."""
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("X", shape, "uint8", fill_time="never", **options)
    monkeypatch.setattr(np, "empty", lambda size, dtype: np.full(size, 77, dtype))
    with archives.open_reader(path, "X") as reader:
        n_images = reader.info.n_images
        assert not reader.read(0, n_images).any()
        assert not reader.read(n_images // 2, n_images).any()
        out = np.full((n_images, 12, 10), 77, "uint8")
        assert not reader.read(0, n_images, out=out).any()
        assert not reader.read_region(0, (3, 9), (0, 10)).any()


def test_what_was_written_of_a_dataset_without_a_fill_is_read(tmp_path):
    path = tmp_path / "a.h5"
    expected = np.zeros(STACK_SHAPE, "uint8")
    with h5py.File(path, "w") as file:
        d = file.create_dataset(
            "X", STACK_SHAPE, "uint8", chunks=(2, 6, 10), fill_time="never"
        )
        d[2:4, :6] = expected[2:4, :6] = draw(shape=(2, 6, 10))
    with archives.open_reader(path, "X") as reader:
        out = np.full(STACK_SHAPE, 77, "uint8")
        np.testing.assert_array_equal(reader.read(0, 7, out=out), expected)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_fortran_images_are_read_and_stacks_refused(tmp_path, save):
    path = tmp_path / "a.npz"
    arrays = {
        "image": draw("uint16", (12, 10)),
        "channel": draw(">u2", (12, 10, 1)),
        "one": draw("float32", (1, 12, 10)),
        "stack": draw("uint8"),
        "grey": draw("uint8", (5, 12, 10, 1)),
    }
    save(path, **{key: np.asfortranarray(array) for key, array in arrays.items()})
    by_key = {info.key: info for info in archives.list_datasets(path)}
    assert "Fortran" in by_key["image"].storage
    for key in ("image", "channel", "one"):
        got = read_all(path, key)
        np.testing.assert_array_equal(got, arrays[key].reshape(1, 12, 10))
        assert got.flags.c_contiguous
    for key in ("stack", "grey"):
        assert "np.ascontiguousarray" in get_error(archives.find_images, path, key)
        assert "np.ascontiguousarray" in get_error(archives.find_labels, path, key)
        assert "np.ascontiguousarray" in get_error(archives.open_reader, path, key)


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
def test_npy_versions(tmp_path, version):
    X = draw()
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        with archive.open("X.npy", "w") as member:
            np.lib.format.write_array(member, X, version=version)
    np.testing.assert_array_equal(read_all(tmp_path / "a.npz", "X"), X)


def test_bounds_and_closing(tmp_path, common_saver):
    path = tmp_path / "a.npz"
    common_saver(path, X=draw())
    reader = archives.open_reader(path, "X")
    for start, stop in [(-1, 2), (0, 8), (3, 2), (8, 8)]:
        with pytest.raises(ValueError, match="has 7 images"):
            reader.read(start, stop)
    reader.close()
    reader.close()
    with pytest.raises(ValueError, match="closed"):
        reader.read(0, 1)


def test_streaming_holds_no_member(tmp_path):
    path = tmp_path / "zeros.npz"
    image = np.zeros((64, 128), "float32")
    header = {"descr": "<f4", "fortran_order": False, "shape": (1600, 64, 128)}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        with archive.open("X.npy", "w", force_zip64=True) as member:
            np.lib.format.write_array_header_1_0(member, header)
            for _ in range(1599):
                member.write(image.tobytes())
            member.write((image + 5).tobytes())
    tracemalloc.start()
    try:
        with archives.open_reader(path, "X") as reader:
            assert (reader.read(1599, 1600) == 5).all()
            assert (reader.read(800, 802) == 0).all()
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


# --- choosing ------------------------------------------------------------------


@pytest.fixture
def plate(tmp_path):
    path = tmp_path / "plate 7.h5"
    with h5py.File(path, "w", track_order=True) as file:
        for well in ("B2", "A1", "A10"):
            group = file.create_group(f"wells/{well}")
            group["images"] = draw()
            group["masks"] = draw("bool")
            group["coords"] = draw("float64", (20, 2))
        file["odd[1]"] = draw()
        file["odd1"] = draw()
        file["loop"] = h5py.SoftLink("/")
        file["elsewhere"] = h5py.ExternalLink("other.h5", "/images")
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["images"] = draw()
    return path


def get_keys(infos):
    return [info.key for info in infos]


def test_hdf5_is_listed_by_name_without_links(plate):
    wells = [
        f"/wells/{well}/{name}"
        for well in ("A1", "A10", "B2")
        for name in ("coords", "images", "masks")
    ]
    assert get_keys(archives.list_datasets(plate)) == ["/odd1", "/odd[1]", *wells]
    assert "elsewhere" in get_error(archives.open_reader, plate, "/elsewhere")


def test_links_are_refused_with_what_to_name_instead(plate):
    with h5py.File(plate, "a") as file:
        file["first"] = h5py.SoftLink("/wells/A1/images")
        file["wells/newest"] = h5py.SoftLink("B2")
        file["again"] = h5py.SoftLink("/wells/newest/images")
        file["gone"] = h5py.SoftLink("/wells/C3/images")
        file["round"] = h5py.SoftLink("/round")
        file["plates/p7"] = h5py.ExternalLink("other.h5", "/wells")
    other = plate.with_name("other.h5")
    for key, words in [
        ("first", "/first is a soft link to /wells/A1/images, and links are not"),
        ("first", "followed; name /wells/A1/images instead"),
        ("/wells/newest/images", "/wells/newest is a soft link to /wells/B2, and"),
        ("/wells/newest/images", "; name /wells/B2/images instead"),
        ("/again", "/again is a soft link to /wells/newest/images, and links"),
        ("/again", "; name /wells/B2/images instead"),
        ("/aga*", "; name /wells/B2/images instead"),
        ("/wells/new*/im*", "; name /wells/B2/im* instead"),
        ("/gone", "nor is there a dataset /wells/C3/images; available: /odd1"),
        ("/round", "nor is there a dataset /round"),
        ("/elsewhere", f"/elsewhere is an external link to {other}:/images, and links"),
        ("/elsewhere", f"; name {other}:/images instead"),
        ("/plates/*/A1/images", f"; name {other}:/wells/A1/images instead"),
    ]:
        assert words in get_error(archives.find_images, plate, key)
    assert f"; name {other}:/images instead" in get_error(
        archives.open_reader, plate, "elsewhere"
    )


@pytest.fixture
def twice(tmp_path):
    """Save a plate whose wells have names by row and by day."""
    path = tmp_path / "twice.h5"
    with h5py.File(path, "w", userblock_size=512) as file:
        for number, well in enumerate(["A1", "B1"]):
            file[f"wells/{well}/images"] = draw(seed=number)
            file[f"wells/{well}/masks"] = draw("bool")
            file[f"days/{number}"] = file[f"wells/{well}"]
        file["best"] = file["wells/B1/images"]
        file["wells/A1/up"] = file["/"]
        file["wells/A1/blank"] = file["wells/B1/masks"]
    return path


def test_every_hard_link_of_a_dataset_is_a_name_of_it(twice):
    found = {info.key: info.alias_of for info in archives.list_datasets(twice)}
    assert found == {
        "/best": None,
        "/days/0/blank": None,
        "/days/0/images": None,
        "/days/0/masks": None,
        "/days/1/images": "/best",
        "/days/1/masks": "/days/0/blank",
        "/wells/A1/blank": "/days/0/blank",
        "/wells/A1/images": "/days/0/images",
        "/wells/A1/masks": "/days/0/masks",
        "/wells/B1/images": "/best",
        "/wells/B1/masks": "/days/0/blank",
    }
    for number, well in enumerate(["A1", "B1"]):
        for key in (f"/wells/{well}/images", f"/days/{number}/images"):
            assert get_keys(archives.find_images(twice, key)) == [key]
            np.testing.assert_array_equal(read_all(twice, key), draw(seed=number))


def test_a_glob_finds_a_dataset_by_any_of_its_names_but_once(twice, caplog):
    wells = ["/wells/A1/images", "/wells/B1/images"]
    assert get_keys(archives.find_images(twice, "/wells/*/images")) == wells
    assert get_keys(archives.find_images(twice, "/days/?/im*")) == [
        "/days/0/images",
        "/days/1/images",
    ]
    assert not caplog.messages
    assert get_keys(archives.find_images(twice, "**")) == ["/best", "/days/0/images"]
    (message,) = caplog.messages
    assert message == (
        f"{twice}: left out what is the same dataset under another name (a hard "
        "link): /days/1/images is /best, /wells/A1/images is /days/0/images, "
        "/wells/B1/images is /best"
    )
    # What cannot be used is listed once, too.
    unfit = archives.find_unfit_images(twice, "**")
    assert get_keys(unfit) == ["/days/0/blank", "/days/0/masks"]


def test_one_mask_may_serve_several_images(twice):
    found = archives.find_labels(twice, "/wells/*/[bm]*")
    assert get_keys(found) == [
        "/wells/A1/blank",
        "/wells/A1/masks",
        "/wells/B1/masks",
    ]


def test_the_only_dataset_may_have_several_names(tmp_path):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file["b"] = draw()
        file["a"] = file["b"]
    assert get_keys(archives.find_images(path, None)) == ["/a"]


def test_groups_linked_into_each_other_have_too_many_names(tmp_path):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        group = file
        for _ in range(40):
            group = group.create_group("a")
            group.parent["b"] = group
        group["X"] = draw()
    assert "over 100,000 further names" in get_error(archives.list_datasets, path)


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("/wells/*/images", ["A1", "A10", "B2"]),
        ("wells/*/images", ["A1", "A10", "B2"]),
        ("/wells/A?/images", ["A1"]),
        ("/wells/[!B]*/images", ["A1", "A10"]),
        ("/wells/[B-C]2/images", ["B2"]),
        ("**/images", ["A1", "A10", "B2"]),
        ("/wells/**", ["A1", "A10", "B2"]),  # masks and coordinates left out
        ("/wells/A1/images", ["A1"]),
    ],
)
def test_globs_take_what_can_be_used(plate, key, expected):
    found = get_keys(archives.find_images(plate, key))
    assert found == [f"/wells/{well}/images" for well in expected]


def test_literal_key_wins_over_glob(plate):
    assert get_keys(archives.find_images(plate, "/odd[1]")) == ["/odd[1]"]
    assert get_keys(archives.find_images(plate, "/odd[1-9]")) == ["/odd1"]


def test_glob_that_matches_nothing_usable(plate):
    message = get_error(archives.find_images, plate, "/wells/*/masks")
    assert "/wells/A1/masks has dtype bool" in message
    assert "no image dataset matches" in message
    assert "is no glob" in get_error(archives.find_images, plate, "/[z-a]")
    # A component's star does not cross into the next.
    assert "no dataset matches" in get_error(archives.find_images, plate, "/*images")


@pytest.mark.parametrize(
    ("pattern", "key", "is_match"),
    [
        ("**/x", "x", True),
        ("**/x", "a/b/x", True),
        ("**/x", "a/bx", False),
        ("a**x", "a/b/x", True),
        ("a?x", "a/x", False),
        ("a[!b]x", "a/x", False),
        ("a[]]x", "a]x", True),
        ("a[^b]x", "a^x", True),
        ("a.x", "abx", False),
        ("a[x", "a[x", True),
        ("A", "a", False),
    ],
)
def test_globs(pattern, key, is_match):
    assert bool(compile_glob(pattern).fullmatch(key)) is is_match


def test_wrong_keys_name_the_nearest(plate):
    message = get_error(archives.find_images, plate, "/wells/A1/imges")
    assert "nearest is /wells/A1/images" in message
    assert "/wells/A1/imges" in message
    assert "and 3 more" in message
    assert message.startswith(str(plate))
    assert "nearest is /wells/A1/masks" in get_error(
        archives.find_labels, plate, "/maskss"
    )
    assert "nearest is /wells/B2/coords" in get_error(
        archives.open_reader, plate, "/wells/B2"
    )
    assert "nearest" not in get_error(archives.open_reader, plate, "/qqqqqqqq")


def test_without_a_key_the_only_image_is_taken(tmp_path, any_shape_saver):
    path = tmp_path / "a.npz"
    small = draw("float32", (20, 2))
    any_shape_saver(path, Y=draw("int32"), X=draw(), coords=small)
    assert archives.find_images(path, None)[0].key.strip("/") == "X"
    assert archives.find_images(path, "coords")[0].shape == (20, 2)
    any_shape_saver(path, coords=small, only=draw(shape=(7, 20)))
    message = get_error(archives.find_images, path, None)
    assert "holds no image dataset" in message
    assert "too short" in message


def test_npz_keeps_file_order_and_keys_with_slashes(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, **{"val/b": draw(), "val/a": draw(), "c": draw("bool")})
    assert get_keys(archives.list_datasets(path)) == ["val/b", "val/a", "c"]
    assert get_keys(archives.find_images(path, "/val/*")) == ["val/b", "val/a"]
    np.testing.assert_array_equal(read_all(path, "/val/a"), draw())


def test_several_images_are_listed_to_paste(plate):
    message = get_error(archives.find_images, plate, None)
    assert f"'{plate}:/wells/A1/images' (7, 12, 10) uint8" in message
    path, key = archives.split_name(f"{plate}:/wells/A1/images")
    assert get_keys(archives.find_images(path, key)) == ["/wells/A1/images"]


def test_masks_are_not_taken_for_damaged_images(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, X=np.asfortranarray(draw()), Y=draw("uint8"))
    message = get_error(archives.find_images, path, None)
    assert f"name {path}:Y if it is meant" in message
    assert "X is in Fortran order" in message
    assert get_keys(archives.find_images(path, "Y")) == ["Y"]


@pytest.mark.parametrize("dtype", ["bool", "int64", "uint32", "float64", "uint8"])
def test_labels_of_any_numeric_dtype(tmp_path, any_shape_saver, dtype):
    path = tmp_path / "a.npz"
    Y = draw(dtype, (5, 12, 10, 1))
    any_shape_saver(path, Y=Y, names=np.array([b"a"]))
    (info,) = archives.find_labels(path, None)
    assert (info.n_images, info.image_shape) == (5, (12, 10))
    got = read_all(path, info.key)
    np.testing.assert_array_equal(got, Y[..., 0], strict=True)
    assert "text" in get_error(archives.find_labels, path, "names")
    any_shape_saver(path, Y=draw(dtype, (12, 10, 3)))
    assert "colour" in get_error(archives.find_labels, path, "Y")
    any_shape_saver(path, Y=Y, Z=Y)
    assert "holds 2 label datasets" in get_error(archives.find_labels, path, None)


def test_shape_of_what_is_no_image(tmp_path):
    np.savez(tmp_path / "a.npz", X=draw(shape=(5,)))
    (info,) = archives.list_datasets(tmp_path / "a.npz")
    with pytest.raises(ValueError, match="neither an image nor a stack"):
        _ = info.n_images


def test_split_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a.h5", "12:30.h5", "b", "b:X"):
        (tmp_path / name).touch()

    def split(name):
        path, key = archives.split_name(name)
        return str(path), key

    assert split("a.h5") == ("a.h5", None)
    assert split("a.h5:") == ("a.h5", None)
    assert split("a.h5:/wells/*/images") == ("a.h5", "/wells/*/images")
    assert split("a.h5:/t:1/x") == ("a.h5", "/t:1/x")
    assert split("12:30.h5") == ("12:30.h5", None)
    assert split("12:30.h5:/x") == ("12:30.h5", "/x")
    assert split("b:X") == ("b:X", None)
    assert split("b:Y") == ("b", "Y")
    # None of these exists.
    assert split("12:31.h5") == ("12:31.h5", None)
    assert split("12:31.h5:/t:1") == ("12:31.h5", "/t:1")
    assert split("none:X") == ("none", "X")
    assert split("none") == ("none", None)


# --- refusing ------------------------------------------------------------------


def test_missing_files_and_folders(tmp_path):
    np.savez(tmp_path / "plate7.npz", X=draw())
    message = get_error(archives.list_datasets, tmp_path / "plate07.npz")
    assert "plate07.npz: not found; the nearest name in its folder is plate7" in message
    assert "nearest" not in get_error(archives.list_datasets, tmp_path / "q")
    message = get_error(archives.list_datasets, tmp_path / "no" / "plate7.npz")
    assert "neither is its folder" in message
    assert "is a directory" in get_error(archives.list_datasets, tmp_path)
    os.mkfifo(tmp_path / "pipe")
    assert "regular file" in get_error(archives.list_datasets, tmp_path / "pipe")
    for function in (archives.find_images, archives.find_labels, archives.open_reader):
        assert "not found" in get_error(function, tmp_path / "q", "X")
    assert "not found" in get_error(archives.fingerprint, tmp_path / "q")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "0 bytes"),
        (b"II*\0....", "TIFF picture, and an archive is an .npz or an HDF5"),
        (b"MM\0*....", "cv2.imread"),
        (b"\x89PNG\r\n\x1a\n", "PNG"),
        (b"\x1f\x8b\x08", "gunzip"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        (b"<!DOCTYPE html>", "web page"),
        (b"hello\nworld", r"b'hello\nwo'"),
    ],
)
def test_other_kinds_of_file(tmp_path, content, words):
    (tmp_path / "a.npz").write_bytes(content)
    assert words in get_error(archives.list_datasets, tmp_path / "a.npz")
    assert words in get_error(archives.fingerprint, tmp_path / "a.npz")


def test_a_single_array_is_told_how_to_be_packed(tmp_path):
    np.save(tmp_path / "X.npy", draw())
    message = get_error(archives.find_images, tmp_path / "X.npy", None)
    assert "np.savez_compressed" in message
    assert "single NumPy array (.npy)" in message


def test_zip_without_arrays(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("word/document.xml", "x")
    message = get_error(archives.list_datasets, tmp_path / "a.zip")
    assert "word/document.xml" in message
    np.savez(tmp_path / "none.npz")
    assert archives.list_datasets(tmp_path / "none.npz") == []
    assert "nor any other" in get_error(
        archives.find_images, tmp_path / "none.npz", None
    )
    assert "holds no datasets" in get_error(
        archives.open_reader, tmp_path / "none.npz", "X"
    )


@pytest.mark.parametrize("part", [0.02, 0.5, 0.9])
def test_truncated_archives(tmp_path, common_saver, part):
    path = tmp_path / "a.npz"
    common_saver(path, X=draw("float64"))
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * part)])
    message = get_error(archives.list_datasets, path)
    assert "truncated or still being written" in message
    if h5py.is_hdf5(path):
        return
    assert get_error(archives.fingerprint, path) == message


def read_in_steps(reader, start, stop):
    for i in range(start, stop, 50):
        reader.read(i, i + 50)


def flip(path, place):
    content = bytearray(path.read_bytes())
    content[place] ^= 0x55
    path.write_bytes(content)


def test_a_flipped_byte_of_a_deflated_member_is_noticed(tmp_path):
    path = tmp_path / "a.npz"
    X = np.random.default_rng(0).integers(0, 255, (300, 64, 64), "uint8")
    np.savez_compressed(path, X=X)
    flip(path, path.stat().st_size // 2)
    with archives.open_reader(path, "X") as reader:
        np.testing.assert_array_equal(reader.read(0, 100), X[:100])
        message = get_error(read_in_steps, reader, 100, 300)
        assert "a.npz:X: images " in message
        assert "cannot be read" in message
        # A reader that failed can still read what is sound.
        np.testing.assert_array_equal(reader.read(0, 100), X[:100])


def save_flipped(path, X, tail=b""):
    """Save an array without compression, and flip a byte of its fourth image.

    zipfile reads 4 KB together with a header, and compares their CRC: it takes more.
    """
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        with archive.open("X.npy", "w") as member:
            np.lib.format.write_array(member, X)
            member.write(tail)
    flip(path, path.read_bytes().index(X[3].tobytes()) + 5)


@pytest.mark.parametrize("step", [1, 3, 7])
@pytest.mark.parametrize("tail", [b"", bytes(3 << 20)], ids=["", "tail"])
def test_a_flipped_byte_of_a_stored_member_is_noticed_at_its_end(tmp_path, step, tail):
    path = tmp_path / "a.npz"
    X = draw("uint16", (7, 64, 40))
    save_flipped(path, X, tail)
    with archives.open_reader(path, "X") as reader:
        for start in range(0, 7 - step, step):
            assert reader.read(start, start + step).shape == (step, 64, 40)
        last = range(0, 7, step)[-1]
        for _ in range(2):
            assert "Bad CRC-32 for file 'X.npy'" in get_error(reader.read, last, 7)
        # A reader that failed can still read what may be sound.
        np.testing.assert_array_equal(reader.read(0, 3), X[:3])


def test_regions_read_in_order_notice_a_flipped_byte(tmp_path):
    path = tmp_path / "a.npz"
    save_flipped(path, draw(shape=(7, 64, 40)))
    with archives.open_reader(path, "X") as reader:
        for image in range(7):
            reader.read_region(image, (0, 9), (0, 40))
            if image < 6:
                reader.read_region(image, (9, 64), (0, 40))
        assert "image 6 cannot be read (Bad CRC-32" in get_error(
            reader.read_region, 6, (9, 64), (0, 40)
        )


def test_what_is_read_out_of_order_is_not_read_again_for_its_sum(tmp_path, monkeypatch):
    path = tmp_path / "a.npz"
    X = draw(shape=(7, 64, 40))
    save_flipped(path, X, bytes(1 << 20))
    read = []
    real = os.preadv
    monkeypatch.setattr(
        os, "preadv", lambda *args: read.append(real(*args)) or read[-1]
    )
    with archives.open_reader(path, "X") as reader:
        n_header_bytes = sum(read)
        for start in (4, 6, 0, 2):
            reader.read(start, min(start + 2, 7))
    assert sum(read) == n_header_bytes + X.nbytes


def test_whole_stored_members_pass_however_they_are_read(tmp_path):
    path = tmp_path / "a.npz"
    X = draw(shape=(7, 64, 40))
    np.savez(path, X=X)
    with archives.open_reader(path, "X") as reader:
        for start, stop in [(0, 4), (2, 6), (6, 7), (0, 7), (6, 7), (0, 3), (3, 7)]:
            np.testing.assert_array_equal(reader.read(start, stop), X[start:stop])


def save_broken_stream(path):
    """Save 60 images of which the deflate stream breaks in the middle."""
    X = np.random.default_rng(0).integers(0, 255, (60, 64, 64), "uint8")
    np.savez_compressed(path, X=X)
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    # Noise is kept in blocks with a length of their own: without it, no next block.
    content[middle : middle + 70_000] = bytes(70_000)
    path.write_bytes(content)


def test_what_is_readable_does_not_depend_on_how_it_is_read(tmp_path):
    path = tmp_path / "a.npz"
    save_broken_stream(path)

    def find_readable(step, first):
        """Read blocks, and image by image where a block fails, as a shard does."""
        readable = []
        with archives.open_reader(path, "X") as reader:
            for start in range(first, 60, step):
                block = range(start, min(start + step, 60))
                try:
                    reader.read(block.start, block.stop)
                    readable += block
                except ArchiveError:
                    readable += [i for i in block if is_readable(reader, i)]
        return readable

    alone = find_readable(1, 0)
    assert 0 < len(alone) < 50
    assert alone == find_readable(7, 0) == find_readable(60, 0)
    assert [i for i in alone if i >= 20] == find_readable(7, 20)


def is_readable(reader, index):
    try:
        reader.read(index, index + 1)
    except ArchiveError:
        return False
    return True


def test_a_damaged_member_is_inflated_once_not_once_an_image(tmp_path, monkeypatch):
    path = tmp_path / "a.npz"
    save_broken_stream(path)
    with archives.open_reader(path, "X") as reader:
        opened = []
        real_open = zipfile.ZipFile.open
        monkeypatch.setattr(
            zipfile.ZipFile,
            "open",
            lambda *arguments: opened.append(1) or real_open(*arguments),
        )
        readable = [i for i in range(60) if is_readable(reader, i)]
    assert len(readable) < 50
    assert len(opened) == 1


def test_bytes_behind_a_deflated_array_are_ignored_but_checked(tmp_path):
    path = tmp_path / "a.npz"
    X = draw(shape=(7, 64, 64))
    tail = np.random.default_rng(1).bytes(100_000)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        with archive.open("X.npy", "w") as member:
            np.lib.format.write_array(member, X)
            member.write(tail)
    np.testing.assert_array_equal(read_all(path, "X"), X)
    flip(path, path.stat().st_size - 5000)
    with archives.open_reader(path, "X") as reader:
        reader.read(0, 6)
        assert "image 6 cannot be read" in get_error(reader.read, 6, 7)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_a_file_cut_while_it_is_read(tmp_path, save):
    path = tmp_path / "a.npz"
    X = np.random.default_rng(0).integers(0, 255, (300, 64, 64), "uint8")
    save(path, X=X)
    with archives.open_reader(path, "X") as reader:
        reader.read(0, 1)
        os.truncate(path, path.stat().st_size // 2)
        message = get_error(reader.read, 250, 251)
    assert "X: image 250 cannot be read (its data end early)" in message


def test_a_flipped_byte_of_a_chunk_is_noticed(tmp_path):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        d = file.create_dataset(
            "X", data=draw(), chunks=(1, 12, 10), compression="gzip"
        )
        place = d.id.get_chunk_info(4).byte_offset
    flip(path, place + 8)
    with archives.open_reader(path, "X") as reader:
        np.testing.assert_array_equal(reader.read(0, 4), draw()[:4])
        assert f"{path}:/X: image 4 cannot be" in get_error(reader.read, 4, 5)


def test_any_flipped_byte_leads_to_values_or_an_archive_error(tmp_path):
    path = tmp_path / "a.npz"
    np.savez_compressed(path, X=draw(shape=(2, 8, 8)))
    content = path.read_bytes()
    n_refused = 0
    for place in range(len(content)):
        for bit in (0x01, 0x80):
            damaged = bytearray(content)
            damaged[place] ^= bit
            path.write_bytes(damaged)
            try:
                (info,) = archives.find_images(path, None)
                read_all(path, info.key)
            except ArchiveError:
                n_refused += 1
    assert n_refused > len(content)


def test_header_that_promises_more_than_there_is(tmp_path):
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w") as archive, archive.open("X.npy", "w") as member:
        header = {"descr": "<f4", "fortran_order": False, "shape": (10**9, 64, 64)}
        np.lib.format.write_array_header_1_0(member, header)
        member.write(b"\0" * 1000)
    assert "its header promises" in get_error(archives.find_images, path, "X")
    assert "its header promises" in get_error(archives.open_reader, path, "X")


def save_raw(path, raw, key="X"):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{key}.npy", raw)


def test_any_header_leads_to_values_or_an_archive_error(tmp_path):
    """With a CRC that is right: nothing else refuses it."""
    path = tmp_path / "a.npz"
    buffer = io.BytesIO()
    np.save(buffer, draw(shape=(3, 8, 9)))
    content = buffer.getvalue()
    n_refused = 0
    for place in range(128):
        for letter in (*b"\0\1\2 \n'(),0:9Oefu{}", content[place] ^ 0x80):
            damaged = bytearray(content)
            damaged[place] = letter
            save_raw(path, damaged)
            try:
                archives.find_images(path, "X")
                read_all(path, "X")
            except ArchiveError:
                n_refused += 1
    assert n_refused > 1000


@pytest.mark.parametrize(
    ("descr", "shape", "words"),
    [
        ("('<f4',)", "(8, 8)", "no .npy header: tuple index out of range"),
        ("[('a',)]", "(8, 8)", "no .npy header: not enough values"),
        ("[()]", "(8, 8)", "no .npy header: "),
        ("None", "(8, 8)", "no .npy header: descr is not a valid dtype"),
        ("(" * 300, "(8, 8)", "no .npy header: "),
        ("'<f4' 3", "(8, 8)", "no .npy header: Cannot parse header"),
        ("'T'", "(8, 8)", "the dtype StringDType(), which none has"),
        ("'<f4'", "(-1, 8, 8)", "the shape (-1, 8, 8), which none has"),
        ("'<f4'", "(0, 9999999999999999999, 8)", "8), which none has"),
    ],
)
def test_headers_that_numpy_fails_on_are_refused(tmp_path, descr, shape, words):
    header = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}}}\n"
    start = b"\x93NUMPY\1\0" + len(header).to_bytes(2, "little")
    save_raw(tmp_path / "a.npz", start + header.encode() + bytes(256))
    for function in (archives.find_images, archives.find_labels, archives.open_reader):
        message = get_error(function, tmp_path / "a.npz", "X")
        assert "cannot be read" in message
        assert words in message


def test_a_header_that_promises_gigabytes_is_not_read(tmp_path):
    buffer = io.BytesIO()
    np.save(buffer, np.zeros((1000, 100, 100), "uint8"))
    content = bytearray(buffer.getvalue())
    content[6] ^= 2  # the version: of the length four bytes count, not two
    save_raw(tmp_path / "a.npz", content)
    tracemalloc.start()
    try:
        message = get_error(archives.find_images, tmp_path / "a.npz", "X")
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()
    assert "its .npy header promises" in message
    assert "bytes, expected at most 10,000" in message


def test_member_that_is_no_array_or_encrypted(tmp_path):
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("X.npy", b"nothing of the kind")
        archive.writestr("Y.npy", b"")
    for key in "XY":
        assert f"{path}:{key}: cannot" in get_error(archives.find_images, path, key)
        assert f"{path}:{key}: cannot" in get_error(archives.open_reader, path, key)
    np.savez(path, X=draw())
    content = bytearray(path.read_bytes())
    content[6] |= 1
    content[content.index(b"PK\1\2") + 8] |= 1
    path.write_bytes(content)
    assert "encrypted" in get_error(archives.find_images, path, "X")


def test_zip_compression_that_is_not_supported(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, X=draw())
    content = bytearray(path.read_bytes())
    content[8] = content[content.index(b"PK\1\2") + 10] = 93
    path.write_bytes(content)
    message = get_error(archives.find_images, path, "X")
    assert "zip compression 93: write it again" in message


def test_missing_hdf5_filter_is_named(tmp_path):
    path = tmp_path / "a.h5"
    created_with = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    created_with.set_chunk((1, 12, 10))
    created_with.set_filter(305, h5py.h5z.FLAG_OPTIONAL, ())
    with h5py.File(path, "w") as file:
        space = h5py.h5s.create_simple(STACK_SHAPE)
        d = h5py.h5d.create(file.id, b"X", h5py.h5t.NATIVE_UINT8, space, created_with)
        d.write_direct_chunk((0, 0, 0), b"abc", 0)
    for function in (archives.find_images, archives.find_labels, archives.open_reader):
        assert "HDF5 filter lzo (number 305)" in get_error(function, path, "X")


def test_values_in_other_files_are_refused(tmp_path):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        layout = h5py.VirtualLayout((7, 12, 10), "uint8")
        layout[:] = h5py.VirtualSource("gone.h5", "X", STACK_SHAPE)
        file.create_virtual_dataset("virtual", layout)
        file.create_dataset("raw", STACK_SHAPE, "uint8", external=[("raw.bin", 0, 840)])
    for key in ("virtual", "raw"):
        assert "keeps its values elsewhere" in get_error(
            archives.find_images, path, key
        )


def test_empty_dataspace_and_types_unknown_to_numpy(tmp_path):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file["null"] = h5py.Empty("uint8")
        space = h5py.h5s.create_simple(STACK_SHAPE)
        h5py.h5d.create(file.id, b"bits", h5py.h5t.STD_B8LE, space)
        file["type"] = np.dtype("uint8")
    assert get_keys(archives.list_datasets(path)) == ["/bits", "/null"]
    assert "no values" in get_error(archives.find_images, path, "null")
    assert archives.list_datasets(path)[1].shape == ()


def test_user_block_and_wrong_suffix(tmp_path):
    path = tmp_path / "a.npz"
    with h5py.File(path, "w", userblock_size=512) as file:
        file["X"] = draw()
    np.testing.assert_array_equal(read_all(path, "X"), draw())


def test_names_that_cannot_be_printed(tmp_path):
    path = os.fsdecode(os.fsencode(tmp_path) + b"/a\xff\n:b.h5")
    with h5py.File(path, "w") as file:
        file["X"] = draw()
    message = get_error(archives.find_images, path, "Y")
    message.encode("utf-8")
    assert archives.split_name(path + ":X")[1] == "X"
    np.testing.assert_array_equal(read_all(path, "X"), draw())


def test_hdf5_names_that_are_not_utf8(tmp_path):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file[b"caf\xe9"] = draw()
        file["é"] = draw(seed=1)
    assert get_keys(archives.list_datasets(path)) == ["/caf\udce9", "/é"]
    assert get_keys(archives.find_images(path, "*")) == ["/é"]
    np.testing.assert_array_equal(read_all(path, "é"), draw(seed=1))
    for key in (None, "/caf\udce9"):
        message = get_error(archives.find_images, path, key)
        assert "not UTF-8: rename it" in message
        message.encode("utf-8")
    assert "not UTF-8" in get_error(archives.open_reader, path, "/caf\udce9")


def test_one_damaged_dataset_leaves_the_others(tmp_path):
    path = tmp_path / "a.h5"
    make_h5_saver()(path, X=draw(), Y=draw(seed=1))
    # The message that holds the shape: no side may exceed its own maximum.
    sides = b"".join(side.to_bytes(8, "little") for side in STACK_SHAPE)
    flip(path, path.read_bytes().index(sides) + 1)
    np.testing.assert_array_equal(read_all(path, "Y"), draw(seed=1))
    X, Y = archives.list_datasets(path)
    assert "cannot be read (dataspace dim 0" in X.unreadable
    assert Y.problem is None
    for function in (archives.find_images, archives.open_reader):
        assert "/X: cannot be read" in get_error(function, path, "X")
    assert f"name {path}:/Y if it is meant" in get_error(
        archives.find_images, path, None
    )


def test_damaged_hdf5_groups(tmp_path):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file["a/X"] = draw()
    flip(path, path.read_bytes().rindex(b"SNOD"))
    assert "its groups cannot be read" in get_error(archives.list_datasets, path)


def test_noise_of_hdf5_is_left_out(tmp_path, monkeypatch):
    path = tmp_path / "a.h5"
    make_h5_saver()(path, X=draw())
    noise = (
        "Unable to synchronously open file (file read failed: time = Mon Nov 23\n"
        ", file descriptor = 3, errno = 5, error message = 'Input/output error', "
        "buf = 0x7ffdf2824638, total read size = 8)"
    )
    lock = (
        "Unable to synchronously open file (unable to lock file, errno = 11, "
        "error message = 'Resource temporarily unavailable')"
    )
    for text, words in [(noise, "(Input/output error)"), (lock, "is locked")]:

        def fail(*_arguments, text=text, **_options):
            raise OSError(text)

        monkeypatch.setattr(h5py, "File", fail)
        message = get_error(archives.list_datasets, path)
        assert words in message
        assert "descriptor" not in message


def test_site_decides_about_file_locking(tmp_path, monkeypatch):
    path = tmp_path / "a.h5"
    make_h5_saver()(path, X=draw())
    seen = []
    real_file = h5py.File

    def spy(*arguments, **options):
        seen.append(options["locking"])
        return real_file(*arguments, **options)

    monkeypatch.setattr(h5py, "File", spy)
    monkeypatch.delenv("HDF5_USE_FILE_LOCKING", raising=False)
    archives.list_datasets(path)
    monkeypatch.setenv("HDF5_USE_FILE_LOCKING", "TRUE")
    archives.list_datasets(path)
    assert seen == [False, None]


def test_import_leaves_plugins_alone():
    code = "import sys, nucleiseg.archives; sys.exit('hdf5plugin' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


# --- fingerprint -----------------------------------------------------------------


def restore_times(path, status):
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def test_fingerprint_sees_one_byte_of_a_small_file(tmp_path, common_saver):
    path = tmp_path / "a.npz"
    common_saver(path, X=draw())
    status = path.stat()
    first = archives.fingerprint(path)
    assert len(first) >= 16
    int(first, 16)
    assert archives.fingerprint(path) == first
    flip(path, path.stat().st_size // 3)
    restore_times(path, status)
    assert archives.fingerprint(path) != first
    flip(path, path.stat().st_size // 3)
    restore_times(path, status)
    assert archives.fingerprint(path) == first


def test_fingerprint_of_a_large_file(tmp_path, monkeypatch):
    path = tmp_path / "a.npz"
    np.savez(path, X=np.zeros((3, 2048, 2048), "uint8"))
    status = path.stat()
    assert status.st_size > 8 << 20
    seen = {archives.fingerprint(path)}
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    seen.add(archives.fingerprint(path))
    # One byte near each end, time set back.
    for place in (1000, status.st_size - 200_000):
        flip(path, place)
        restore_times(path, status)
        seen.add(archives.fingerprint(path))
    # Other content in the middle, written by a zip writer: the directory's CRC.
    X = np.zeros((3, 2048, 2048), "uint8")
    X[1, 700, 701] = 1
    np.savez(path, X=X)
    restore_times(path, status)
    assert path.stat().st_size == status.st_size
    seen.add(archives.fingerprint(path))
    np.savez(path, X=X, Y=X[:0])
    restore_times(path, status)
    seen.add(archives.fingerprint(path))
    assert len(seen) == 6


def test_fingerprint_reads_little_of_a_huge_file(tmp_path):
    path = tmp_path / "huge.h5"
    with h5py.File(path, "w") as file:
        file["X"] = draw()
    os.truncate(path, 50 << 30)  # sparse
    started = time.perf_counter()
    archives.fingerprint(path)
    assert time.perf_counter() - started < 1.0
