"""What the network is to learn, from labels."""

from typing import Any

import numpy as np
from numpy.typing import NDArray


def targets(labels: NDArray[Any]) -> NDArray[np.float32]:
    """Make the training targets of a crop, or of a stack of them.

    Parameters
    ----------
    labels : (..., H, W) ndarray
        Masks of 0/1 or instance labels, 0 = background, after augmentation.

    Returns
    -------
    (..., H, W, 1) float32 ndarray
        A channel for each output of the network: 1 where a nucleus is.
    """
    return (labels > 0).astype(np.float32)[..., np.newaxis]
