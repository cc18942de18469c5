"""Synthetic fields: exact labels, repeatable, and like the real images."""

from __future__ import annotations

import csv
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from nucleiseg import synthetic
from nucleiseg.archives import fingerprint
from nucleiseg.synthetic import (
    MIN_AREA_PX,
    FieldSettings,
    draw_field,
    draw_fields,
    write_sample,
)

REPOSITORY = Path(__file__).resolve().parents[1]
DATA = Path(os.environ.get("NUCLEISEG_DATA", REPOSITORY.parent / "shared" / "data"))
EIGHT = np.ones((3, 3))
# Fields that hold nuclei of one common size, so that settings show through.
PLAIN = FieldSettings(diameter_field_spread=0.0, empty_share=0.0, cluster_share=0.0)


def touching_labels(labels):
    """Labels with a pixel next to another label, by brute force over neighbours."""
    found = set()
    padded = np.pad(labels, 1)
    height, width = labels.shape
    for dy, dx in np.ndindex(3, 3):
        other = padded[dy : dy + height, dx : dx + width]
        found |= set(labels[(labels > 0) & (other > 0) & (other != labels)].tolist())
    return found


def touching_share(stack):
    n_touching = sum(len(touching_labels(labels)) for labels in stack)
    return n_touching / sum(int(labels.max()) for labels in stack)


def mean_count(settings):
    return draw_fields(20, seed=5, settings=settings)[1].max(axis=(1, 2)).mean()


def background_noise(images, labels):
    """Median over fields of the noise far from nuclei, in grey levels."""
    values = []
    for image, label_image in zip(images.astype(np.float64), labels, strict=True):
        far = ~ndimage.binary_dilation(label_image > 0, EIGHT, iterations=4)
        pairs = far[:, 1:] & far[:, :-1]
        if pairs.sum() > 300:
            values.append(np.diff(image, axis=1)[pairs].std() / np.sqrt(2))
    return float(np.median(values))


def assert_exact(labels):
    """Labels are 1…n, each one 8-connected region that is large enough."""
    present = np.unique(labels[labels > 0])
    assert present.tolist() == list(range(1, len(present) + 1))
    for label in present:
        assert ndimage.label(labels == label, EIGHT)[1] == 1
        assert np.count_nonzero(labels == label) >= MIN_AREA_PX


def test_same_seed_same_fields():
    images, labels = draw_fields(4, seed=11)
    again_images, again_labels = draw_fields(4, seed=11)
    np.testing.assert_array_equal(images, again_images)
    np.testing.assert_array_equal(labels, again_labels)
    assert images.dtype == np.uint8
    assert labels.dtype == np.uint16
    assert (draw_fields(4, seed=12)[0] != images).any(axis=(1, 2)).all()


def test_field_takes_randomness_from_its_generator_alone():
    np.random.seed(0)
    first = draw_field((64, 64), np.random.default_rng(3))
    np.random.seed(1)
    second = draw_field((64, 64), np.random.default_rng(3))
    np.testing.assert_array_equal(first, second)


def test_longer_stack_begins_with_the_shorter():
    long_images, long_labels = draw_fields(5, (48, 80), seed=2)
    images, labels = draw_fields(3, (48, 80), seed=2)
    np.testing.assert_array_equal(long_images[:3], images)
    np.testing.assert_array_equal(long_labels[:3], labels)
    assert not np.array_equal(images[0], images[1])


def test_no_fields_is_an_empty_stack():
    images, labels = draw_fields(0, (32, 40), seed=2)
    assert images.shape == labels.shape == (0, 32, 40)


@pytest.mark.parametrize(
    "settings",
    [
        FieldSettings(),
        FieldSettings(density=0.6, cluster_share=0.8, dented_share=1.0),
        FieldSettings(diameter_px=5.0, density=0.5),
        FieldSettings(diameter_px=90.0, density=0.7, roughness=0.15),
    ],
    ids=["default", "crowded", "tiny", "huge"],
)
def test_every_label_is_one_region(settings):
    _, stack = draw_fields(12, seed=7, settings=settings)
    assert stack.max() > 1
    for labels in stack:
        assert_exact(labels)


def test_exactness_check_can_fail():
    labels = np.zeros((20, 20), np.uint16)
    labels[:4, :4] = labels[10:14, 10:14] = 1
    with pytest.raises(AssertionError):
        assert_exact(labels)


@pytest.mark.parametrize("shape", [(128, 128), (37, 101), (250, 90), (16, 16), (1, 7)])
def test_any_shape(shape):
    image, labels = draw_field(shape, np.random.default_rng(4), PLAIN)
    assert image.shape == labels.shape == shape
    assert_exact(labels)


def test_density_is_the_covered_share_of_a_large_field():
    settings = replace(PLAIN, density=0.15)
    covered = [
        np.mean(draw_field((320, 320), np.random.default_rng(i), settings)[1] > 0)
        for i in range(20)
    ]
    assert np.mean(covered) == pytest.approx(0.15, rel=0.35)


