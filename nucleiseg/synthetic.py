"""Draw synthetic fluorescence fields whose instance labels are exact.

A field is painted as a microscope sees it: nuclei with chromatin texture, haze
around them, uneven background, blur, then photon and read noise in 8 bits. The
defaults follow DAPI and Hoechst images of the 2018 Data Science Bowl, in which
both the scale and the brightness differ much more between fields than within one.
"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, BinaryIO

import cv2
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

MIN_AREA_PX = 10
"""Smaller pieces, left over at the border or under a neighbour, are not drawn."""

# Test images follow the training images of a seed at a distance that no training
# set reaches, so the test set does not depend on how many there are to train on.
_FIRST_TEST_IMAGE = 1 << 30
_MAX_LABEL = int(np.iinfo(np.uint16).max)
_MAX_OVERLAP = 0.12
_N_TRIES = 12


@dataclass(frozen=True)
class FieldSettings:
    """What fields look like; greys are levels of the 8-bit image, 0–255.

    A `…_spread` is the standard deviation of the logarithm, so 0.2 is about 20 %.
    """

    diameter_px: float = 22.0
    """Median over fields of the typical nucleus diameter."""
    diameter_field_spread: float = 0.44
    """How much the typical diameter differs between fields (magnification)."""
    diameter_spread: float = 0.17
    """How much diameters differ within a field."""
    elongation: float = 0.26
    """Median logarithm of the ratio of a nucleus's long to its short axis."""
    roughness: float = 0.035
    """Amplitude of the outline's waves, relative to the radius; 0: ellipses."""
    dented_share: float = 0.15
    """Share of nuclei with one deeper dent (kidney shapes)."""
    density: float = 0.16
    """Mean share of a field's area that nuclei are meant to cover."""
    cluster_share: float = 0.14
    """Share of nuclei placed so that they touch one that is there already."""
    empty_share: float = 0.02
    """Share of fields without any nucleus."""
    brightness_grey: float = 48.0
    """Median over fields of the brightness of nuclei above the background."""
    brightness_field_spread: float = 0.6
    """How much brightness differs between fields (exposure, staining)."""
    brightness_spread: float = 0.2
    """How much brightness differs within a field."""
    condensed_share: float = 0.03
    """Share of small, very bright nuclei (mitotic or dying)."""
    texture: float = 0.18
    """Median strength of the chromatin texture, relative to the brightness."""
    nucleoli_share: float = 0.5
    """Share of nuclei with one to three darker nucleoli."""
    blur_px: float = 1.35
    """Median over fields of the blur's standard deviation."""
    blur_spread: float = 0.4
    """How much blur differs between fields (focus)."""
    haze: float = 0.32
    """Mean brightness of the haze around nuclei, relative to theirs."""
    background_grey: float = 5.0
    """Median over fields of the background level."""
    background_spread: float = 0.65
    """How much the background level differs between fields."""
    gradient: float = 0.15
    """Mean slope of the illumination from one edge to the other, relative."""
    debris: float = 1.5
    """Mean number of faint unlabelled specks per 128 × 128 px."""
    photon_gain_grey: float = 0.035
    """Grey levels a photon adds, median over fields; 0: no shot noise."""
    read_noise_grey: float = 0.3
    """Standard deviation of the camera's noise."""

    def __post_init__(self) -> None:
        """Refuse values that no field can have."""
        for field in fields(self):
            value = getattr(self, field.name)
            highest = 1.0 if field.name.endswith("_share") else np.inf
            if not 0 <= value <= highest or not np.isfinite(value):
                raise ValueError(
                    f"{field.name} is {value}, expected a number from 0 to {highest}"
                )
        if self.diameter_px < 4:
            raise ValueError(f"diameter_px is {self.diameter_px}, expected 4 or more")


@dataclass(frozen=True)
class SampleFiles:
    """The files that `write_sample` wrote."""

    train: Path
    """`X` (N, H, W) float32, 0–255, and `y` (N, H, W) float32, 0 or 1."""
    train_labels: Path
    """`y` (N, H, W) uint16, instance labels of the training images."""
    test_images: Path
    """`X` (M, H, W) float32, 0–255."""
    test_labels: Path
    """`y` (M, H, W) uint16, instance labels of the test images."""
    test_counts: Path
    """CSV, columns `index` and `count`."""


