"""Label images in bytes, and the file they are put together in."""

import time

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from nucleiseg.errors import RunError
from nucleiseg.labels import (
    LabelFile,
    choose_dtype,
    decode,
    encode,
    name_dataset,
    refuse_clashes,
)


def draw(shape, highest, seed=0):
    """Labels with every number from 1 to the highest, and background."""
    labels = np.random.default_rng(seed).integers(0, highest + 1, shape)
    labels.ravel()[: highest + 1] = np.arange(highest + 1)
    return labels.astype(np.int32)


class TestEncoding:
    @examples(deadline=None, max_examples=60)
    @given(
        st.tuples(st.integers(1, 30), st.integers(1, 30)),
        st.sampled_from([1, 255, 256, 65535, 65536, 2**31 - 1]),
        st.integers(0, 9),
    )
    def test_back_and_forth(self, shape, highest, seed):
        labels = np.random.default_rng(seed).integers(0, highest, shape, endpoint=True)
        labels[0, 0] = highest
        found = decode(encode(labels.astype(np.int32)), shape)
        assert found.dtype == (np.uint16 if highest <= 65535 else np.uint32)
        np.testing.assert_array_equal(found, labels)

    def test_views_and_other_orders(self):
        labels = draw((20, 30), 50)
        for view in (labels.T, labels[::2, 3:], np.asfortranarray(labels)):
            np.testing.assert_array_equal(decode(encode(view), view.shape), view)

    def test_without_any_nucleus_there_is_nothing(self):
        assert encode(np.zeros((5, 6), np.int32)) is None

    def test_damage_is_noticed(self):
        data = encode(draw((9, 9), 5))
        for wrong in (b"", data[:-1], data[:9] + b"\xff" + data[10:]):
            with pytest.raises(ValueError, match="cannot be inflated"):
                decode(wrong, (9, 9))
        with pytest.raises(ValueError, match=r"162 bytes, expected 2 or 4 .* 9x8"):
            decode(data, (9, 8))


class TestNames:
    @pytest.mark.parametrize(
        ("archive", "dataset", "expected"),
        [
            ("a.npz", "X", "/a.npz/X"),
            ("plates/a.npz", "X", "/plates/a.npz/X"),
            ("b.h5", "/wells/A1/images", "/b.h5/wells/A1/images"),
            ("/b.h5", "//wells/./A1", "/b.h5/wells/A1"),
        ],
    )
    def test_examples(self, tmp_path, archive, dataset, expected):
        assert name_dataset(archive, dataset) == expected
        # It is what HDF5 finds under the names as they are written.
        with h5py.File(tmp_path / "a.h5", "w") as file:
            file[expected] = 5
            assert file[f"/{archive}/{dataset}"][()] == 5

    def test_those_that_fit_one_file(self):
        refuse_clashes(["/a/X", "/a/XY", "/a/X.npz/X", "/b/X", "/a-b", "/a/W"])

    @pytest.mark.parametrize(
        "names",
        [
            ["/x/y/z", "/b", "/x/y/z"],
            ["/x/y", "/b", "/x/y/z/w"],
            # By letters, others come between the two.
            ["/x/y", "/x/y-z", "/x/y/z"],
        ],
    )
    def test_clashes_are_named(self, names):
        with pytest.raises(RunError, match="cannot lie in one file") as caught:
            refuse_clashes(names)
        assert names[0] in str(caught.value)
        assert names[2] in str(caught.value)


def write(path, datasets, highest, **notes):
    """Write stacks of label images, by name."""
    with LabelFile(path, highest) as file:
        for name, stack in datasets.items():
            dataset = file.add_dataset(name, stack.shape, is_tiled=False)
            grey = stack[..., 0] if stack.shape[-1] == 1 else stack
            for index, image in enumerate(grey if grey.ndim == 3 else [grey]):
                data = encode(image)
                if data is not None:
                    dataset.write_image(index, data, int(image.max()))
            dataset.note(**{"failed": [], "n_missing": 0, **notes})


