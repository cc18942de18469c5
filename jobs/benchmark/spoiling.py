"""Real images spoilt in known ways, and images of nothing but noise."""

import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import h5py
import numpy as np
from numpy.typing import NDArray

from jobs.benchmark.archives import data_folder
from nucleiseg import synthetic

Image = NDArray[np.uint8]
Labels = NDArray[np.integer[Any]]
Rng = np.random.Generator

_N_DRAWN = 6
_DRAWN_SHAPE = (128, 160)
_BLANK_SHAPE = (256, 256)
# An enlarged image shows the middle of the field, in about as many pixels.
_ENLARGED_SIDE_PX = 512
_NOISE_FILTER = np.outer([1, -2, 1], [1, -2, 1]).astype(np.float32)


@dataclass(frozen=True)
class Field:
    """One image and its nuclei."""

    name: str
    image: Image
    labels: Labels


def read_fields(part: str, limit: int | None) -> tuple[str, list[Field]]:
    """Read the whole real images of a part, or draw some fields where they are not.

    Returns
    -------
    kind : {"real", "drawn"}
    fields : list of Field
        At most so many of each size.
    """
    path = data_folder() / "dsb2018_fluo.h5"
    if not path.exists():
        images, labels = synthetic.draw_fields(_N_DRAWN, _DRAWN_SHAPE, seed=4)
        drawn = zip(images.astype(np.uint8), labels, strict=True)
        return "drawn", [Field(f"drawn/{n}", *pair) for n, pair in enumerate(drawn)]
    fields = []
    with h5py.File(path) as archive:
        for size, group in archive[part].items():
            pairs = zip(group["images"][:limit], group["labels"][:limit], strict=True)
            fields += [Field(f"{size}/{n}", *pair) for n, pair in enumerate(pairs)]
    return "real", fields


Spoil = Callable[[Field, Rng], Image]


def list_kinds() -> dict[str, tuple[str | None, Spoil]]:
    """List the ways of spoiling, each with the flag that it should give."""
    kinds: dict[str, tuple[str | None, Spoil]] = {
        "clean": (None, lambda field, rng: field.image),
        "noisy": (None, _add_noise),
    }
    for blur in (1, 2, 3, 4, 6, 8):
        kinds[f"blur {blur} px"] = ("out_of_focus", _make_blur(blur))
    for share in (0.25, 0.5, 0.9):
        kinds[f"saturated {share}"] = ("saturated", _make_saturation(share))
    kinds["inverted"] = ("inverted", _invert)
    for factor in (0.25, 0.5, 2, 4):
        kinds[f"scale {factor}"] = ("foreign_scale", _make_scaling(factor))
    return kinds


def spoil(kind: str, make: Spoil, fields: list[Field]) -> Iterator[Image]:
    """Spoil fields, each by its own random numbers."""
    for field in fields:
        yield make(
            field, np.random.default_rng(zlib.crc32(f"{kind} {field.name}".encode()))
        )


def draw_blanks() -> Iterator[Image]:
    """Draw images of nothing but noise on even or sloping ground."""
    rng = np.random.default_rng(0)
    slope = np.linspace(0, 1, _BLANK_SHAPE[1], dtype=np.float32)
    for level in (5, 40, 120):
        for noise in (0.4, 1.0, 3.0, 10.0):
            for correlation_px in (0.0, 0.7, 1.5):
                for height in (0, 20):
                    values = rng.standard_normal(_BLANK_SHAPE, dtype=np.float32)
                    if correlation_px:
                        values = cv2.GaussianBlur(values, (0, 0), correlation_px)
                    values *= noise / values.std()
                    yield _digitise(level + height * slope + values)
            counts = rng.poisson(noise, _BLANK_SHAPE)
            yield _digitise(level + 3.0 * counts)
    yield np.zeros(_BLANK_SHAPE, np.uint8)
    yield np.full(_BLANK_SHAPE, 200, np.uint8)


def _digitise(values: NDArray[Any]) -> Image:
    digits: Image = np.rint(values).clip(0, 255).astype(np.uint8)
    return digits


def _add_noise(field: Field, rng: Rng) -> Image:
    """Add noise of a tenth of the image's range."""
    image = field.image.astype(np.float32)
    low, high = np.percentile(image, [1, 99.8])
    return _digitise(image + rng.normal(0, 0.1 * (high - low), image.shape))


def _make_blur(blur_px: float) -> Spoil:
    def blur(field: Field, rng: Rng) -> Image:
        image = field.image.astype(np.float32)
        # The lens blurs the light, and the camera adds its noise as before.
        response = cv2.filter2D(image, -1, _NOISE_FILTER)
        noise = max(float(np.median(np.abs(response))) / 6 / 0.6745, 0.3)
        image = cv2.GaussianBlur(image, (0, 0), blur_px)
        return _digitise(image + rng.normal(0, noise, image.shape))

    return blur


def _make_saturation(share: float) -> Spoil:
    def saturate(field: Field, rng: Rng) -> Image:
        inside = field.image[field.labels > 0]
        if not inside.size:
            return field.image
        # So much exposure that this share of the nuclei's pixels is at the end.
        end = max(float(np.quantile(inside, 1 - share)), 1.0)
        return _digitise(field.image * (255 / end))

    return saturate


def _invert(field: Field, rng: Rng) -> Image:
    image = field.image
    inverted: Image = image.max() - (image - image.min())
    return inverted


def _make_scaling(factor: float) -> Spoil:
    def scale(field: Field, rng: Rng) -> Image:
        image = field.image
        if factor > 1:
            side = int(_ENLARGED_SIDE_PX / factor)
            starts = [max(0, (length - side) // 2) for length in image.shape]
            image = image[starts[0] :, starts[1] :][:side, :side]
        way = cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC
        resized: Image = cv2.resize(
            image, None, fx=factor, fy=factor, interpolation=way
        )
        return resized

    return scale


def write_archives(
    folder: Path, origin: str, images: dict[str, list[Image]]
) -> tuple[list[Path], dict[str, str]]:
    """Write images by kind, one archive for each kind, and in it one dataset a size.

    Small datasets of an archive are looked at together for the size of their nuclei,
    and those that are spoilt would spoil the scale of those that are not.

    Returns
    -------
    archives : list of Path
    kinds : dict of str to str
        By the key of each dataset, none of which is in two archives.
    """
    archives, kinds = [], {}
    for number, (kind, stack) in enumerate(images.items()):
        archives.append(folder / f"{origin}-{number:02d}.h5")
        with h5py.File(archives[-1], "w") as archive:
            for height, width in dict.fromkeys(image.shape for image in stack):
                key = f"/{number:02d}/{height}x{width}/images"
                fitting = [i for i in stack if i.shape == (height, width)]
                archive.create_dataset(
                    key,
                    data=np.stack(fitting),
                    chunks=(1, height, width),
                    compression="gzip",
                )
                kinds[key] = kind
    return archives, kinds
