"""Whole fields, one or a stack: image and labels."""

import numpy as np
from numpy.typing import NDArray

from nucleiseg.synthetic.nuclei import draw_nuclei
from nucleiseg.synthetic.optics import add_debris, expose, image_light
from nucleiseg.synthetic.settings import DEFAULT_SETTINGS, FieldSettings, draw_around


def draw_field(
    shape: tuple[int, int],
    rng: np.random.Generator,
    settings: FieldSettings = DEFAULT_SETTINGS,
) -> tuple[NDArray[np.uint8], NDArray[np.uint16]]:
    """Draw one field of nuclei and the labels of what is drawn.

    Parameters
    ----------
    shape : (int, int)
        Height and width in pixels, both at least 1.
    rng : numpy.random.Generator
        The only source of randomness: the same state gives the same field.
    settings : FieldSettings
        What the field looks like.

    Returns
    -------
    image : (H, W) uint8 ndarray
        Grey levels, 0–255; dim fields use only a small part of them.
    labels : (H, W) uint16 ndarray
        0 is background; 1…n are nuclei, each one 8-connected region of at least
        `MIN_AREA_PX` pixels.

    Raises
    ------
    ValueError
        If the shape is empty or would hold more nuclei than uint16 can number.
    """
    if min(shape) < 1:
        raise ValueError(f"shape is {shape}, expected two sizes of 1 or more")
    diameter_px = draw_around(settings.diameter_px, settings.diameter_field_spread, rng)
    # Smaller nuclei vanish in the blur, larger ones fill a crop of this scale.
    lowest_px = min(6.5, settings.diameter_px)
    diameter_px = float(np.clip(diameter_px, lowest_px, 3 * settings.diameter_px))
    signal, labels = draw_nuclei(shape, diameter_px, rng, settings)
    brightness_grey = draw_around(
        settings.brightness_grey, settings.brightness_field_spread, rng
    )
    add_debris(signal, rng, settings.debris)
    light = image_light(brightness_grey * signal, diameter_px, rng, settings)
    return expose(light, rng, settings), labels


def draw_fields(
    n_images: int,
    shape: tuple[int, int] = (128, 128),
    *,
    seed: int,
    settings: FieldSettings = DEFAULT_SETTINGS,
) -> tuple[NDArray[np.uint8], NDArray[np.uint16]]:
    """Draw a stack of fields; image `i` depends on `seed` and `i`, not on `n_images`.

    Returns
    -------
    images : (N, H, W) uint8 ndarray
        Grey levels, 0–255.
    labels : (N, H, W) uint16 ndarray
        Instance labels of each image; 0 is background.
    """
    return draw_stack(range(n_images), shape, seed, settings)


def draw_stack(
    indices: range, shape: tuple[int, int], seed: int, settings: FieldSettings
) -> tuple[NDArray[np.uint8], NDArray[np.uint16]]:
    """Draw the fields of these indices, each from a generator of its own."""
    images = np.zeros((len(indices), *shape), np.uint8)
    labels = np.zeros((len(indices), *shape), np.uint16)
    for row, index in enumerate(indices):
        rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(index,)))
        images[row], labels[row] = draw_field(shape, rng, settings)
    return images, labels