class TestFile:
    @pytest.mark.parametrize("highest", [7, 65535, 65536])
    @pytest.mark.parametrize(
        "shape", [(300, 400), (1, 300, 400), (3, 300, 301), (2, 290, 300, 1)]
    )
    def test_shape_and_values(self, tmp_path, shape, highest):
        stack = draw(shape, highest)
        write(tmp_path / "a.h5", {"/p/a.npz/X": stack}, highest)
        with h5py.File(tmp_path / "a.h5") as file:
            dataset = file["p/a.npz/X"]
            assert dataset.dtype == (np.uint16 if highest <= 65535 else np.uint32)
            np.testing.assert_array_equal(dataset[()], stack)
            # A chunk is an image.
            assert dataset.chunks == (
                *(1,) * (len(shape) > 2),
                *shape[len(shape) > 2 :],
            )

    def test_one_large_number_widens_all(self, tmp_path):
        stacks = {"/a/X": draw((2, 300, 300), 9), "/b/X": draw((2, 300, 300), 66000)}
        write(tmp_path / "a.h5", stacks, 66000)
        with h5py.File(tmp_path / "a.h5") as file:
            for name, stack in stacks.items():
                assert file[name].dtype == np.uint32
                np.testing.assert_array_equal(file[name][()], stack)

    def test_without_images_and_without_nuclei(self, tmp_path):
        stacks = {"/a/X": np.zeros((0, 5, 6), int), "/a/Y": np.zeros((2, 5, 6), int)}
        write(tmp_path / "a.h5", stacks, 0)
        with h5py.File(tmp_path / "a.h5") as file:
            assert file["a/X"].shape == (0, 5, 6)
            assert not file["a/Y"][()].any()

    @pytest.mark.parametrize("shape", [(600, 700), (2, 600, 100), (2, 600, 700, 1)])
    def test_in_regions(self, tmp_path, shape):
        stack = draw(shape, 300)
        is_stack, has_channel = len(shape) > 2, len(shape) > 3
        images = stack.reshape(-1, *shape[is_stack:][:2])
        with LabelFile(tmp_path / "a.h5", 300) as file:
            dataset = file.add_dataset("/a/X", shape, is_tiled=True)
            for index, image in enumerate(images):
                for top, bottom in [(0, 264), (264, 600)]:
                    for left, right in [(0, 88), (88, image.shape[1])]:
                        core = slice(top, bottom), slice(left, right)
                        dataset.write_region(index, core, image[core])
        with h5py.File(tmp_path / "a.h5") as file:
            np.testing.assert_array_equal(file["a/X"][()], stack)
            n_axes = 2 + is_stack + has_channel
            assert max(file["a/X"].chunks) <= 256
            assert len(file["a/X"].chunks) == n_axes

    def test_failed_ones_are_told(self, tmp_path):
        # More than an attribute may hold.
        failed = list(range(0, 20_000, 2))
        stacks = {"/a/X": draw((3, 5, 6), 9)}
        write(tmp_path / "a.h5", stacks, 9, failed=failed, n_missing=4)
        write(tmp_path / "b.h5", stacks, 9)
        with h5py.File(tmp_path / "a.h5") as file:
            attributes = dict(file["a/X"].attrs)
        assert attributes["n_failed"] == 10_000
        assert attributes["failed"].tolist() == failed[:4096]
        assert attributes["n_missing"] == 4
        with h5py.File(tmp_path / "b.h5") as file:
            assert dict(file["a/X"].attrs) == {"n_failed": 0}

    def test_same_bytes_at_any_time(self, tmp_path):
        stacks = {"/p/a/X": draw((9, 40, 50), 9), "/b/X": draw((40, 50), 300)}
        write(tmp_path / "a.h5", stacks, 300, failed=[3], n_missing=0)
        time.sleep(1.1)
        write(tmp_path / "b.h5", stacks, 300, failed=[3], n_missing=0)
        assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()


@pytest.mark.parametrize(
    ("highest", "expected"), [(0, "<u2"), (65535, "<u2"), (65536, "<u4")]
)
def test_dtype(highest, expected):
    assert choose_dtype(highest) == np.dtype(expected)
