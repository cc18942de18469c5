"""The pass over an npz member and reading through its seek points."""

import concurrent.futures
import os
import subprocess
import sys
import zipfile
import zlib

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from isal import isal_zlib

from nucleiseg import archives
from nucleiseg.archives import inflating, pieces, seek_points
from nucleiseg.archives.gzip_view import GzipView
from nucleiseg.archives.index import find_points
from nucleiseg.archives.pieces import make_fill
from nucleiseg.archives.seek_points import SeekPoints
from nucleiseg.errors import ArchiveError, RunError
from tests.test_archives import draw, flip, get_error, save_npz, save_to_pipe

SAVERS = {
    "deflated": np.savez_compressed,
    "stored": np.savez,
    "zip64": lambda p, **a: save_npz(p, force_zip64=True, **a),
    "stored zip64": lambda p, **a: save_npz(
        p, compression=zipfile.ZIP_STORED, force_zip64=True, **a
    ),
    "descriptors": save_to_pipe,
    "bzip2": lambda p, **a: save_npz(p, compression=zipfile.ZIP_BZIP2, **a),
}


@pytest.fixture(params=SAVERS)
def save(request):
    return SAVERS[request.param]


@pytest.fixture
def small_pieces(monkeypatch):
    """Pieces of 32 KB or more, so that small archives have many."""
    monkeypatch.setattr(seek_points, "PIECE_BYTES", 32 << 10)
    monkeypatch.setattr(inflating, "_CHUNK_RAW_BYTES", 1)
    monkeypatch.setattr(inflating, "_LEAST_CHUNK_BYTES", 16 << 10)


