"""What `nucleiseg inspect` finds out about an archive, and what it draws."""

import tracemalloc

import h5py
import numpy as np
import pytest

from nucleiseg.archives import Reader, chunks, list_datasets, open_reader
from nucleiseg.cli import main
from nucleiseg.errors import ArchiveError, ConfigError
from nucleiseg.inspection import draw_examples, inspect_archive

IMAGES = np.arange(3 * 16 * 24, dtype="uint16").reshape(3, 16, 24)


def save(path, **arrays):
    np.savez(path, **arrays)
    return path


def inspect_one(path, **options):
    (facts,) = inspect_archive(path, **options)
    return facts


def draw(path, folder, *, index=0):
    return sorted(
        picture.name
        for picture in draw_examples(
            path, list_datasets(path), folder, index=index
        ).pictures
    )


def test_ranges_are_those_of_the_array(tmp_path):
    path = save(tmp_path / "a.npz", X=IMAGES, y=(IMAGES > 9).astype("float32"))
    images, masks = inspect_archive(path)
    assert (images.lowest, images.highest, images.n_looked_at) == (0, 1151, 3)
    assert (masks.lowest, masks.highest) == (0, 1)
    assert images.problem is masks.problem is None
    assert not images.is_damaged


@pytest.mark.parametrize(("read_all", "highest"), [(False, 767), (True, 1151)])
def test_large_datasets_are_looked_at_in_part(tmp_path, monkeypatch, read_all, highest):
    monkeypatch.setattr("nucleiseg.inspection._FIRST_BYTES", 2 * 16 * 24 * 2)
    monkeypatch.setattr("nucleiseg.inspection._PIECE_BYTES", 1)
    facts = inspect_one(save(tmp_path / "a.npz", X=IMAGES), read_all=read_all)
    assert facts.n_looked_at == (3 if read_all else 2)
    assert facts.highest == highest


@pytest.mark.parametrize("kind", ["rows", "columns", "chunks"])
def test_large_images_are_read_in_parts(tmp_path, monkeypatch, kind):
    monkeypatch.setattr("nucleiseg.inspection._LARGE_BYTES", 1000)
    monkeypatch.setattr("nucleiseg.inspection._PIECE_BYTES", 600)
    images = IMAGES.astype("float32")
    images[1, 3, 3] = images[1, 15, 23] = np.nan
    images[2, 15, 23] = 5000
    path = tmp_path / "a"
    if kind == "columns":
        images = np.asfortranarray(images[1:2])
    if kind == "chunks":
        with h5py.File(path, "w") as file:
            file.create_dataset("X", data=images, chunks=(2, 5, 7), compression=1)
    else:
        with path.open("wb") as stream:
            np.savez_compressed(stream, X=images)
    sizes = []
    real = Reader.read_region

    def read_region(*arguments):
        sizes.append(real(*arguments).nbytes)
        return real(*arguments)

    monkeypatch.setattr(Reader, "read_region", read_region)
    facts = inspect_one(path)
    assert 0 < max(sizes) <= 600
    assert sum(sizes) == images.nbytes
    assert (facts.lowest, facts.highest) == (np.nanmin(images), np.nanmax(images))
    assert facts.problem.startswith(f"1 of {len(images)} images hold NaN")


def test_an_image_of_any_size_takes_little_memory(tmp_path):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        shape, chunk = (12_000, 20_000), (1000, 1000)
        file.create_dataset("X", shape, "uint8", chunks=chunk, compression=1)
        file["X"][11_999, 19_999] = 7
    tracemalloc.start()
    try:
        facts = inspect_one(path)
        examples = draw_examples(path, [facts.info], tmp_path / "p", index=0)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (facts.lowest, facts.highest, facts.problem) == (0, 7, None)
    assert peak < 240e6
    assert [picture.name for picture in examples.pictures] == ["X-000000_image.png"]
    assert examples.notes == (
        "/X: the picture shows the middle 2048 x 2048 of 12000 x 20000 px",
    )


