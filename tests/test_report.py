"""Pictures: what is on them is checked pixel by pixel, on drawn nuclei."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pandas as pd
import pytest

from nucleiseg import report
from nucleiseg.report import outlines, page, pixels, plots

MARGIN = 16


def discs(shape=(64, 64), circles=((20, 20, 9), (45, 40, 12))):
    """Draw a field: uint8 image, int32 labels."""
    labels = np.zeros(shape, np.int32)
    for label, (row, column, radius) in enumerate(circles, start=1):
        cv2.circle(labels, (column, row), radius, label, -1)
    rng = np.random.default_rng(1)
    image = rng.integers(8, 16, shape) + 60 * (labels > 0)
    return image.astype(np.uint8), labels


def read(path):
    picture = cv2.imread(str(path), cv2.IMREAD_COLOR)
    assert picture is not None, f"{path} does not decode"
    return picture[..., ::-1]


def body(path, shape, scale):
    """Cut the picture out of its page: it stands at the bottom left."""
    height, width = pixels.scaled_shape(shape, scale)
    whole = read(path)
    return whole[-MARGIN - height : -MARGIN, MARGIN : MARGIN + width]


def is_coloured(picture):
    return picture.min(axis=2) != picture.max(axis=2)


def nearest_border_px(labels, scale):
    """Distance of each display pixel to the closest border of a label (oracle)."""
    big = np.kron(labels, np.ones((scale, scale), labels.dtype))
    padded = np.pad(big, 1)
    border = np.zeros(padded.shape, bool)
    for axis in (0, 1):
        for step in (1, -1):
            border |= padded != np.roll(padded, step, axis)
    return cv2.distanceTransform((~border[1:-1, 1:-1]).astype(np.uint8), cv2.DIST_L2, 5)


# The pure parts


def test_overlay_is_the_notebooks_formula():
    image = np.array([[0, 51], [255, 102]], np.uint8)
    mask = np.array([[0, 1], [1, 0]], np.uint8)
    expected = [[0, 0.2 + 0.25], [1.25, 0.4]]
    np.testing.assert_allclose(report.overlay(image, mask, 0.25), expected)
    soft = np.array([[0.5, 0], [1, 0.2]])
    np.testing.assert_allclose(
        report.overlay(image, soft, weight=0.5), [[0.25, 0.2], [1.5, 0.5]]
    )


@pytest.mark.parametrize(
    ("image", "is_scaled"),
    [
        (np.array([[0, 255]], np.uint8), False),
        (np.array([[0, 1]], np.uint8), False),
        (np.array([[3.0, 200.5]], np.float32), False),
        (np.array([[0.0, 0.9]], np.float32), True),
        (np.array([[0, 4000]], np.uint16), True),
        (np.array([[-30, 90]], np.int16), True),
        (np.array([[np.nan, 90.0]]), False),
        (np.array([[np.nan, np.nan]]), False),
        (np.array([[7, 7]], np.uint8), False),
    ],
)
def test_only_images_of_another_range_are_scaled(image, is_scaled):
    base, found = pixels.to_255(image)
    assert found is is_scaled
    if is_scaled:
        assert np.nanmin(base) == 0
        assert np.nanmax(base) == 255
    else:
        assert base is image


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float16", "float64"])
def test_stretch_uses_all_grey_values_for_any_dtype(dtype):
    image = np.linspace(0, 100, 400).reshape(20, 20).astype(dtype)
    grey = pixels.stretch(image)
    assert (grey.min(), grey.max()) == (0, 255)
    assert (np.diff(grey.ravel().astype(int)) >= 0).all()


def test_stretch_keeps_one_small_nucleus_in_a_black_field():
    image = np.zeros((200, 200))  # the 99.9th percentile of it is 0
    image[5:10, 5:10] = 3
    assert pixels.stretch(image)[7, 7] == 255


def test_nan_and_infinity_are_black_and_do_not_shift_the_rest():
    image = np.arange(100, dtype=float).reshape(10, 10)
    broken = image.copy()
    broken[5, 5], broken[5, 6] = np.nan, np.inf
    low, high = pixels.bounds(image)
    assert pixels.bounds(broken) == (low, high)
    grey = pixels.to_grey(broken, low, high)
    assert grey[5, 5] == grey[5, 6] == 0
    others = np.isfinite(broken)
    np.testing.assert_array_equal(
        grey[others], pixels.to_grey(image, low, high)[others]
    )


def test_constant_image_is_black():
    assert not pixels.stretch(np.full((4, 4), 9.5)).any()


@pytest.mark.parametrize(
    ("shape", "scale"),
    [
        ((128, 128), 6),
        ((256, 256), 4),
        ((520, 696), 2),
        ((1040, 1388), 1),
        ((2000, 3200), 0.5),
        ((16, 16), 24),
    ],
)
def test_display_scale(shape, scale):
    assert pixels.display_scale(shape) == scale


@pytest.mark.parametrize("longest", [1, 5, 63, 64, 300, 760, 801, 1601, 9000])
@pytest.mark.parametrize("limit", [760, 1600])
def test_display_never_exceeds_its_limit(longest, limit):
    scale = pixels.display_scale((1, longest), limit=limit)
    assert 0 < round(longest * scale) <= limit


def test_enlarging_repeats_pixels_exactly():
    image = np.arange(12, dtype=np.int64).reshape(3, 4)
    np.testing.assert_array_equal(
        pixels.rescale(image, 3.0), np.kron(image, np.ones((3, 3), int))
    )


def test_reducing_keeps_the_mean():
    image = np.random.default_rng(0).random((40, 60))
    small = pixels.rescale(image, 0.5)
    assert small.shape == (20, 30)
    assert small.mean() == pytest.approx(image.mean())


# Outlines


@pytest.mark.parametrize("scale", [1, 4, 6])
def test_colour_is_only_near_borders_and_around_every_nucleus(scale):
    _, labels = discs()
    grey = np.full(pixels.scaled_shape(labels.shape, scale), 40, np.uint8)
    picture = outlines.draw_outlines(grey, labels, scale=scale)
    coloured = is_coloured(picture)
    distance = nearest_border_px(labels, scale)
    assert distance[coloured].max() < 3 + 0.75 * scale
    assert (picture[~coloured] == 40).all()
    # Flooding from the middle of a nucleus must not leak through its outline.
    free = (~coloured).astype(np.uint8)
    _, regions = cv2.connectedComponents(free, connectivity=4)
    middles = [regions[20 * scale, 20 * scale], regions[45 * scale, 40 * scale]]
    assert len({0, int(regions[0, 0]), *map(int, middles)}) == 4


def test_outline_lies_inside_its_own_nucleus():
    labels = np.zeros((40, 40), np.uint16)
    labels[10:30, 10:30] = 5
    grey = np.zeros((240, 240), np.uint8)
    coloured = is_coloured(outlines.draw_outlines(grey, labels, scale=6))
    rows, columns = np.nonzero(coloured)
    for first, last in ((rows.min(), rows.max()), (columns.min(), columns.max())):
        assert abs(int(first) - 60) <= 1
        assert abs(int(last) - 179) <= 1


def test_touching_nuclei_differ_and_lone_ones_share_the_first_colour():
    labels = np.zeros((30, 60), int)
    labels[5:15, 5:15], labels[5:15, 15:25] = 1, 2  # touch
    labels[20:28, 5:15] = 7  # alone
    labels[5:15, 40:47], labels[5:15, 48:55] = 9, 11  # parted by a watershed line
    colours = outlines.colour_indices(labels)
    assert colours[1] != colours[2]
    assert colours[9] != colours[11]
    assert colours[7] == 0
    assert set(colours) == {1, 2, 7, 9, 11}


def test_four_nuclei_in_a_corner_have_four_colours():
    labels = np.kron([[1, 2], [3, 4]], np.ones((5, 5), int))
    assert sorted(outlines.colour_indices(labels).values()) == [0, 1, 2, 3]


def test_more_neighbours_than_colours_still_draw():
    labels = np.arange(1, 26).reshape(5, 5)
    picture = outlines.draw_outlines(np.zeros((30, 30), np.uint8), labels, scale=6)
    assert is_coloured(picture).any()


def test_a_speck_of_one_pixel_is_seen():
    labels = np.zeros((20, 20), int)
    labels[10, 10] = 1
    for scale in (1, 6):
        grey = np.zeros(pixels.scaled_shape(labels.shape, scale), np.uint8)
        coloured = is_coloured(outlines.draw_outlines(grey, labels, scale=scale))
        assert coloured.any()
        assert np.abs(np.argwhere(coloured) - 10.5 * scale).max() < 2 + scale


def test_negative_labels_are_background():
    labels = np.full((8, 8), -1)
    picture = outlines.draw_outlines(np.zeros((8, 8), np.uint8), labels, scale=1)
    assert not is_coloured(picture).any()
    assert outlines.count_labels(labels) == 0


def test_outlines_refuse_a_picture_of_another_size():
    with pytest.raises(ValueError, match=r"\(9, 9\), expected \(16, 16\)"):
        outlines.draw_outlines(
            np.zeros((9, 9), np.uint8), np.zeros((8, 8), int), scale=2
        )


# Words


def test_words_stand_above_the_picture_and_leave_it_alone():
    picture = np.random.default_rng(0).integers(0, 255, (50, 400), np.uint8)
    whole = page.panel(picture, [page.Line("3 nuclei", 30), page.Line("", 20)])
    assert whole.shape == (50 + 45, 400, 3)
    np.testing.assert_array_equal(whole[45:, :, 0], picture)
    assert whole[:45].min() < 60


@pytest.mark.parametrize("width", [320, 333, 401, 1155])
def test_a_long_title_is_shortened_not_cut(width):
    long = "plate_0007_of_a_very_long_name.h5 · /wells/B12/images · 123456 " * 4
    strip = page.panel(np.zeros((4, width), np.uint8), [page.Line(long, 16)])[:-4]
    assert strip.shape[1] == width
    assert strip.min() < 100
    other = page.panel(np.zeros((4, width), np.uint8), [page.Line(long + "7", 16)])
    assert not np.array_equal(strip, other[:-4])  # the end of the name is kept


@pytest.mark.filterwarnings("error")
def test_any_title_can_be_set():
    for title in ("costs $5 and $6", "$\\frac{$", "核 · a\nb\tc", "\x00"):
        panel = page.panel(np.zeros((4, 400), np.uint8), [page.Line(title, 16)])
        assert panel.shape[1] == 400, title


# Files


def test_inspection_shows_image_mask_and_overlay(tmp_path):
    image, labels = discs()
    paths = report.save_inspection(tmp_path / "new", image, labels, name="a")
    assert [p.name for p in paths] == ["a_image.png", "a_mask.png", "a_overlay.png"]
    shown = [body(path, image.shape, 6)[3::6, 3::6, 0] for path in paths]
    mixed = image / 255 + 0.25 * (labels > 0)
    for found, expected in zip(shown, (image, labels > 0, mixed), strict=True):
        expected = expected.astype(float)
        span = np.ptp(expected)
        expected = np.rint(255 * (expected - expected.min()) / span)
        np.testing.assert_allclose(found, expected, atol=1)


def test_inspection_without_a_mask_is_one_picture(tmp_path):
    image, _ = discs()
    assert len(report.save_inspection(tmp_path, image, name="a")) == 1
    assert [p.name for p in tmp_path.iterdir()] == ["a_image.png"]


def test_inspection_says_when_it_scaled_the_image(tmp_path):
    image, labels = discs()
    same = report.save_inspection(tmp_path / "1", image, labels, name="a")
    wide = report.save_inspection(
        tmp_path / "2", image.astype(np.uint16) * 100, labels, name="a"
    )
    head = slice(0, -MARGIN - 64 * 6)
    assert not np.array_equal(read(same[2])[head], read(wide[2])[head])
    assert np.array_equal(read(same[1]), read(wide[1]))  # the mask is the mask


def test_soft_prediction_is_the_notebooks_two_pictures(tmp_path):
    image, labels = discs()
    probability = np.clip(cv2.GaussianBlur((labels > 0) * 1.0, (0, 0), 3), 0, 1)
    paths = report.save_soft_prediction(
        tmp_path, image.astype(np.float32), probability[..., None], name="p"
    )
    assert [p.name for p in paths] == ["p_soft.png", "p_rounded.png"]
    formulas = (
        image / 255 + 0.5 * probability,
        image / 255 + 0.25 * np.round(probability),
    )
    for path, expected in zip(paths, formulas, strict=True):
        expected = 255 * (expected - expected.min()) / np.ptp(expected)
        found = body(path, image.shape, 6)[3::6, 3::6, 0]
        np.testing.assert_allclose(found, np.rint(expected), atol=1)


def test_prediction_is_the_stretched_image_with_outlines(tmp_path):
    image, labels = discs()
    path = report.save_prediction(
        tmp_path / "p.png", image, None, labels, count=2, title="a.npz · X · 0"
    )
    assert path == tmp_path / "p.png"
    shown = body(path, image.shape, 6)
    coloured = is_coloured(shown)
    expected = np.kron(pixels.stretch(image), np.ones((6, 6), np.uint8))
    np.testing.assert_array_equal(shown[~coloured][:, 0], expected[~coloured])
    assert coloured.sum() > 2 * 2 * np.pi * 9 * 6  # both circles, two pixels wide


def test_count_and_title_change_the_head_only(tmp_path):
    image, labels = discs()
    pictures = [
        read(
            report.save_prediction(
                tmp_path / "p.png", image, None, labels, count=count, title=title
            )
        )
        for count, title in ((2, "a"), (3, "a"), (2, "b"), (1, "a"))
    ]
    heads = {p[: -MARGIN - 384].tobytes() for p in pictures}
    bodies = {p[-MARGIN - 384 :].tobytes() for p in pictures}
    assert (len(heads), len(bodies)) == (4, 1)


def test_prediction_with_probability_has_a_second_panel(tmp_path):
    image, labels = discs()
    soft = np.where(labels > 0, 0.8, 0.0)
    soft[0, 0] = np.nan
    path = report.save_prediction(
        tmp_path / "p.png",
        image,
        soft,
        labels,
        count=2,
        title="a",
        show_probability=True,
    )
    panel = read(path)[-MARGIN - 384 : -MARGIN, -MARGIN - 384 : -MARGIN]
    assert (panel[20 * 6, 20 * 6] == 204).all()
    assert (panel[:6, :6] == 0).all()
    with pytest.raises(ValueError, match="needs a probability map"):
        report.save_prediction(
            path, image, None, labels, count=2, title="a", show_probability=True
        )


@pytest.mark.parametrize("shape", [(16, 16), (1, 1), (1200, 1500), (300, 40)])
def test_prediction_of_any_size(tmp_path, shape):
    labels = np.zeros(shape, np.int64)
    labels[shape[0] // 3 : shape[0] // 2 + 1, : shape[1] // 2 + 1] = 70_000
    image = labels % 251 + np.arange(shape[1])[None] % 7
    path = report.save_prediction(
        tmp_path / "p.png", image.astype(np.int16), None, labels, count=1, title="t"
    )
    scale = pixels.display_scale(shape)
    height, width = pixels.scaled_shape(shape, scale)
    page_height, page_width, _ = read(path).shape
    assert page_width == max(width, 320) + 2 * MARGIN
    assert height + 2 * MARGIN < page_height < height + 2 * MARGIN + 150
    assert is_coloured(body(path, shape, scale)).any()


def test_large_image_is_reduced(tmp_path):
    image = np.zeros((1000, 4000), np.uint16)
    image[400:600, 1000:1400] = 900
    labels = (image > 0).astype(np.int32)
    path = report.save_prediction(
        tmp_path / "p.png", image, None, labels, count=1, title="t"
    )
    shown = body(path, image.shape, 0.4)
    assert shown.shape == (400, 1600, 3)
    assert shown[200, 480].min() == 255
    rows, columns = np.nonzero(is_coloured(shown))
    assert np.abs([rows.min() - 160, rows.max() - 239]).max() <= 2
    assert np.abs([columns.min() - 400, columns.max() - 559]).max() <= 2


def test_empty_and_constant_fields(tmp_path):
    flat, none = np.full((30, 30), 7.0), np.zeros((30, 30), int)
    path = report.save_prediction(
        tmp_path / "p.png", flat, None, none, count=0, title=""
    )
    assert not body(path, flat.shape, pixels.display_scale(flat.shape)).any()
    assert len(report.save_inspection(tmp_path, flat, none, name="c")) == 3
    nothing = np.full((30, 30), np.nan)
    assert len(report.save_inspection(tmp_path, nothing, none, name="n")) == 3
    report.save_soft_prediction(tmp_path, nothing, nothing, name="n")


def test_comparison_outlines_each_side_with_its_own_labels(tmp_path):
    image, labels = discs((64, 64))
    path = report.save_comparison(
        tmp_path / "c.png",
        image,
        labels,
        np.zeros_like(labels),
        left_title="truth",
        right_title="ours",
    )
    whole = is_coloured(read(path))
    middle = whole.shape[1] // 2
    assert whole[:, :middle].any()
    assert not whole[:, middle:].any()


def test_montage_lays_out_rows_and_columns(tmp_path):
    fields = [(*discs((40, 40), ((20, 20, 8),)), str(i)) for i in range(3)]
    fields.append((*discs((30, 90), ((15, 40, 8),)), "wide"))
    path = report.save_montage(tmp_path / "m.png", fields, columns=2)
    picture = read(path)
    assert 1500 < picture.shape[1] <= 1640
    ring = is_coloured(picture)
    half = picture.shape[1] // 2
    below = picture.shape[0] // 2
    quarters = ring[:below, :half], ring[:below, half:], ring[below:, :half]
    assert all(q.any() for q in (*quarters, ring[below:, half:]))
    with pytest.raises(ValueError, match="at least one"):
        report.save_montage(tmp_path / "m.png", [])


def history(n=12):
    epochs = np.arange(1, n + 1)
    return pd.DataFrame(
        {
            "epoch": epochs,
            "loss": 1 / epochs,
            "val_loss": 1 / epochs + 0.01 * epochs,
            "accuracy": 1 - 0.5 / epochs,
            "val_accuracy": 0.9 - 0.5 / epochs,
            "learning_rate": 1e-4,
        }
    )


def test_history_is_two_plots(tmp_path):
    paths = report.save_history(tmp_path, history())
    assert [p.name for p in paths] == ["loss.png", "accuracy.png"]
    for path in paths:
        assert read(path).shape == (760, 1200, 3)
    assert paths[0].read_bytes() != paths[1].read_bytes()


def test_history_draws_each_curve_in_its_colour(tmp_path):
    def has(picture, colour):
        rgb = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
        return bool((picture == rgb).all(axis=2).any())

    both = read(report.save_history(tmp_path, history())[0])
    one = read(report.save_history(tmp_path, history()[["epoch", "loss"]])[0])
    assert has(both, plots._TRAINING)
    assert has(both, plots._VALIDATION)
    assert has(one, plots._TRAINING)
    assert not has(one, plots._VALIDATION)


def test_history_of_one_epoch_with_gaps_or_only_loss(tmp_path):
    assert len(report.save_history(tmp_path, history(1))) == 2
    broken = history()
    broken.loc[3:6, "val_loss"] = np.nan
    broken.loc[7, "loss"] = np.inf
    broken["val_accuracy"] = np.nan
    assert len(report.save_history(tmp_path, broken)) == 2
    (only,) = report.save_history(tmp_path / "b", {"loss": [0.5, 0.2]})
    assert only.name == "loss.png"
    assert len(report.save_history(tmp_path, history(0))) == 2
    with pytest.raises(ValueError, match="at least one of loss"):
        report.save_history(tmp_path, {"epoch": [1]})


def test_best_epoch_is_the_first_lowest_loss_or_highest_accuracy():
    values = np.array([np.nan, 0.5, 0.2, 0.9, 0.2, np.inf])
    assert plots.best_epoch(values, is_loss=True) == 2
    assert plots.best_epoch(values, is_loss=False) == 3
    assert plots.best_epoch(np.array([np.nan]), is_loss=True) is None


def test_count_scatter_says_n_mae_and_bias():
    ours, true = np.array([9.0, 5, 7]), np.array([10.0, 5, 10])
    words = plots._errors_words(ours, true, n_left_out=2)
    assert words.splitlines() == [
        "n = 3 images",
        "MAE 1.33",
        "bias −16.0 %",
        "2 without a count left out",
    ]


def test_count_scatter_leaves_out_images_without_a_count(tmp_path):
    counts = pd.Series([3, None, 5, 8], dtype="Int64")
    path = report.save_count_scatter(tmp_path / "s.png", counts, [3, 4, 6, 8])
    assert read(path).shape == (1100, 1100, 3)
    whole = report.save_count_scatter(tmp_path / "t.png", [3, 5, 8], [3, 6, 8])
    assert path.read_bytes() != whole.read_bytes()  # one is named as left out
    report.save_count_scatter(tmp_path / "none.png", [], [])
    report.save_count_scatter(tmp_path / "zero.png", [0], [0])
    with pytest.raises(ValueError, match="2 predicted counts but 1 true"):
        report.save_count_scatter(tmp_path / "x.png", [1, 2], [1])


def test_what_does_not_fit_is_refused(tmp_path):
    image, labels = discs()
    with pytest.raises(ValueError, match=r"mask has shape \(3, 3\), its image"):
        report.save_inspection(tmp_path, image, np.zeros((3, 3)), name="a")
    with pytest.raises(ValueError, match="expected one image"):
        report.save_inspection(tmp_path, np.zeros((2, 8, 8)), name="a")
    with pytest.raises(ValueError, match="label_image has shape"):
        report.save_prediction(
            tmp_path / "p.png", image, None, labels[1:], count=0, title=""
        )


def test_same_input_same_bytes_in_any_thread(tmp_path):
    image, labels = discs()

    def draw(i):
        folder = tmp_path / str(i)
        paths = [
            report.save_prediction(
                folder / "p.png", image, None, labels, count=2, title="a · b · 3"
            ),
            report.save_count_scatter(folder / "s.png", [1, 2, 9], [1, 3, 8]),
            *report.save_history(folder, history(3)),
            *report.save_inspection(folder, image, labels, name="i"),
        ]
        return [path.read_bytes() for path in paths]

    first = draw("first")
    with ThreadPoolExecutor(4) as pool:
        assert all(result == first for result in pool.map(draw, range(4)))


def test_files_hold_pixels_only(tmp_path):
    """No date, no version: chunks other than these would differ between hosts."""
    image, labels = discs()
    path = report.save_prediction(
        tmp_path / "p.png", image, None, labels, count=2, title=""
    )
    data, kinds, at = path.read_bytes(), set(), 8
    while at < len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        kinds.add(data[at + 4 : at + 8].decode())
        at += 12 + size
    assert kinds == {"IHDR", "IDAT", "IEND"}


def test_failed_writing_leaves_nothing_behind(tmp_path):
    image, labels = discs()
    (tmp_path / "p.png").mkdir()  # a folder is in the way of the rename
    with pytest.raises(OSError, match=r"p\.png"):
        report.save_prediction(
            tmp_path / "p.png", image, None, labels, count=2, title=""
        )
    assert [p.name for p in tmp_path.iterdir()] == ["p.png"]


def test_matplotlib_is_loaded_late_and_pyplot_never(tmp_path):
    program = f"""
import sys
import nucleiseg.report as report
assert "matplotlib" not in sys.modules
report.save_history({str(tmp_path)!r}, {{"loss": [1, 0.5], "val_loss": [1, 0.7]}})
report.save_count_scatter({str(tmp_path / "s.png")!r}, [1, 2], [1, 3])
assert "matplotlib" in sys.modules
assert "matplotlib.pyplot" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