def draw_images(n=60, shape=(64, 64), dtype="uint16", seed=0):
    """Images that deflate to a part of their size, with matches far back."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 40, (n, *shape)).astype(dtype)
    images[1::3] = images[0::3][: len(images[1::3])]
    return images


def pass_over(path, folder, key="X", n_threads=1, **options):
    fingerprint = archives.fingerprint(path)
    return archives.pass_member(
        path,
        key,
        folder=folder,
        fingerprint=fingerprint,
        n_threads=n_threads,
        **options,
    )


def open_indexed(path, folder, key="X"):
    return archives.open_reader(path, key, index=(folder, archives.fingerprint(path)))


def n_pieces(path, folder, key="X"):
    points = SeekPoints(find_points(folder, archives.fingerprint(path), key))
    points.close()
    return points._n_points - 1


# --- reading -------------------------------------------------------------------


def test_any_range_equals_the_array(tmp_path, save, small_pieces):
    path = tmp_path / "a.npz"
    X, y = draw_images(), draw_images(seed=1, dtype="float32")
    save(path, X=X, y=y)
    for key, array in (("X", X), ("y", y)):
        assert archives.needs_pass(path, key)
        note = pass_over(path, tmp_path / "index", key)
        assert note.damage is None
        assert note.n_bytes == 128 + array.nbytes
        with open_indexed(path, tmp_path / "index", key) as reader:
            for start, stop in [(0, 60), (59, 60), (0, 1), (20, 45), (21, 22), (5, 5)]:
                np.testing.assert_array_equal(
                    reader.read(start, stop), array[start:stop]
                )


@settings(
    max_examples=30,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data(), level=st.integers(1, 9), n_threads=st.integers(1, 3))
def test_ranges_of_any_member(tmp_path_factory, small_pieces, data, level, n_threads):
    """Random, constant and repeated stretches, whose points lie at any bit."""
    folder = tmp_path_factory.mktemp("any")
    path = folder / "a.npz"
    rng = np.random.default_rng(data.draw(st.integers(0, 999)))
    parts = [
        rng.integers(0, data.draw(st.sampled_from([1, 3, 17, 256])), 30_000)
        for _ in range(data.draw(st.integers(1, 6)))
    ]
    X = np.concatenate(parts).astype("uint8").reshape(-1, 20, 50)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=level) as file:
        with file.open("X.npy", "w") as member:
            np.lib.format.write_array(member, X)
    assert pass_over(path, folder, n_threads=n_threads).damage is None
    with open_indexed(path, folder) as reader:
        for _ in range(5):
            start = data.draw(st.integers(0, len(X)))
            stop = data.draw(st.integers(start, len(X)))
            np.testing.assert_array_equal(reader.read(start, stop), X[start:stop])


@pytest.mark.parametrize("n_bright", [20, 80, 110])
def test_nearly_blank_images_whose_pieces_are_longer_than_a_step(tmp_path, n_bright):
    """What is inflated at once is full just before a piece ends, and input is not."""
    X = np.zeros((48, 512, 512), dtype=np.uint8)
    rng = np.random.default_rng(0)
    X.reshape(-1)[rng.integers(0, X.size, n_bright * X.size >> 22)] = 200
    path = tmp_path / "a.npz"
    np.savez_compressed(path, X=X)
    assert pass_over(path, tmp_path / "index").damage is None
    with open_indexed(path, tmp_path / "index") as reader:
        for i in range(len(X)):
            np.testing.assert_array_equal(reader.read(i, i + 1)[0], X[i])


@pytest.mark.parametrize("most", [1, 1000, 40_000])
def test_no_byte_is_lost_between_steps(tmp_path, small_pieces, monkeypatch, most):
    monkeypatch.setattr(pieces, "_MOST_RAW_BYTES", most)
    path = tmp_path / "a.npz"
    X = np.concatenate([draw_images(4), np.zeros((4, *draw_images(1).shape[1:]), "u1")])
    np.savez_compressed(path, X=X)
    pass_over(path, tmp_path / "index")
    with open_indexed(path, tmp_path / "index") as reader:
        np.testing.assert_array_equal(reader.read(0, len(X)), X)


@pytest.mark.parametrize("n_bits", range(8))
@pytest.mark.parametrize("library", [zlib, isal_zlib])
def test_a_fill_is_no_bytes_up_to_a_bit(n_bits, library):
    fill, lowest = make_fill(n_bits)
    # The last block, stored: of what follows its three bits it begins at a byte.
    header = (lowest | 0b001 << n_bits).to_bytes((n_bits + 3 + 7) // 8, "little")
    stored = header + b"\x05\x00\xfa\xff" + b"bytes"
    stream = library.decompressobj(wbits=-15)
    assert stream.decompress(fill + stored) == b"bytes"
    assert stream.eof
    assert lowest < 2**n_bits


@pytest.mark.parametrize("shape", [(64, 48), (1, 64, 48), (64, 48, 1), (5, 64, 48, 1)])
@pytest.mark.parametrize("dtype", ["<u2", ">u2", ">f4"])
def test_shapes_and_byte_orders(tmp_path, save, shape, dtype):
    path = tmp_path / "a.npz"
    X = draw("float64", shape).astype(dtype)
    save(path, X=X)
    pass_over(path, tmp_path / "index")
    expected = X.reshape(-1, 64, 48)
    with open_indexed(path, tmp_path / "index") as reader:
        values = reader.read(0, len(expected))
        assert values.dtype == X.dtype.newbyteorder("=")
        np.testing.assert_array_equal(values, expected)


def test_fortran_order(tmp_path, save):
    path = tmp_path / "a.npz"
    image = np.asfortranarray(draw("uint16", (64, 48)))
    save(path, X=image, stack=np.asfortranarray(draw("uint16", (5, 64, 48))))
    for key in ("X", "stack"):
        pass_over(path, tmp_path / "index", key)
    with open_indexed(path, tmp_path / "index") as reader:
        np.testing.assert_array_equal(reader.read(0, 1)[0], image)
    message = get_error(open_indexed, path, tmp_path / "index", "stack")
    assert "stack: is in Fortran order: save np.ascontiguousarray(X)" in message


def test_members_without_images(tmp_path, save):
    path = tmp_path / "a.npz"
    save(path, X=np.zeros((0, 64, 48), "uint8"))
    assert pass_over(path, tmp_path / "index").damage is None
    with open_indexed(path, tmp_path / "index") as reader:
        assert reader.read(0, 0).shape == (0, 64, 48)


@pytest.mark.parametrize("compression", [zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED])
def test_a_member_of_no_bytes(tmp_path, compression):
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w", compression) as file:
        file.writestr("X.npy", b"")
    assert pass_over(path, tmp_path / "index").n_bytes == 0
    assert "X: cannot be read" in get_error(open_indexed, path, tmp_path / "index")


def test_hdf5_needs_no_pass(tmp_path):
    import h5py

    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file["X"] = draw()
    assert not archives.needs_pass(path, "X")
    with open_indexed(path, tmp_path / "index") as reader:
        np.testing.assert_array_equal(reader.read(0, 7), draw())


def test_reading_forwards_inflates_each_piece_once(tmp_path, small_pieces, monkeypatch):
    path = tmp_path / "a.npz"
    X = draw_images()
    np.savez_compressed(path, X=X)
    pass_over(path, tmp_path / "index")
    found = []
    find = SeekPoints.find
    monkeypatch.setattr(
        SeekPoints, "find", lambda self, raw: found.append(raw) or find(self, raw)
    )
    with open_indexed(path, tmp_path / "index") as reader:
        for i in range(len(X)):
            reader.read(i, i + 1)
    assert 5 < len(found) == n_pieces(path, tmp_path / "index")


def test_a_range_inflates_only_its_pieces(tmp_path, small_pieces, monkeypatch):
    path = tmp_path / "a.npz"
    X = draw_images(400)
    np.savez_compressed(path, X=X)
    pass_over(path, tmp_path / "index")
    places = []
    read = GzipView.read

    def note(self, size=-1):
        places.append(self.tell())
        return read(self, size)

    monkeypatch.setattr(GzipView, "read", note)
    with open_indexed(path, tmp_path / "index") as reader:
        reader.read(200, 202)
    inner = [p for p in places if 100 < p < path.stat().st_size * 0.9]
    assert inner
    assert min(inner) > path.stat().st_size * 0.3


def test_several_readers_in_threads(tmp_path, small_pieces):
    path = tmp_path / "a.npz"
    X = draw_images(200)
    np.savez_compressed(path, X=X)
    pass_over(path, tmp_path / "index", n_threads=2)

    def check(seed):
        rng = np.random.default_rng(seed)
        with open_indexed(path, tmp_path / "index") as reader:
            for start in rng.integers(0, 190, 20):
                assert (reader.read(start, start + 10) == X[start : start + 10]).all()

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        list(pool.map(check, range(8)))


def test_a_reader_left_open_does_not_abort_the_process(tmp_path):
    path = tmp_path / "a.npz"
    np.savez_compressed(path, X=draw_images())
    pass_over(path, tmp_path)
    code = (
        "import sys; from pathlib import Path; from nucleiseg import archives\n"
        "path, folder = map(Path, sys.argv[1:])\n"
        "index = folder, archives.fingerprint(path)\n"
        "reader = archives.open_reader(path, 'X', index=index)\n"
        "reader.read(0, 9)\n"
        "sys.exit(3)"
    )
    command = [sys.executable, "-c", code, str(path), str(tmp_path)]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (answer.returncode, answer.stderr) == (3, "")


# --- the pass ------------------------------------------------------------------


def test_the_index_is_small_private_and_made_once(tmp_path, monkeypatch):
    path = tmp_path / "a.npz"
    np.savez_compressed(path, X=draw_images(3000))
    folder = tmp_path / "run" / "index"
    shares = []
    note = pass_over(path, folder, on_progress=shares.append)
    assert shares == sorted(shares)
    assert 0 < shares[0] < shares[-1] == 1
    assert folder.stat().st_mode & 0o777 == 0o700
    files = sorted(folder.iterdir())
    assert [file.suffix for file in files] == [".json", ".points"]
    assert all(file.name.startswith(note.fingerprint) for file in files)
    assert sum(file.stat().st_size for file in files) < note.n_bytes / 100

    monkeypatch.setattr("nucleiseg.archives.index.inflate_all", None)
    assert pass_over(path, folder) == note
    assert archives.read_note(folder, note.fingerprint, "X") == note
    assert archives.read_note(folder, note.fingerprint, "y") is None
    assert archives.read_note(folder, "0" * 32, "X") is None


def test_two_passes_at_once(tmp_path, small_pieces):
    path = tmp_path / "a.npz"
    X = draw_images()
    np.savez_compressed(path, X=X)
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        notes = list(
            pool.map(
                lambda n: pass_over(path, tmp_path / "index", n_threads=n), (1, 2, 1, 2)
            )
        )
    assert len(set(notes)) == 1
    assert len(list((tmp_path / "index").iterdir())) == 2
    with open_indexed(path, tmp_path / "index") as reader:
        np.testing.assert_array_equal(reader.read(0, 60), X)


def test_another_archive_is_refused(tmp_path):
    path = tmp_path / "a.npz"
    np.savez_compressed(path, X=draw())
    with pytest.raises(ArchiveError, match="is not the archive that was planned"):
        archives.pass_member(
            path, "X", folder=tmp_path / "i", fingerprint="0" * 32, n_threads=1
        )
    assert not (tmp_path / "i").exists()


def test_an_archive_that_changes_meanwhile_gets_no_note(tmp_path):
    path = tmp_path / "a.npz"
    np.savez_compressed(path, X=draw_images())

    def change(share):
        os.utime(path, (1, 1))

    with pytest.raises(ArchiveError, match="it was changed; start a new run"):
        pass_over(path, tmp_path / "index", on_progress=change)
    assert not list((tmp_path / "index").glob("*.json"))


def test_wrong_key(tmp_path):
    path = tmp_path / "a.npz"
    np.savez_compressed(path, X=draw())
    with pytest.raises(ArchiveError, match="no dataset matches y"):
        pass_over(path, tmp_path / "index", "y")


def test_an_index_that_was_never_made_is_a_mistake_of_the_caller(tmp_path):
    path = tmp_path / "a.npz"
    np.savez_compressed(path, X=draw())
    with pytest.raises(ValueError, match="call pass_member"):
        open_indexed(path, tmp_path)


# --- damage --------------------------------------------------------------------


@pytest.mark.parametrize("n_threads", [1, 2])
def test_a_flipped_byte_is_noted_with_the_same_words(tmp_path, save, n_threads):
    path = tmp_path / "a.npz"
    rng = np.random.default_rng(0)
    save(path, X=rng.integers(0, 255, (60, 64, 64), "uint8"), y=draw_images())
    flip(path, 60_000)
    folder = tmp_path / f"index{n_threads}"
    note = pass_over(path, folder, n_threads=n_threads)
    if save is SAVERS["bzip2"]:
        assert note.damage
    else:
        assert note.damage == "Bad CRC-32 for file 'X.npy'"
    message = get_error(open_indexed, path, folder)
    assert f"X: {note.damage}; the archive is damaged: copy it again" in message
    assert not list(folder.glob("*.points"))
    assert pass_over(path, folder, "y").damage is None


def test_a_stored_member_is_summed_up_by_the_pass_alone(tmp_path):
    """Else an image would fail or not by how the images were divided."""
    path = tmp_path / "a.npz"
    X = draw_images(3)
    np.savez(path, X=X)
    assert pass_over(path, tmp_path / "index").damage is None
    print_before = archives.fingerprint(path)
    flip(path, path.stat().st_size // 2)
    with archives.open_reader(
        path, "X", index=(tmp_path / "index", print_before)
    ) as reader:
        assert reader.read(0, 3).shape == X.shape
    with archives.open_reader(path, "X") as reader:
        assert "Bad CRC-32" in get_error(reader.read, 0, 3)


def test_a_broken_stream_and_a_broken_header(tmp_path):
    path = tmp_path / "a.npz"
    np.savez_compressed(path, X=draw_images(), y=draw_images(seed=2))
    content = bytearray(path.read_bytes())
    content[5000:60_000] = bytes(55_000)
    with zipfile.ZipFile(path) as file:
        content[file.getinfo("y.npy").header_offset] ^= 1
    path.write_bytes(content)
    assert "while decompressing data" in pass_over(path, tmp_path / "index").damage
    assert "magic number" in pass_over(path, tmp_path / "index", "y").damage


def test_a_member_longer_than_its_stream(tmp_path):
    """The directory promises more bytes than there are to inflate."""
    path = tmp_path / "a.npz"
    X = draw_images(10)
    np.savez_compressed(path, X=X)
    content = path.read_bytes()
    size = (128 + X.nbytes).to_bytes(4, "little")
    place = content.rindex(b"PK\1\2") + 24
    assert content[place : place + 4] == size
    more = (128 + X.nbytes + 1000).to_bytes(4, "little")
    path.write_bytes(content[:place] + more + content[place + 4 :])
    assert pass_over(path, tmp_path / "index").damage == "its data end early"


def test_what_rapidgzip_alone_refuses_is_no_damage(tmp_path, monkeypatch):
    path = tmp_path / "a.npz"
    np.savez_compressed(path, X=draw())

    def fail(*arguments, **options):
        raise inflating.InflateError("odd")

    monkeypatch.setattr("nucleiseg.archives.index.inflate_all", fail)
    note = pass_over(path, tmp_path / "index")
    assert (note.damage, note.has_points) == (None, False)
    index = (tmp_path / "index", archives.fingerprint(path))
    with archives.open_reader(path, "X", index=index) as reader:
        np.testing.assert_array_equal(reader.read(0, reader.info.n_images), draw())


@pytest.mark.parametrize("n_good", [0, 1, 3])
def test_a_failing_file_system_is_no_damage(tmp_path, monkeypatch, n_good):
    path = tmp_path / "a.npz"
    np.savez_compressed(path, X=draw_images())
    fingerprint = archives.fingerprint(path)

    real = os.pread
    calls = []

    def fail(*arguments):
        calls.append(arguments)
        if len(calls) > n_good:
            raise OSError(5, "Input/output error")
        return real(*arguments)

    monkeypatch.setattr("nucleiseg.archives.gzip_view.os.pread", fail)
    monkeypatch.setattr(
        "nucleiseg.archives.index.find_fingerprint", lambda _: fingerprint
    )
    message = get_error(pass_over_as, path, tmp_path / "index", fingerprint)
    assert "Input/output error" in message
    assert not list((tmp_path / "index").iterdir())


def pass_over_as(path, folder, fingerprint):
    return archives.pass_member(
        path, "X", folder=folder, fingerprint=fingerprint, n_threads=1
    )


def test_any_flipped_byte_is_noticed(tmp_path):
    path = tmp_path / "a.npz"
    np.savez_compressed(path, X=draw_images(3, (16, 16)))
    content = path.read_bytes()
    with zipfile.ZipFile(path) as file:
        size = file.getinfo("X.npy").compress_size
    start = content.rindex(b"PK\1\2") - size
    n_damaged = 0
    for place in range(start, start + size, 7):
        damaged = bytearray(content)
        damaged[place] ^= 0x10
        path.write_bytes(damaged)
        try:
            n_damaged += pass_over(path, tmp_path / "index").damage is not None
        except ArchiveError:
            n_damaged += 1
    assert n_damaged == len(range(start, start + size, 7))


def test_a_member_that_shrinks_while_it_is_read(tmp_path, small_pieces):
    path = tmp_path / "a.npz"
    X = draw_images(300)
    np.savez_compressed(path, X=X)
    pass_over(path, tmp_path / "index")
    with open_indexed(path, tmp_path / "index") as reader:
        reader.read(0, 1)
        os.truncate(path, path.stat().st_size // 2)
        message = get_error(reader.read, 250, 251)
        assert "X: image 250 cannot be read (it" in message
        # A reader that failed can still read what is there.
        np.testing.assert_array_equal(reader.read(20, 30), X[20:30])


@pytest.mark.parametrize("suffix", [".json", ".points"])
def test_any_flipped_byte_of_the_index_is_named(tmp_path, small_pieces, suffix):
    path = tmp_path / "a.npz"
    X = draw_images()
    np.savez_compressed(path, X=X)
    pass_over(path, tmp_path / "index")
    (file,) = (tmp_path / "index").glob(f"*{suffix}")
    content = file.read_bytes()
    messages = []
    places = range(0, len(content), max(1, len(content) // 150))
    for place in places:
        damaged = bytearray(content)
        damaged[place] ^= 0x04
        file.write_bytes(damaged)
        try:
            with open_indexed(path, tmp_path / "index") as reader:
                values = reader.read(0, 60)
        except RunError as error:
            messages.append(str(error))
        except ArchiveError:
            # The index says that the archive is damaged.
            assert suffix == ".json"
        else:
            np.testing.assert_array_equal(values, X)
    assert len(messages) > len(places) / 3
    assert all(f"{file} " in message for message in messages)
    assert all("delete it" in message for message in messages)


def test_a_missing_or_cut_index(tmp_path):
    path = tmp_path / "a.npz"
    np.savez_compressed(path, X=draw_images())
    pass_over(path, tmp_path / "index")
    (file,) = (tmp_path / "index").glob("*.points")
    os.truncate(file, 50)
    with pytest.raises(RunError, match="it ends early"):
        open_indexed(path, tmp_path / "index").read(0, 1)
    file.unlink()
    with pytest.raises(RunError, match="No such file"):
        open_indexed(path, tmp_path / "index")
    note = file.with_suffix(".json")
    note.write_text('{"format": 2}')
    with pytest.raises(RunError, match="another format"):
        pass_over(path, tmp_path / "index")


# --- memory and large sizes ----------------------------------------------------


def test_what_is_read_for_a_piece_does_not_grow_with_the_index(tmp_path, small_pieces):
    """Of a hundred times as many points only the bisection reads more."""

    def count_bytes(n):
        path = tmp_path / f"{n}.npz"
        np.savez_compressed(path, X=draw_images(n))
        pass_over(path, tmp_path / "index")
        read = []
        with open_indexed(path, tmp_path / "index") as reader:
            points = reader._bytes._points
            real = points._read
            points._read = lambda s, n_bytes: read.append(n_bytes) or real(s, n_bytes)
            reader.read(n // 2, n // 2 + 1)
        return sum(read)

    assert count_bytes(1500) < count_bytes(30) + 4 * 2 * 32768


def test_the_view_is_a_gzip_file(tmp_path):
    import gzip

    path = tmp_path / "a.npz"
    X = draw_images(5)
    np.savez_compressed(path, first=X, X=X)
    with zipfile.ZipFile(path) as file:
        member = file.getinfo("X.npy")
        expected = file.read("X.npy")
    with GzipView(str(path), member) as view:
        whole = view.read()
        assert gzip.decompress(whole) == expected
        assert len(whole) == view.n_bytes
        for start, size in [(0, 3), (5, 20), (9, 1), (10, 8), (len(whole) - 9, 30)]:
            view.seek(start)
            assert view.read(size) == whole[start : start + size]
        assert view.seek(-4, os.SEEK_END) == len(whole) - 4
        with pytest.raises(OSError, match="fileno"):
            view.fileno()


def test_a_stored_member_beyond_4_gib(tmp_path):
    """Zip64 offsets for real, in a sparse file: only the CRC is not that of zeros."""
    path = tmp_path / "large.npz"
    header = {"descr": "|u1", "fortran_order": False, "shape": (4200, 1024, 1024)}
    with zipfile.ZipFile(path, "w") as file:
        with file.open("X.npy", "w", force_zip64=True) as member:
            np.lib.format.write_array_header_1_0(member, header)
    n_bytes = 128 + 4200 * 2**20
    content = path.read_bytes()
    local = content[: content.index(b"PK\1\2")]
    directory = content[len(local) :]
    local = enlarge(local, n_bytes)
    directory = enlarge_directory(local, n_bytes)
    image = draw("uint8", (1024, 1024))
    with open(path, "wb") as file:
        file.write(local)
        file.seek(len(local) - 128 + 128 + 4199 * 2**20)
        file.write(image.tobytes())
        file.write(directory)
    with archives.open_reader(path, "X") as reader:
        np.testing.assert_array_equal(reader.read(4199, 4200)[0], image)
        assert (reader.read(4000, 4001) == 0).all()


def enlarge(local, n_bytes):
    """Write another size into the zip64 field of a local header."""
    import struct

    sizes = struct.pack("<QQ", 128, 128)
    assert sizes in local
    return local.replace(sizes, struct.pack("<QQ", n_bytes, n_bytes))


def enlarge_directory(local, n_bytes):
    import struct

    name = b"X.npy"
    extra = struct.pack("<HHQQ", 1, 16, n_bytes, n_bytes)
    entry = struct.pack(
        "<4sBBBBHHHHIIIHHHHHII",
        b"PK\1\2", 45, 3, 45, 0, 0, 0, 0, 0x21, 0, 2**32 - 1, 2**32 - 1,
        len(name), len(extra), 0, 0, 0, 0, 0,
    )  # fmt: skip
    entry += name + extra
    start = len(local) - 128 + n_bytes
    end64 = struct.pack(
        "<4sQHHIIQQQQ", b"PK\6\6", 44, 45, 45, 0, 0, 1, 1, len(entry), start
    )
    locator = struct.pack("<4sIQI", b"PK\6\7", 0, start + len(entry), 1)
    end = struct.pack("<4sHHHHIIH", b"PK\5\6", 0, 0, 1, 1, len(entry), 2**32 - 1, 0)
    return entry + end64 + locator + end


def test_a_failing_listener_is_no_damage(tmp_path):
    path = tmp_path / "stored.npz"
    np.savez(path, X=np.arange(10_000))

    def listen(share):
        raise ValueError("nobody is there")

    arguments = {
        "folder": tmp_path / "index",
        "fingerprint": archives.fingerprint(path),
    }
    with pytest.raises(ValueError, match="nobody is there"):
        archives.pass_member(path, "X", n_threads=1, on_progress=listen, **arguments)
    assert archives.pass_member(path, "X", n_threads=1, **arguments).damage is None