def test_more_density_more_nuclei():
    sparse = mean_count(replace(PLAIN, density=0.05))
    dense = mean_count(replace(PLAIN, density=0.3))
    assert dense > 2 * sparse
    assert mean_count(replace(PLAIN, density=0.0)) == 0


def test_larger_diameter_larger_nuclei():
    areas = []
    for diameter_px in (12.0, 24.0):
        settings = replace(PLAIN, diameter_px=diameter_px, condensed_share=0.0)
        # The median: nuclei cut at the border are the minority.
        stack = draw_fields(12, (256, 256), seed=1, settings=settings)[1]
        sizes = [np.bincount(labels.ravel())[1:] for labels in stack]
        areas.append(float(np.median(np.concatenate(sizes))))
    assert areas[0] == pytest.approx(np.pi * 6**2, rel=0.25)
    assert areas[1] == pytest.approx(np.pi * 12**2, rel=0.25)


def test_cluster_share_makes_nuclei_touch():
    apart, some, most = (
        touching_share(
            draw_fields(20, seed=9, settings=replace(PLAIN, cluster_share=share))[1]
        )
        for share in (0.0, 0.2, 0.9)
    )
    assert apart == 0
    assert 0.1 < some < most
    assert most > 0.7


def test_empty_share():
    counts = {
        share: draw_fields(60, (64, 64), seed=3, settings=FieldSettings(**kwargs))[1]
        .reshape(60, -1)
        .max(axis=1)
        for share in (0.0, 0.4, 1.0)
        for kwargs in [{"empty_share": share}]
    }
    assert (counts[0.0] > 0).all()
    assert 0.2 < (counts[0.4] == 0).mean() < 0.6
    assert (counts[1.0] == 0).all()


def test_without_noise_a_field_is_smooth():
    noiseless = FieldSettings(photon_gain_grey=0.0, read_noise_grey=0.0, debris=0.0)
    quiet = background_noise(*draw_fields(12, seed=6, settings=noiseless))
    noisy = background_noise(*draw_fields(12, seed=6))
    # What is left is haze and the rounding to grey levels.
    assert quiet < 0.3 < noisy
    empty = replace(noiseless, empty_share=1.0, gradient=0.0)
    image, _ = draw_field((64, 64), np.random.default_rng(0), empty)
    assert image.min() == image.max() > 0


def test_blur_softens_edges():
    def steepest(blur_px):
        settings = replace(PLAIN, blur_px=blur_px, blur_spread=0.0, read_noise_grey=0.0)
        images, _ = draw_fields(6, seed=8, settings=settings)
        steps = np.abs(np.diff(images.astype(int), axis=2)).max(axis=(1, 2))
        return float(np.mean(steps / images.max(axis=(1, 2))))

    assert steepest(2.5) < 0.7 * steepest(0.5)


def test_nuclei_are_where_the_labels_are():
    bright = FieldSettings(brightness_grey=90.0, brightness_field_spread=0.2)
    for image, labels in zip(
        *draw_fields(20, (100, 140), seed=13, settings=bright), strict=True
    ):
        inside = labels > 0
        if not inside.any():
            continue
        assert image[inside].mean() > image[~inside].mean() + 10
        # A shift of the labels by a few pixels must fit the image worse.
        shifted = np.roll(inside, (5, 5), axis=(0, 1))
        assert image[shifted].mean() < image[inside].mean()


def test_every_whole_nucleus_is_brighter_than_the_background():
    # Slivers cut off by the border are left out: they are as dim as real ones.
    bright = replace(PLAIN, brightness_grey=120.0, brightness_field_spread=0.0)
    n_whole = 0
    for image, labels in zip(*draw_fields(20, seed=14, settings=bright), strict=True):
        background = np.median(image[labels == 0])
        cut = np.union1d(labels[[0, -1]], labels[:, [0, -1]])
        for label in np.setdiff1d(labels, [0, *cut]):
            n_whole += 1
            assert image[labels == label].mean() > background + 15
    assert n_whole > 50


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("empty_share", 1.5),
        ("density", -0.1),
        ("blur_px", float("nan")),
        ("background_grey", float("inf")),
        ("diameter_px", 2.0),
    ],
)
def test_impossible_settings_are_refused(name, value):
    with pytest.raises(ValueError, match=rf"{name} is {value}"):
        FieldSettings(**{name: value})


def test_empty_shape_is_refused():
    with pytest.raises(ValueError, match=r"shape is \(0, 8\)"):
        draw_field((0, 8), np.random.default_rng(0))


def test_more_nuclei_than_labels_are_refused(monkeypatch):
    monkeypatch.setattr(synthetic.nuclei, "_MAX_LABEL", 3)
    crowded = replace(PLAIN, density=0.7)
    with pytest.raises(ValueError, match="draw a smaller field"):
        draw_fields(5, seed=0, settings=crowded)