def test_one_dataset_that_memory_does_not_hold_leaves_the_others(
    tmp_path, monkeypatch, capsys
):
    path = save(tmp_path / "a.npz", A=IMAGES, B=IMAGES)

    def lack_memory(*_):
        raise MemoryError("Unable to allocate 9 TiB")

    def open_scarce(path, key):
        reader = open_reader(path, key)
        if key == "A":
            reader.read = reader.read_region = lack_memory
        return reader

    monkeypatch.setattr("nucleiseg.inspection.open_reader", open_scarce)
    scarce, plenty = inspect_archive(path)
    assert scarce.is_damaged
    assert scarce.problem.startswith(
        "takes more memory than there is (Unable to allocate 9 TiB); use a machine"
    )
    assert plenty.highest == 1151
    examples = draw_examples(path, [scarce.info, plenty.info], tmp_path, index=0)
    assert [picture.name for picture in examples.pictures] == ["B-000000_image.png"]
    (problem,) = examples.problems
    assert problem.startswith("A: no picture: takes more memory than there is")
    assert main(["inspect", str(path), "--pictures", str(tmp_path / "p")]) == 1
    out = capsys.readouterr().out
    assert "  A: takes more memory than there is" in out
    assert "B-000000_image.png" in out


def test_the_middle_of_a_large_image_is_drawn_with_its_mask(tmp_path, monkeypatch):
    monkeypatch.setattr("nucleiseg.inspection._MOST_PICTURE_PX", 300)
    monkeypatch.setattr("nucleiseg.inspection._MIDDLE_PX", 10)
    drawn = []

    def save_inspection(folder, image, mask, *, name, note):
        drawn.append((image, mask, note))
        return [folder / name]

    monkeypatch.setattr("nucleiseg.inspection.save_inspection", save_inspection)
    path = save(tmp_path / "a.npz", X=IMAGES, y=IMAGES > 500)
    assert draw(path, tmp_path / "p", index=1) == ["X-000001"]
    ((image, mask, note),) = drawn
    np.testing.assert_array_equal(image, IMAGES[1, 3:13, 7:17])
    np.testing.assert_array_equal(mask, image > 500)
    assert note == "the middle 10 x 10 of 16 x 24 px"


def test_a_damaged_image_leaves_the_pictures_of_others(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("nucleiseg.inspection._FIRST_BYTES", 1)
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        bad = file.create_dataset("bad", data=IMAGES, chunks=(1, 16, 24), compression=1)
        file["good"] = IMAGES
        offset = bad.id.get_chunk_info(2).byte_offset
    with path.open("r+b") as stream:
        stream.seek(offset)
        stream.write(b"\xff" * 20)
    folder = tmp_path / "p"
    assert main(["inspect", str(path), "--pictures", str(folder), "--index", "2"]) == 1
    assert [picture.name for picture in folder.iterdir()] == ["good-000002_image.png"]
    out = capsys.readouterr().out
    assert "/bad: no picture: image 2 cannot be read" in out


def test_nan_and_infinity_are_counted_and_not_in_the_range(tmp_path):
    images = IMAGES.astype("float32")
    images[0, 0, :] = np.nan
    images[2, 3, 3] = -np.inf
    facts = inspect_one(save(tmp_path / "a.npz", X=images))
    assert (facts.lowest, facts.highest) == (24, 1151)
    assert facts.problem.startswith("2 of 3 images hold NaN or infinite values")
    images[:] = np.nan
    facts = inspect_one(save(tmp_path / "a.npz", X=images))
    assert facts.lowest is facts.highest is None
    assert facts.problem.startswith("3 of 3 images")


def test_an_empty_stack_has_no_range(tmp_path):
    facts = inspect_one(save(tmp_path / "a.npz", X=IMAGES[:0]))
    assert (facts.lowest, facts.n_looked_at) == (None, 0)
    assert "0 images" in facts.problem


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.zeros((3, 16, 24, 3), "uint8"), "convert it to grey"),
        (np.zeros((3, 16, 24), "int64"), 'convert with .astype("uint16")'),
        (np.array([{}, {}], dtype=object), "never unpickled"),
        (np.zeros(5), "shape (5,)"),
    ],
)
def test_what_is_no_image_is_listed_with_the_remedy_for_images(tmp_path, array, words):
    facts = inspect_one(save(tmp_path / "a.npz", X=array))
    assert words in facts.problem
    assert not facts.is_damaged


