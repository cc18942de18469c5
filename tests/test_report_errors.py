"""Pictures of errors: what is where, in which colour, and for whose eyes."""

import itertools

import cv2
import numpy as np
import pytest

from nucleiseg import report
from nucleiseg.metrics import judge_nuclei
from nucleiseg.report import errors, page
from tests.test_report import read

# Matrices of Machado, Oliveira and Fernandes, IEEE TVCG 15 (2009), 1291,
# without one kind of cones, on linear RGB.
VISIONS = {
    "normal": np.eye(3),
    "protanopia": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deuteranopia": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "tritanopia": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ],
}


def as_seen(colour, vision):
    """CIELAB of a colour as somebody sees it."""
    linear = (np.array(colour) / 255) ** 2.2
    seen = np.clip(np.array(VISIONS[vision]) @ linear, 0, 1) ** (1 / 2.2)
    return cv2.cvtColor(np.float32([[seen]]), cv2.COLOR_RGB2LAB)[0, 0]


@pytest.mark.parametrize("vision", VISIONS)
def test_kinds_of_errors_differ_for_any_colour_vision(vision):
    seen = [as_seen(colour, vision) for colour in report.ERROR_COLOURS.values()]
    pairs = [np.linalg.norm(a - b) for a, b in itertools.combinations(seen, 2)]
    assert len(pairs) == 10
    assert min(pairs) > 35
    assert min(lab[0] for lab in seen) > 40  # bright enough on black


def test_and_colours_that_are_confused_would_show():
    for vision, is_told in (("normal", True), ("deuteranopia", False)):
        green, red = (as_seen(c, vision) for c in ((0, 140, 0), (170, 90, 0)))
        assert (np.linalg.norm(green - red) > 35) == is_told


def draw_one_of_each():
    """Truth and prediction with a hit, a miss, a false nucleus, a split and a merge."""
    truth, predicted = np.zeros((2, 100, 60), np.uint16)
    truth[4:16, 4:16] = predicted[4:16, 4:16] = 3  # hit
    truth[4:16, 40:52] = 5  # missed
    predicted[24:36, 40:52] = 4  # false
    truth[44:56, 4:28] = 9  # split
    predicted[44:56, 4:15], predicted[44:56, 17:28] = 6, 7
    truth[70:80, 4:15], truth[70:80, 17:28] = 11, 12  # merged
    predicted[70:80, 4:28] = 8
    return predicted, truth


def colours_in(picture, kind):
    """Whether there are pixels of about the colour of a kind of error."""
    off = np.abs(picture.astype(int) - report.ERROR_COLOURS[kind]).max(axis=2)
    return bool((off < 8).any())


def test_each_kind_of_error_has_its_colour_in_its_place():
    predicted, truth = draw_one_of_each()
    fates = judge_nuclei(predicted, truth)
    picture = errors.draw_errors(
        np.zeros((400, 240), np.uint8), predicted, truth, fates, scale=4
    )
    places = {
        "hit": (slice(0, 80), slice(0, 80)),
        "missed": (slice(0, 80), slice(140, 240)),
        "false": (slice(84, 160), slice(140, 240)),
        "split": (slice(164, 240), slice(0, 140)),
        "merged": (slice(264, 340), slice(0, 140)),
    }
    for place, window in places.items():
        found = [kind for kind in places if colours_in(picture[window], kind)]
        assert found == [place]
        picture[window] = 0
    assert not picture.any()


@pytest.mark.parametrize("shape", [(100, 60), (40, 600), (700, 1700)])
def test_errors_are_saved_for_images_of_any_shape(tmp_path, shape):
    predicted, truth = (
        np.pad(one[: shape[0]], [(0, max(0, shape[0] - 100)), (0, shape[1] - 60)])
        for one in draw_one_of_each()
    )
    image = 50 + 100 * (truth > 0)
    path = report.save_errors(
        tmp_path / "new" / "e.png", image, predicted, truth, title="a.h5:/x · 3"
    )
    picture = read(path)
    assert max(picture.shape) < 3000
    assert colours_in(picture, "hit")
    assert colours_in(picture, "missed")


def test_errors_of_nothing_and_without_an_image(tmp_path):
    empty = np.zeros((30, 40), np.int32)
    assert report.save_errors(tmp_path / "0.png", None, empty, empty, title="").exists()
    predicted, truth = (one.astype(np.uint64) for one in draw_one_of_each())
    report.save_errors(tmp_path / "1.png", None, predicted, truth, title="")
    assert colours_in(read(tmp_path / "1.png"), "split")
    with pytest.raises(ValueError, match="both must show the same field"):
        report.save_errors(tmp_path / "2.png", empty, predicted, truth, title="")


def test_legend_breaks_into_rows():
    entries = [(f"kind {k}", (200, 60, 0)) for k in range(5)]
    one = page.legend(entries, size_px=14, width=2000)
    several = page.legend(entries, size_px=14, width=150)
    assert (one.shape[1], several.shape[1]) == (2000, 150)
    assert several.shape[0] >= 3 * one.shape[0]
