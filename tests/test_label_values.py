"""Which values labels hold: masks and instance labels are told apart by them."""

import numpy as np
import pytest

from nucleiseg.dataset.label_values import LabelValues, find_label_values


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
    for found in (find_label_values([parts]), find_label_values(parts[:, None])):
        assert found == LabelValues(*values)
        assert found.may_be_mask == may_be_mask


def test_bool_is_a_mask():
    found = find_label_values([np.array([[False, True]])])
    assert found == LabelValues(1, 1)
    assert found.may_be_mask
