"""Which values labels hold: masks and instance labels are told apart by them."""

import numpy as np
import pytest

from nucleiseg.dataset.label_values import LabelValues, find_label_values
from nucleiseg.errors import ArchiveError


@pytest.mark.parametrize(
    ("labels", "values", "may_be_mask"),
    [
        ([0, 0, 0], (0, 0), True),
        ([0, 1, 1], (1, 1), True),
        ([0, 255, 0], (255, 255), True),
        ([255, 255, 255], (255, 255), True),
        ([0, 1, 255], (1, 255), False),
        ([0, 7, 7], (7, 7), False),
        ([3, 0, 9], (3, 9), False),
    ],
)
@pytest.mark.parametrize("dtype", ["uint8", "int64", "float32"])
def test_values_above_0(labels, values, may_be_mask, dtype):
    parts = np.array(labels, dtype)
    for cut in ([parts], parts[:, None]):
        found = find_label_values(cut, name="a")
        assert found == LabelValues(*values)
        assert found.may_be_mask == may_be_mask


def test_bool_is_a_mask():
    found = find_label_values([np.array([[False, True]])], name="a")
    assert found == LabelValues(1, 1)
    assert found.may_be_mask


UNFIT = [
    (np.array([0, -2, 5], "int16"), "int16 from -2 to 5 .*; set negative values"),
    (np.array([0, np.nan, 1]), "float64 from 0 to 1 .*; set NaN"),
    (np.array([0, np.inf, 1], "float32"), "from 0 to inf .*; set NaN and infinite"),
    (np.array([0, 0.25, 1]), r"from 0 to 1 .*; make masks of fractions \(y > 0\.5\)"),
    (np.array([0, 1.5, -3]), r"from -3 to 1\.5 .*; set negative .* and make masks"),
    (np.array([0, 2**63, 1], "uint64"), "to 9.22337e.18 .*; number them from 1"),
]


@pytest.mark.parametrize(("labels", "words"), UNFIT)
def test_what_are_no_labels_is_refused(labels, words):
    for parts in ([labels], labels[:, None], labels[::-1, None]):
        with pytest.raises(ArchiveError, match=words) as caught:
            find_label_values(parts, name="a.npz:y: image 3")
        message = str(caught.value)
        assert message.startswith("a.npz:y: image 3: ")
        assert "expected whole numbers" in message
        assert "\n" not in message


def test_whole_numbers_may_be_floats():
    assert find_label_values([np.array([0.0, 2.0, -0.0])], name="a").largest == 2