def test_sample_holds_images_and_truth(tmp_path):
    folder = tmp_path / "new" / "sample"
    files = write_sample(folder, n_train=5, n_test=4, shape=(40, 56), seed=21)
    images, labels = draw_fields(5, (40, 56), seed=21)
    with np.load(files.train) as train:
        assert sorted(train) == ["X", "y"]
        assert train["X"].dtype == train["y"].dtype == np.float32
        np.testing.assert_array_equal(train["X"], images)
        np.testing.assert_array_equal(train["y"], labels > 0)
    with np.load(files.train_labels) as train_labels:
        assert train_labels["y"].dtype == np.uint16
        np.testing.assert_array_equal(train_labels["y"], labels)
    with np.load(files.test_images) as test:
        assert list(test) == ["X"]
        assert test["X"].dtype == np.float32
        assert test["X"].shape == (4, 40, 56)
        assert not any((image == images).all((1, 2)).any() for image in test["X"])
    with np.load(files.test_labels) as test:
        test_labels = test["y"]
    for image in test_labels:
        assert_exact(image)
    with files.test_counts.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["index"]) for row in rows] == [0, 1, 2, 3]
    counts = [len(np.unique(image[image > 0])) for image in test_labels]
    assert [int(row["count"]) for row in rows] == counts
    assert sum(counts) > 0


def test_sample_is_the_same_every_time_and_leaves_nothing_else(tmp_path):
    options = {"n_train": 2, "n_test": 2, "shape": (32, 32), "seed": 1}
    first = write_sample(tmp_path / "a", **options)
    write_sample(tmp_path / "b", **options)
    write_sample(tmp_path / "b", **options)
    names = sorted(path.name for path in (tmp_path / "b").iterdir())
    assert names == sorted(path.name for path in vars(first).values())
    for name in names:
        assert (tmp_path / "a" / name).read_bytes() == (
            tmp_path / "b" / name
        ).read_bytes()


def test_test_images_do_not_depend_on_the_training_images(tmp_path):
    few = write_sample(tmp_path / "few", n_train=1, n_test=2, shape=(32, 32))
    more = write_sample(tmp_path / "more", n_train=3, n_test=2, shape=(32, 32))
    assert few.test_images.read_bytes() == more.test_images.read_bytes()


def test_archives_drawn_again_are_known_again(tmp_path):
    """A training that has begun with them goes on."""
    options = {"n_train": 1, "n_test": 1, "shape": (32, 32)}
    files = write_sample(tmp_path, **options)
    names = files.train, files.train_labels, files.test_images, files.test_labels
    for path in names:
        os.utime(path, ns=(0, 10**18))
    before = [fingerprint(path) for path in names]
    write_sample(tmp_path, **options)
    assert [fingerprint(path) for path in names] == before
    write_sample(tmp_path, **options, seed=9)
    assert not {fingerprint(path) for path in names} & {*before}


def test_failed_write_leaves_the_old_file_and_no_other(tmp_path, monkeypatch):
    options = {"n_train": 1, "n_test": 1, "shape": (32, 32)}
    files = write_sample(tmp_path, **options)
    before = files.train.read_bytes()
    names = sorted(path.name for path in tmp_path.iterdir())

    def fail(file, **arrays):
        file.write(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(np, "savez_compressed", fail)
    with pytest.raises(OSError, match="disk full"):
        write_sample(tmp_path, **options, seed=9)
    assert files.train.read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == names


def describe(images, labels):
    """A few medians by which two sets of fields are compared."""
    areas, counts, contrasts, levels = [], [], [], []
    for image, label_image in zip(images, labels, strict=True):
        sizes = np.bincount(label_image.ravel())[1:]
        areas.extend(sizes[sizes >= MIN_AREA_PX])
        counts.append(np.count_nonzero(sizes >= MIN_AREA_PX))
        levels.append(np.median(image[label_image == 0]))
        if counts[-1]:
            contrasts.append(image[label_image > 0].mean() - levels[-1])
    return {
        "area_px": float(np.median(areas)),
        "n_nuclei": float(np.mean(counts)),
        "covered": float(np.mean(labels > 0)),
        "contrast_grey": float(np.median(contrasts)),
        "background_grey": float(np.median(levels)),
        "noise_grey": background_noise(images, labels),
        "touching": touching_share(labels),
    }


@pytest.mark.data
def test_fields_resemble_real_ones():
    path = DATA / "X_and_labels.npz"
    if not path.exists():
        pytest.skip(f"no real images: {path} is missing (set NUCLEISEG_DATA)")
    with np.load(path) as archive:
        real = describe(archive["X"][::10], archive["y"][::10])
    drawn = describe(*draw_fields(200, seed=17))
    for name, value in real.items():
        assert value / 2 < drawn[name] < value * 2, (name, value, drawn[name])