def test_a_damaged_dataset_is_named_and_leaves_the_others(tmp_path):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file["good"] = IMAGES
        bad = file.create_dataset("bad", data=IMAGES, chunks=True, compression="gzip")
        offset = bad.id.get_chunk_info(0).byte_offset
    with path.open("r+b") as stream:
        stream.seek(offset)
        stream.write(b"\xff" * 20)
    bad, good = inspect_archive(path)
    assert bad.is_damaged
    assert bad.problem.startswith("images 0 to 2 cannot be read")
    assert (bad.lowest, bad.n_looked_at) == (None, 0)
    assert (good.highest, good.is_damaged) == (1151, False)


def test_a_damaged_dataset_without_compression_is_noticed(tmp_path):
    images = np.tile(IMAGES, (1, 4, 4))
    path = save(tmp_path / "a.npz", X=images)
    content = bytearray(path.read_bytes())
    content[content.index(images[1].tobytes())] ^= 1
    path.write_bytes(content)
    facts = inspect_one(path)
    assert facts.is_damaged
    assert "Bad CRC-32" in facts.problem


def test_a_key_chooses(tmp_path):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        for well in "ab":
            file[f"{well}/images"] = IMAGES
            file[f"{well}/masks"] = IMAGES > 5
    assert len(inspect_archive(path)) == 4
    chosen = inspect_archive(path, "/*/images")
    assert [facts.info.key for facts in chosen] == ["/a/images", "/b/images"]
    assert inspect_one(path, key="b/masks").highest == 1
    with pytest.raises(ArchiveError, match="the nearest is /a/images"):
        inspect_archive(path, "/a/image")


def test_what_a_glob_matches_and_cannot_be_used_is_listed_with_its_problem(tmp_path):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file["a/images"], file["b/images"] = np.zeros((3, 16, 24, 3), "uint8"), IMAGES
        file["a/masks"] = IMAGES.astype("int64")
        file["a/names"], file["a/table"] = ["text"], np.zeros((20, 2))
    facts = {found.info.key: found for found in inspect_archive(path, "**")}
    assert list(facts) == ["/a/masks", "/b/images", "/a/images"]
    assert "convert it to grey" in facts["/a/images"].problem
    assert facts["/b/images"].problem is None
    facts = inspect_archive(path, "/*/images")
    assert [found.info.key for found in facts] == ["/b/images", "/a/images"]


def test_a_further_name_is_listed_but_not_read_again(tmp_path):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file["a"] = IMAGES
        file["b"] = file["a"]
    first, second = inspect_archive(path)
    assert (first.highest, first.problem) == (1151, None)
    assert second.problem == "is /a under another name (a hard link)"
    assert second.n_looked_at == 0
    assert inspect_one(path, key="b").highest == 1151


def test_a_key_of_a_colour_dataset_gets_the_remedy_for_images(tmp_path):
    path = save(tmp_path / "a.npz", X=np.zeros((3, 16, 24, 3), "uint8"))
    with pytest.raises(ArchiveError, match="convert it to grey"):
        inspect_archive(path, "X")


@pytest.mark.parametrize("name", ["a.npz", "a.h5"])
def test_an_archive_without_datasets_is_refused(tmp_path, name):
    path = tmp_path / name
    if path.suffix == ".npz":
        np.savez(path)
    else:
        h5py.File(path, "w").close()
    with pytest.raises(ArchiveError, match="no datasets at all; save images"):
        inspect_archive(path)


@pytest.mark.parametrize("name", ["y", "mask", "Labels"])
def test_images_are_drawn_with_the_masks_beside_them(tmp_path, name):
    path = save(tmp_path / "a.npz", X=IMAGES, **{name: (IMAGES > 500).astype("uint8")})
    kinds = ("image", "mask", "overlay")
    assert draw(path, tmp_path / "p") == [f"X-000000_{kind}.png" for kind in kinds]
    assert len(list((tmp_path / "p").iterdir())) == 3


