"""What a dataset is, and whether its shape and dtype are those of images or labels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

IMAGE_DTYPES = ("uint8", "uint16", "int16", "float16", "float32", "float64")

# Shorter sides belong to coordinate tables and feature vectors, not to microscopy.
MIN_IMAGE_SIDE_PX = 8

# The dtype of a dataset whose header could not be read.
UNKNOWN_DTYPE = "unknown"


@dataclass(frozen=True)
class DatasetInfo:
    """One dataset of an archive, as its header describes it."""

    key: str
    """npz member name without `.npy` (`X`), or HDF5 path (`/val/images`)."""

    shape: tuple[int, ...]
    """As stored; empty where the header could not be read."""

    dtype: str
    """NumPy dtype that `Reader.read` returns, in native byte order (`uint16`)."""

    storage: str
    """In words: `deflated`, `stored, big-endian`, `chunked 1x256x256, gzip`."""

    problem: str | None
    """Why it cannot be used as greyscale images, and the remedy; None if it can."""

    unreadable: str | None = None
    """Why its values cannot be read at all, whatever they mean; None if they can."""

    chunk_images: int = 1
    """Images of a stack that one HDF5 chunk spans; 1 for every other storage."""

    access_problem: str | None = None
    """What reading costs where chunks fit it badly, and the remedy; it can be read."""

    alias_of: str | None = None
    """Key of the same dataset's first name, where this is a further one: HDF5 gives a
    dataset several by hard links."""

    is_fortran: bool = False
    """Whether columns lie in the file one behind the other, not rows."""

    @property
    def is_stack(self) -> bool:
        """Whether it holds images along a first axis; else it is one image."""
        return len(self._grey_shape) == 3

    @property
    def n_images(self) -> int:
        """Number of images, 0 or more; 1 for a 2-D dataset."""
        return self._grey_shape[0] if self.is_stack else 1

    @property
    def image_shape(self) -> tuple[int, int]:
        """Height and width of each image, in pixels."""
        height, width = self._grey_shape[-2:]
        return height, width

    @property
    def label_problem(self) -> str | None:
        """Why it cannot be used as label images or masks, or None if it can."""
        if self.unreadable:
            return self.unreadable
        return find_label_problem(self.shape, np.dtype(self.dtype))

    @property
    def may_hide_images(self) -> bool:
        """Whether it might be the images, were it only readable."""
        if self.unreadable is None or self.dtype == UNKNOWN_DTYPE:
            return self.unreadable is not None
        is_numeric = self.dtype.startswith(("bool", "int", "uint", "float"))
        return is_numeric and self.has_image_sides

    @property
    def looks_like_images(self) -> bool:
        """Whether somebody may have meant it as images, of colour or any dtype too."""
        if self.dtype == UNKNOWN_DTYPE:
            return True
        is_numeric = self.dtype.startswith(("bool", "int", "uint", "float", "complex"))
        return is_numeric and sorted((0, 0, *self.shape))[-2] >= MIN_IMAGE_SIDE_PX

    @property
    def has_image_sides(self) -> bool:
        """Whether each image is large enough not to be a table of coordinates."""
        grey = drop_channel_axis(self.shape)
        return len(grey) in (2, 3) and min(grey[-2:]) >= MIN_IMAGE_SIDE_PX

    @property
    def _grey_shape(self) -> tuple[int, ...]:
        grey = drop_channel_axis(self.shape)
        if len(grey) not in (2, 3):
            raise ValueError(
                f"{self.key} of shape {self.shape} is neither an image nor a stack"
            )
        return grey


def describe_dataset(
    key: str,
    shape: tuple[int, ...],
    dtype: np.dtype[np.generic],
    *,
    storage: str,
    unreadable: str | None,
    chunk_images: int = 1,
    access_problem: str | None = None,
) -> DatasetInfo:
    """Describe a dataset whose header was read; see `DatasetInfo` for the fields."""
    problem = unreadable or find_image_problem(shape, dtype)
    if dtype.hasobject or dtype.names is not None or dtype.subdtype is not None:
        unreadable = problem
    if not dtype.isnative:
        storage += ", big-endian"
    return DatasetInfo(
        key,
        shape,
        str(dtype.newbyteorder("=")),
        storage,
        problem,
        unreadable,
        chunk_images=chunk_images,
        access_problem=access_problem,
    )


def describe_unreadable(key: str, *, storage: str, unreadable: str) -> DatasetInfo:
    """Describe a dataset whose header could not be read."""
    return DatasetInfo(key, (), UNKNOWN_DTYPE, storage, unreadable, unreadable)


def drop_channel_axis(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Shape without a trailing channel axis of 1: (H, W, 1), (N, H, W, 1)."""
    if len(shape) in (3, 4) and shape[-1] == 1:
        return shape[:-1]
    return shape


