"""Images and labels of an archive pair up by what the wildcards of both stand for."""

import h5py
import numpy as np
import pytest

from nucleiseg.config import load_config
from nucleiseg.dataset import inspect_labelled
from nucleiseg.dataset.pairing import pair_keys
from nucleiseg.errors import ArchiveError

PAIRS = [
    ("**/images", "**/labels", {"/images": "/labels", "/a/images": "/a/labels"}),
    (
        "/**/images",
        "**/labels",
        {"/a/images": "/a/labels", "/a/b/images": "/a/b/labels"},
    ),
    ("**/images", "*/labels", {"/a/images": "/a/labels", "/b/images": "/b/labels"}),
    (
        "/*/*/images",
        "/**/labels",
        {"/a/b/images": "/a/b/labels", "/b/a/images": "/b/a/labels"},
    ),
    (
        "/t/*/images",
        "/t/*/labels",
        {"/t/9x9/images": "/t/9x9/labels", "/t/9/images": "/t/9/labels"},
    ),
    ("X*", "y*", {"X": "y", "X_1": "y_1"}),
    ("images?", "labels[0-9]", {"/images1": "/labels1", "/images2": "/labels2"}),
    (
        "/[!v]*/images",
        "/*/labels",
        {"/a1/images": "/a1/labels", "/a/images": "/a/labels"},
    ),
    ("/p*_w*/X", "/p*/y", {"/p1_w2/X": "/p1_w2/y", "/p2_w1/X": "/p2_w1/y"}),
    # What lies between the wildcards differs.
    (
        "**/images/*",
        "**/labels/*",
        {"/images/1": "/labels/1", "/a/images/1": "/a/labels/1"},
    ),
    ("*/raw_*", "*/mask_*", {"/a/raw_1": "/a/mask_1", "/b/raw_1": "/b/mask_1"}),
]


@pytest.mark.parametrize(("images", "masks", "pairs"), PAIRS)
def test_wildcards_stand_for_the_same(images, masks, pairs):
    # In no order, and with labels of other images among them.
    others = [key.replace("/a/", "/c/").replace("1", "3") for key in pairs.values()]
    keys = [*dict.fromkeys([*others, *pairs.values()])][::-1]
    assert pair_keys("x.h5", [*pairs], keys, (images, masks)) == [*pairs.values()]


@pytest.mark.parametrize(
    ("images", "masks", "keys", "mask_keys"),
    [
        ("**/images", "**/labels", ["/images", "/a/images"], ["/a/labels"]),
        ("**/images", "**/labels", ["/images"], ["/a/labels", "/b/labels"]),
        ("**/images", "labels", ["/images", "/a/images"], ["/labels"]),
        ("/*/images", "/*/labels", ["/a/images", "/b/images"], ["/a/labels"]),
        # A key that looks like a glob.
        ("a[1]", "b*", ["a[1]"], ["b1", "b2"]),
    ],
)
def test_images_without_masks_are_refused(images, masks, keys, mask_keys):
    with pytest.raises(ArchiveError, match="have no masks") as caught:
        pair_keys("x.h5", keys, mask_keys, (images, masks))
    message = str(caught.value)
    assert message.startswith("x.h5: images /") or "a[1]" in message
    assert "\n" not in message


def test_what_reads_alike_is_refused():
    with pytest.raises(ArchiveError, match="have no masks"):
        pair_keys("x.h5", ["a/x", "xa"], ["a/y", "ya"], ("**/x*", "?/y*"))


def test_datasets_at_the_root_and_in_folders(tmp_path):
    path = tmp_path / "a.h5"
    shapes = {"": (3, 16, 16), "a/": (4, 32, 16), "a/b/": (5, 16, 48)}
    with h5py.File(path, "w") as file:
        for folder, shape in shapes.items():
            file[f"{folder}images"] = np.ones(shape, "uint8")
            file[f"{folder}labels"] = np.ones(shape, "uint8")
    settings = ("images=/**/images", "masks='**/labels'", "crop_px=16")
    config = load_config(
        None, [f"data.{one}" for one in (f"archive={path}", *settings)]
    )
    sources = inspect_labelled(config.data).sources
    pairs = {(source.images.key, source.masks.key) for source in sources}
    assert pairs == {(f"/{f}images", f"/{f}labels") for f in shapes}