def test_masks_of_other_images_are_left_out(tmp_path):
    path = save(tmp_path / "a.npz", X=IMAGES, y=(IMAGES > 500)[:2])
    assert draw(path, tmp_path / "p") == ["X-000000_image.png"]


def test_masks_belong_to_the_images_of_their_group(tmp_path):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file["a/images"], file["b/images"] = IMAGES, IMAGES
        file["b/masks"] = (IMAGES > 500).astype("uint8")
    assert draw(path, tmp_path / "p", index=2) == [
        "a_images-000002_image.png",
        *(f"b_images-000002_{kind}.png" for kind in ("image", "mask", "overlay")),
    ]


def test_no_picture_takes_the_place_of_another(tmp_path):
    path = tmp_path / "a.h5"
    keys = ["a/b", "a_b", "A_B", "c", "ü" * 300 + "/1", "ü" * 300 + "/2", "x\x1b[2J\n"]
    with h5py.File(path, "w") as file:
        for key in keys:
            file[key] = IMAGES
    drawn = draw(path, tmp_path / "p")
    assert len(set(map(str.casefold, drawn))) == len(keys)
    assert "c-000000_image.png" in drawn
    assert sorted(name.name for name in (tmp_path / "p").iterdir()) == drawn
    assert all(name.isprintable() and len(name.encode()) < 130 for name in drawn)
    # The same again in another file that has more datasets.
    with h5py.File(path, "a") as file:
        file["d"] = IMAGES
    assert draw(path, tmp_path / "q") == sorted([*drawn, "d-000000_image.png"])


def test_what_a_file_holds_does_not_command_the_terminal(tmp_path, capsys):
    path = tmp_path / "a\x1b[2J.h5"
    with h5py.File(path, "w") as file:
        file["x\x1b[2J\ny"] = IMAGES
        file["z\x07"] = np.zeros((3, 16, 24, 3), "uint8")
    assert main(["inspect", str(path), "--pictures", str(tmp_path / "\x1bp")]) == 0
    assert main(["inspect", f"{path}:\x07*"]) == 2
    out, err = capsys.readouterr()
    assert "/x\\x1b[2J y" in out
    assert "/z\\x07: has shape (3, 16, 24, 3)" in out
    assert (out + err).replace("\n", "").isprintable()


def test_masks_alone_are_drawn_once_and_tables_never(tmp_path):
    path = save(tmp_path / "a.npz", y=(IMAGES > 5).astype("uint8"))
    assert draw(path, tmp_path / "p") == ["y-000000_image.png"]
    path = save(tmp_path / "b.npz", positions=np.zeros((9, 2)))
    assert draw(path, tmp_path / "q") == []
    assert not (tmp_path / "q").exists()


def test_datasets_with_fewer_images_are_passed_over(tmp_path):
    path = save(tmp_path / "a.npz", A=IMAGES[:1], B=IMAGES)
    assert draw(path, tmp_path / "p", index=2) == ["B-000002_image.png"]


@pytest.mark.parametrize("index", [3, -1])
def test_an_index_beyond_all_datasets_is_refused(tmp_path, index):
    path = save(tmp_path / "a.npz", A=IMAGES[:1], B=IMAGES)
    with pytest.raises(ConfigError, match="holds images 0 to 2"):
        draw(path, tmp_path / "p", index=index)


def test_at_most_eight_datasets_are_drawn(tmp_path):
    path = save(tmp_path / "a.npz", **{f"A{number}": IMAGES for number in range(10)})
    assert len(draw(path, tmp_path / "p")) == 8


def test_chunks_that_fit_badly_are_a_note_and_no_failure(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(chunks, "MAX_KEPT_BYTES", 10 * 16 * 16)
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        X = np.ones((100, 16, 16), "uint8")
        file.create_dataset("X", data=X, chunks=(50, 16, 16), compression="gzip")
    assert main(["inspect", str(path), "--no-pictures"]) == 0
    assert (
        "/X: slow to read: one chunk spans 50 images: 0 MB are inflated for each 10 "
        "images read; repack with h5repack -l X:CHUNK=100x16x16"
    ) in capsys.readouterr().out
