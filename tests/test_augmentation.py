import numpy as np
import pytest
from scipy import ndimage

from nucleiseg import synthetic
from nucleiseg.augmentation import (
    Turn,
    change_values,
    changes_values,
    draw_geometry,
    moves_pixels,
)
from nucleiseg.config import AugmentationConfig

MOVES = {
    "flips": True,
    "quarter_turns": True,
    "rotation_deg": 180.0,
    "scale": 1.5,
    "elastic_px": 4.0,
}
VALUES = {
    "brightness": 0.2,
    "contrast": 1.5,
    "gamma": 1.5,
    "blur_px": 1.5,
    "noise": 0.1,
    "background": 0.3,
    "inversion": 1.0,
}
ALL = AugmentationConfig(**MOVES, **VALUES)


def augment(image, labels, settings, rng):
    """Change a whole image as a crop of its own, in the order of the training."""
    geometry = draw_geometry(settings, rng, image.shape)
    if isinstance(geometry, Turn):
        image, labels = geometry.apply(image), geometry.apply(labels)
    else:
        centre = tuple((side - 1) / 2 for side in image.shape)
        image, labels = geometry.apply(image, labels, centre=centre)
    return change_values(image, settings, rng), labels


def settings_of(**parts):
    return AugmentationConfig(**parts)


@pytest.fixture(scope="module")
def field():
    images, labels = synthetic.draw_fields(1, (96, 96), seed=3)
    return images[0].astype("float32") / 255, labels[0]


def test_off_changes_nothing_and_draws_nothing(field):
    rng, other = np.random.default_rng(0), np.random.default_rng(0)
    image, labels = augment(*field, AugmentationConfig(), rng)
    np.testing.assert_array_equal(image, field[0])
    np.testing.assert_array_equal(labels, field[1])
    assert rng.random() == other.random()
    assert not moves_pixels(AugmentationConfig())
    assert not changes_values(AugmentationConfig())


@pytest.mark.parametrize(("part", "value"), [*MOVES.items(), *VALUES.items()])
def test_each_part_is_a_setting(field, part, value):
    settings = settings_of(**{part: value})
    results = [augment(*field, settings, np.random.default_rng(i)) for i in range(6)]
    assert any(not np.array_equal(image, field[0]) for image, _ in results)
    has_moved = any(not np.array_equal(labels, field[1]) for _, labels in results)
    assert has_moved == (part in MOVES) == moves_pixels(settings)
    assert changes_values(settings) == (part in VALUES)