def is_stack_shape(shape: tuple[int, ...]) -> bool:
    """Whether a shape is that of images along a first axis."""
    return len(drop_channel_axis(shape)) == 3


def find_image_problem(
    shape: tuple[int, ...], dtype: np.dtype[np.generic]
) -> str | None:
    """Say why an array is no greyscale image or stack of them.

    Parameters
    ----------
    shape : tuple of int
        As stored, a channel axis of 1 included.
    dtype : dtype
        In any byte order.

    Returns
    -------
    str or None
        One clause with the remedy, or None for greyscale images.
    """
    return _find_dtype_problem(dtype) or _find_shape_problem(
        shape,
        colour_remedy='convert it to grey, e.g. X.mean(axis=-1).astype("float32")',
    )


def find_label_problem(
    shape: tuple[int, ...], dtype: np.dtype[np.generic]
) -> str | None:
    """Say why an array is no label image, mask or stack of them; None if it is."""
    if dtype.kind not in "biuf":
        return _find_dtype_problem(dtype)
    return _find_shape_problem(
        shape, colour_remedy="save one integer label a pixel, not colours"
    )


def _find_dtype_problem(dtype: np.dtype[np.generic]) -> str | None:
    if dtype.newbyteorder("=").name in IMAGE_DTYPES and dtype.names is None:
        return None
    if dtype.hasobject:
        return (
            "holds Python objects or text of any length, which are never unpickled: "
            'save numbers instead, e.g. np.stack(list(X)).astype("float32")'
        )
    if dtype.names is not None:
        fields = ", ".join(dtype.names)
        return f"is a table with the fields {fields}: save one field by itself"
    if dtype.kind in "USV":
        return f"holds text or bytes ({dtype}), not numbers: save the pixels themselves"
    remedies = {
        "b": '.astype("uint8")',
        "i": '.astype("uint16") or .astype("float32")',
        "u": '.astype("uint16") or .astype("float32")',
        "f": '.astype("float32")',
        "c": 'np.abs(X).astype("float32")',
    }
    remedy = remedies.get(dtype.kind, '.astype("float32")')
    accepted = ", ".join(IMAGE_DTYPES)
    return f"has dtype {dtype.name}, and images are {accepted}: convert with {remedy}"


def _find_shape_problem(shape: tuple[int, ...], *, colour_remedy: str) -> str | None:
    grey = drop_channel_axis(shape)
    words = f"has shape {shape}"
    # Three axes that end in 3 or 4 may also be a stack of very small images:
    # colour only where the two others are too long for that reading.
    if grey[-1:] in ((3,), (4,)) and (
        len(grey) == 4 or (len(grey) == 3 and min(grey[:-1]) > 4)
    ):
        return f"{words}, which is colour: {colour_remedy}"
    if len(grey) == 4 and grey[1] == 1:
        return f"{words}, with its channel axis second: drop it with X[:, 0]"
    if len(grey) not in (2, 3):
        return (
            f"{words}, and images are (H, W) or (N, H, W): reshape it, or save one "
            "channel, plane or time point of each image"
        )
    if 0 in grey[-2:]:
        return f"{words}, images without pixels: save images of at least 1x1 px"
    return None