def draw_field(
    shape: tuple[int, int],
    rng: np.random.Generator,
    settings: FieldSettings = FieldSettings(),
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
    diameter_px = _draw_around(
        settings.diameter_px, settings.diameter_field_spread, rng
    )
    # Smaller nuclei vanish in the blur, larger ones fill a crop of this scale.
    lowest_px = min(6.5, settings.diameter_px)
    diameter_px = float(np.clip(diameter_px, lowest_px, 3 * settings.diameter_px))
    signal, labels = _draw_nuclei(shape, diameter_px, rng, settings)
    brightness_grey = _draw_around(
        settings.brightness_grey, settings.brightness_field_spread, rng
    )
    _add_debris(signal, rng, settings.debris)
    light = _image_light(brightness_grey * signal, diameter_px, rng, settings)
    return _expose(light, rng, settings), labels


def draw_fields(
    n_images: int,
    shape: tuple[int, int] = (128, 128),
    *,
    seed: int,
    settings: FieldSettings = FieldSettings(),
) -> tuple[NDArray[np.uint8], NDArray[np.uint16]]:
    """Draw a stack of fields; image `i` depends on `seed` and `i`, not on `n_images`.

    Returns
    -------
    images : (N, H, W) uint8 ndarray
        Grey levels, 0–255.
    labels : (N, H, W) uint16 ndarray
        Instance labels of each image; 0 is background.
    """
    return _draw_stack(range(n_images), shape, seed, settings)


def write_sample(
    folder: Path,
    *,
    n_train: int = 240,
    n_test: int = 60,
    shape: tuple[int, int] = (128, 128),
    seed: int = 0,
    settings: FieldSettings = FieldSettings(),
) -> SampleFiles:
    """Write a training and a test archive with truth, in the notebook's format.

    The training images are those of `draw_fields`; no test image is among them.
    Each file is written beside its final name and renamed, so one that exists is
    complete; existing files are replaced.

    Returns
    -------
    SampleFiles
        Where each file is and what it holds.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files = SampleFiles(
        train=folder / "train.npz",
        train_labels=folder / "train_labels.npz",
        test_images=folder / "test_images.npz",
        test_labels=folder / "test_labels.npz",
        test_counts=folder / "test_counts.csv",
    )
    images, labels = _draw_stack(range(n_train), shape, seed, settings)
    mask = (labels > 0).astype(np.float32)
    _write_npz(files.train, X=images.astype(np.float32), y=mask)
    _write_npz(files.train_labels, y=labels)

    test_range = range(_FIRST_TEST_IMAGE, _FIRST_TEST_IMAGE + n_test)
    images, labels = _draw_stack(test_range, shape, seed, settings)
    _write_npz(files.test_images, X=images.astype(np.float32))
    _write_npz(files.test_labels, y=labels)
    rows = [f"{index},{image.max()}" for index, image in enumerate(labels)]
    table = "\n".join(["index,count", *rows, ""]).encode()
    _write_beside(files.test_counts, lambda file: file.write(table))
    return files


def _draw_stack(
    indices: range, shape: tuple[int, int], seed: int, settings: FieldSettings
) -> tuple[NDArray[np.uint8], NDArray[np.uint16]]:
    images = np.zeros((len(indices), *shape), np.uint8)
    labels = np.zeros((len(indices), *shape), np.uint16)
    for row, index in enumerate(indices):
        rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(index,)))
        images[row], labels[row] = draw_field(shape, rng, settings)
    return images, labels


def _draw_around(median: float, spread: float, rng: np.random.Generator) -> float:
    return median * float(np.exp(spread * rng.standard_normal()))


# ------------------------------------------------------------------ nuclei


def _draw_nuclei(
    shape: tuple[int, int],
    diameter_px: float,
    rng: np.random.Generator,
    settings: FieldSettings,
) -> tuple[NDArray[np.float32], NDArray[np.uint16]]:
    """Paint nuclei of brightness around 1 on 0, and their labels."""
    signal = np.zeros(shape, np.float32)
    labels = np.zeros(shape, np.uint16)
    n_nuclei = _draw_n_nuclei(shape, diameter_px, rng, settings)
    texture = _draw_texture(shape, diameter_px, rng, settings)
    dome = rng.uniform(0.1, 0.6)
    centres: list[NDArray[np.float64]] = []
    for _ in range(n_nuclei):
        is_condensed = rng.random() < settings.condensed_share
        size = 0.65 if is_condensed else 1.0
        mask = _draw_outline(size * diameter_px, rng, settings)
        corner = _find_place(mask, labels, centres, rng, settings.cluster_share)
        if corner is None:
            continue
        field, patch = _overlap_windows(corner, mask.shape, shape)
        mask[patch][labels[field] > 0] = 0
        visible = _largest_piece(mask[patch])
        if np.count_nonzero(visible) < MIN_AREA_PX:
            continue
        glow = rng.uniform(1.5, 3.0) if is_condensed else 1.0
        shade = glow * _draw_shade(mask, dome, rng, settings)[patch] * texture[field]
        signal[field][visible] = shade[visible]
        centres.append(np.add(corner, np.divide(mask.shape, 2)))
        labels[field][visible] = len(centres)
    return signal, labels


def _draw_n_nuclei(
    shape: tuple[int, int],
    diameter_px: float,
    rng: np.random.Generator,
    settings: FieldSettings,
) -> int:
    if rng.random() < settings.empty_share or settings.density == 0:
        return 0
    # Nuclei may lie half outside, so they spread over a little more than the field.
    area_px = float(np.prod([side + 0.8 * diameter_px for side in shape]))
    # Fields of small nuclei are less covered, as at low magnification they are.
    zoom = (diameter_px / settings.diameter_px) ** 1.2
    covered = min(zoom * rng.gamma(1.5, settings.density / 1.5), 0.75)
    n_nuclei = max(1, int(rng.poisson(covered * area_px / (0.785 * diameter_px**2))))
    if n_nuclei > _MAX_LABEL:
        raise ValueError(
            f"a field of {shape} px would hold {n_nuclei} nuclei, more than the "
            f"{_MAX_LABEL} of uint16 labels: draw a smaller field"
        )
    return n_nuclei


def _draw_outline(
    diameter_px: float, rng: np.random.Generator, settings: FieldSettings
) -> NDArray[np.uint8]:
    """Draw a wavy ellipse, perhaps dented: a square mask of 0 and 1 around it."""
    radius = 0.5 * _draw_around(diameter_px, settings.diameter_spread, rng)
    stretch = np.exp(0.5 * _draw_around(settings.elongation, 0.6, rng))
    stretch = min(float(stretch), 1.8)
    half = int(np.ceil(1.2 * radius * stretch)) + 3
    y, x = np.mgrid[-half : half + 1, -half : half + 1] + rng.uniform(-0.5, 0.5)
    turn = rng.uniform(0, np.pi)
    along = (x * np.cos(turn) + y * np.sin(turn)) / (radius * stretch)
    across = (y * np.cos(turn) - x * np.sin(turn)) / (radius / stretch)
    angle = np.arctan2(across, along)
    edge = np.ones_like(angle)
    for order in (2, 3, 4, 5):
        amplitude = settings.roughness * rng.standard_normal() * (2 / order) ** 1.3
        edge += amplitude * np.cos(order * angle + rng.uniform(0, 2 * np.pi))
    if rng.random() < settings.dented_share:
        away = 1 - np.cos(angle - rng.uniform(0, 2 * np.pi))
        edge -= rng.uniform(0.15, 0.45) * np.exp(-away / 0.15)
    is_inside = np.hypot(along, across) < np.clip(edge, 0.4, 1.2)
    return np.asarray(is_inside, np.uint8)


def _find_place(
    mask: NDArray[np.uint8],
    labels: NDArray[np.uint16],
    centres: list[NDArray[np.float64]],
    rng: np.random.Generator,
    cluster_share: float,
) -> tuple[int, int] | None:
    """Find the corner of a patch where its nucleus lies alone, or just touches."""
    reach = cv2.dilate(mask, np.ones((3, 3), np.uint8))
    half = np.divide(mask.shape, 2)
    is_clustered = bool(centres) and rng.random() < cluster_share
    for _ in range(_N_TRIES):
        if is_clustered:
            start = centres[rng.integers(len(centres))]
            turn = rng.uniform(0, 2 * np.pi)
            step = np.array([np.sin(turn), np.cos(turn)])
        else:
            margin = 0.6 * half
            start = rng.uniform(-margin, labels.shape + margin)
            step = np.zeros(2)
        # From its neighbour's centre a nucleus moves outwards until they touch.
        for distance in range(int(4 * half[0]) if is_clustered else 1):
            y, x = np.rint(start + distance * step - half).astype(int).tolist()
            n_visible, n_taken, n_near = _count_conflicts((y, x), mask, reach, labels)
            if n_visible - n_taken < MIN_AREA_PX or n_taken > _MAX_OVERLAP * n_visible:
                continue
            if is_clustered == (n_near > 0):
                return y, x
            break
    return None


def _count_conflicts(
    corner: tuple[int, int],
    mask: NDArray[np.uint8],
    reach: NDArray[np.uint8],
    labels: NDArray[np.uint16],
) -> tuple[int, int, int]:
    """Count the pixels inside the field, those taken, and those taken or next to it."""
    field, patch = _overlap_windows(corner, mask.shape, labels.shape)
    taken = (labels[field] > 0).view(np.uint8)
    return (
        int(np.count_nonzero(mask[patch])),
        int(np.count_nonzero(mask[patch] & taken)),
        int(np.count_nonzero(reach[patch] & taken)),
    )


def _overlap_windows(
    corner: tuple[int, int], patch_shape: tuple[int, ...], shape: tuple[int, ...]
) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """Cut a patch at the field's border: its window of the field, and of itself."""
    start = [min(max(at, 0), side) for at, side in zip(corner, shape, strict=True)]
    stop = [
        min(max(at + size, low), side)
        for at, size, low, side in zip(corner, patch_shape, start, shape, strict=True)
    ]
    field = slice(start[0], stop[0]), slice(start[1], stop[1])
    y, x = corner
    patch = (
        slice(start[0] - y, stop[0] - y),
        slice(start[1] - x, stop[1] - x),
    )
    return field, patch


def _largest_piece(mask: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Keep the largest 8-connected piece of what neighbour and border left over."""
    _, pieces, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
    largest = 1 + int(np.argmax(stats[1:, cv2.CC_STAT_AREA]))
    return np.asarray(pieces == largest)


def _draw_shade(
    mask: NDArray[np.uint8],
    dome: float,
    rng: np.random.Generator,
    settings: FieldSettings,
) -> NDArray[np.float32]:
    """Shade a nucleus: thinner and so dimmer to its edge, darker in its nucleoli."""
    # Measured to the pressed outline, which leaves a faint valley between neighbours.
    depth_px = cv2.distanceTransform(mask, cv2.DIST_L2, 3)
    thin = 1 - depth_px / max(float(depth_px.max()), 1.0)
    shade = _draw_around(1.0, settings.brightness_spread, rng) * (1 - dome * thin**2)
    if rng.random() < settings.nucleoli_share:
        ys, xs = np.nonzero(depth_px > 0.45 * depth_px.max())
        y, x = np.ogrid[: mask.shape[0], : mask.shape[1]]
        for _ in range(rng.integers(1, 4)):
            at = rng.integers(len(ys))
            width_px = rng.uniform(0.1, 0.2) * float(depth_px.max()) + 0.6
            apart = ((y - ys[at]) ** 2 + (x - xs[at]) ** 2) / (2 * width_px**2)
            shade *= 1 - rng.uniform(0.1, 0.4) * np.exp(-apart)
    return np.asarray(shade, np.float32)


def _draw_texture(
    shape: tuple[int, int],
    diameter_px: float,
    rng: np.random.Generator,
    settings: FieldSettings,
) -> NDArray[np.float32]:
    """Draw chromatin as a factor around 1, fine grains on coarse patches."""
    strength = min(_draw_around(settings.texture, 0.6, rng), 0.6)
    waves = np.zeros(shape, np.float32)
    for scale, weight in ((0.05, 0.8), (0.14, 0.6)):
        grain_px = max(scale * diameter_px, 0.8)
        noise = rng.standard_normal(shape, np.float32)
        # Blurred white noise has deviation 1 / (2 √π σ): bring it back to 1.
        smooth = cv2.GaussianBlur(noise, (0, 0), grain_px)
        waves += weight * 2 * np.sqrt(np.pi) * grain_px * smooth
    return np.asarray(np.exp(strength * waves), np.float32)


# ------------------------------------------------------------------ microscope


def _add_debris(
    signal: NDArray[np.float32], rng: np.random.Generator, debris: float
) -> None:
    """Add faint specks that are no nuclei, in place."""
    height, width = signal.shape
    for _ in range(rng.poisson(debris * signal.size / 128**2)):
        y, x = int(rng.integers(height)), int(rng.integers(width))
        size_px = int(rng.integers(1, 4))
        window = signal[y : y + size_px, x : x + size_px]
        np.maximum(window, rng.uniform(0.02, 0.15), out=window)


def _image_light(
    light: NDArray[np.float32],
    diameter_px: float,
    rng: np.random.Generator,
    settings: FieldSettings,
) -> NDArray[np.float32]:
    """Blur the light of the nuclei, add haze and background, tilt the illumination."""
    height, width = light.shape
    # More blur than this and neighbours are one: nobody could have labelled them.
    blur_px = _draw_around(settings.blur_px, settings.blur_spread, rng)
    blur_px = min(blur_px, 0.12 * diameter_px)
    haze = settings.haze * rng.gamma(3.0, 1 / 3)
    # Haze is so smooth that a quarter of the resolution holds it, in a tenth of the
    # time.
    small = (-(-width // 4), -(-height // 4))
    veil = cv2.resize(light, small, interpolation=cv2.INTER_AREA)
    veil = cv2.GaussianBlur(veil, (0, 0), 0.4 * diameter_px / 4)
    # Cytoplasm holds some dye: the haze is mottled rather than even.
    mottle = cv2.GaussianBlur(rng.standard_normal(veil.shape, np.float32), (0, 0), 1.5)
    veil *= np.exp(1.5 * mottle)
    veil = cv2.resize(veil, (width, height), interpolation=cv2.INTER_LINEAR)
    if blur_px > 0:
        light = cv2.GaussianBlur(light, (0, 0), blur_px)
    background_grey = _draw_around(
        settings.background_grey, settings.background_spread, rng
    )
    slope = settings.gradient * rng.standard_normal(2) / 2
    y, x = np.ogrid[-0.5 : 0.5 : height * 1j, -0.5 : 0.5 : width * 1j]
    tilt = np.maximum(1 + slope[0] * y + slope[1] * x, 0.2)
    total = (background_grey + (1 - haze / 2) * light + haze * veil) * tilt
    return np.asarray(total, np.float32)


def _expose(
    light: NDArray[np.float32], rng: np.random.Generator, settings: FieldSettings
) -> NDArray[np.uint8]:
    """Turn light, in grey levels, into an 8-bit image with photon and read noise."""
    exposed: NDArray[np.float64] = light.astype(np.float64)
    gain_grey = _draw_around(settings.photon_gain_grey, 0.7, rng)
    if gain_grey > 0:
        exposed = gain_grey * rng.poisson(exposed / gain_grey).astype(np.float64)
    exposed += settings.read_noise_grey * rng.standard_normal(light.shape)
    return np.clip(np.rint(exposed), 0, 255).astype(np.uint8)


# ------------------------------------------------------------------ files


def _write_npz(path: Path, **arrays: NDArray[np.generic]) -> None:
    def write(file: BinaryIO) -> None:
        np.savez_compressed(file, allow_pickle=False, **arrays)

    _write_beside(path, write)


def _write_beside(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Write to a sibling, then rename it: who finds the file finds it complete."""
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with beside.open("wb") as file:
            write(file)
        os.replace(beside, path)
    except BaseException:
        with suppress(FileNotFoundError):
            beside.unlink()
        raise