def test_same_generator_same_result(field):
    one, same, other = (
        augment(*field, ALL, np.random.default_rng(seed)) for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(one[0], same[0])
    np.testing.assert_array_equal(one[1], same[1])
    assert not np.array_equal(one[0], other[0])
    assert (one[0].dtype, one[1].dtype) == (np.float32, field[1].dtype)
    assert np.isfinite(one[0]).all()


@pytest.mark.parametrize("seed", range(6))
def test_image_and_labels_move_together(field, seed):
    # An image of the labels themselves: away from outlines they must stay equal.
    labels = field[1]
    image, moved = augment(
        labels.astype("float32"),
        labels,
        settings_of(**MOVES),
        np.random.default_rng(seed),
    )
    assert set(np.unique(moved)) <= set(np.unique(labels))
    is_inside = ndimage.maximum_filter(moved, 5) == ndimage.minimum_filter(moved, 5)
    # What lies beyond the crop's border is not seen.
    is_inside &= np.pad(np.ones((92, 92), bool), 2)
    assert is_inside.mean() > 0.5
    np.testing.assert_allclose(image[is_inside], moved[is_inside], atol=1e-3)


@pytest.mark.parametrize(
    "dtype", ["bool", "uint8", "uint16", "int32", "uint32", "int64", "float32"]
)
def test_labels_of_any_dtype_keep_their_values(field, dtype):
    labels = (field[1] > 0).astype(dtype)
    if dtype in ("uint32", "int64"):
        labels *= np.array(70_000_001, dtype)
    _, moved = augment(field[0], labels, settings_of(**MOVES), np.random.default_rng(0))
    assert moved.dtype == labels.dtype
    np.testing.assert_array_equal(np.unique(moved), np.unique(labels))


@pytest.mark.parametrize("seed", range(8))
def test_a_map_of_turns_is_the_turn(field, seed):
    turns = {"flips": True, "quarter_turns": True}
    turn = draw_geometry(settings_of(**turns), np.random.default_rng(seed), (96, 96))
    assert isinstance(turn, Turn)
    # Too small to be seen; but it takes the way of maps.
    bent = settings_of(**turns, elastic_px=1e-6)
    warp = draw_geometry(bent, np.random.default_rng(seed), (96, 96))
    image, labels = warp.apply(*field, centre=(47.5, 47.5))
    np.testing.assert_allclose(image, turn.apply(field[0]), atol=1e-6)
    np.testing.assert_array_equal(labels, turn.apply(field[1]))


def test_all_eight_turns_are_drawn():
    settings = settings_of(flips=True, quarter_turns=True)
    rng = np.random.default_rng(0)
    assert len({draw_geometry(settings, rng, (32, 32)) for _ in range(200)}) == 8
    # Crops that are not square stay as wide as they are.
    quarters = {draw_geometry(settings, rng, (32, 48)).quarters for _ in range(50)}
    assert quarters == {0, 2}


def test_rotation_keeps_distances_and_scale_is_bounded():
    rng = np.random.default_rng(0)
    plain = np.hypot(*np.meshgrid(np.arange(32) - 15.5, np.arange(32) - 15.5))
    factors = []
    for scale in (1.0, 2.0):
        settings = settings_of(rotation_deg=180.0, scale=scale)
        for _ in range(50):
            warp = draw_geometry(settings, rng, (32, 32))
            ratio = np.hypot(warp.rows, warp.columns) / plain
            np.testing.assert_allclose(ratio, ratio[0, 0], rtol=1e-4)
            factors.append(ratio[0, 0])
    np.testing.assert_allclose(factors[:50], 1, rtol=1e-4)
    assert 0.5 <= min(factors) < 0.7
    assert 1.5 < max(factors) <= 2.0


@pytest.mark.parametrize("centre", [(48.0, 40.5), (10.5, 90.0), (0.0, 0.0)])
def test_the_region_read_is_all_that_is_needed(field, centre):
    rng = np.random.default_rng(4)
    for _ in range(20):
        warp = draw_geometry(settings_of(**MOVES), rng, (32, 32))
        rows, columns = warp.find_region(centre, field[0].shape)
        part = np.s_[rows[0] : rows[1], columns[0] : columns[1]]
        inner = (centre[0] - rows[0], centre[1] - columns[0])
        found = warp.apply(field[0][part], field[1][part], centre=inner)
        whole = warp.apply(*field, centre=centre)
        # Places are rounded to 1/32 px, and some lie on the edge of it.
        difference = np.abs(found[0] - whole[0])
        assert difference.max() < 0.02
        assert (difference > 1e-6).mean() < 0.01
        assert (found[1] != whole[1]).mean() < 0.005


def test_values_of_known_parts():
    image = np.linspace(-0.1, 1, 64, dtype="float32").reshape(8, 8)

    def change(seed=0, **parts):
        return change_values(image, settings_of(**parts), np.random.default_rng(seed))

    np.testing.assert_allclose(change(inversion=1.0), 1 - image, atol=1e-6)
    for seed in range(20):
        offset = change(seed, brightness=0.2) - image
        np.testing.assert_allclose(offset, offset[0, 0], atol=1e-6)
        assert abs(offset[0, 0]) <= 0.2
        stretched = change(seed, contrast=2.0)
        assert stretched.mean() == pytest.approx(image.mean(), abs=1e-5)
        assert 0.49 < np.ptp(stretched) / np.ptp(image) < 2.01
        raised = change(seed, gamma=2.0)
        np.testing.assert_array_equal(np.sign(raised), np.sign(image))
        assert raised.max() == pytest.approx(1, abs=1e-5)
        light = change(seed, background=0.5) - image
        assert -1e-6 <= light.min()
        assert light.max() <= 0.5
        assert np.std(change(seed, noise=0.1) - image) < 0.13
        assert np.std(change(seed, blur_px=3.0)) <= np.std(image) + 1e-6


def test_units_are_those_of_the_image_s_range():
    image = np.random.default_rng(0).random((32, 32), dtype="float32")
    one = change_values(image, ALL, np.random.default_rng(1))
    other = change_values(
        image * 200 + 50, ALL, np.random.default_rng(1), value_range=(50, 250)
    )
    np.testing.assert_allclose(other, one * 200 + 50, atol=0.02)
    # A constant image has no range, and stays finite.
    flat = np.full((8, 8), 7, "float32")
    found = change_values(flat, ALL, np.random.default_rng(0), value_range=(7, 7))
    assert np.isfinite(found).all()
