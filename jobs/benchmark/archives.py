"""Archives to measure with: real crops, or drawn ones, in as many as are wanted."""

import os
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

import h5py
import numpy as np
from numpy.typing import NDArray

from nucleiseg import synthetic
from nucleiseg.atomic import atomic_path
from nucleiseg.errors import ConfigError

Form = Literal["deflated", "stored", "hdf5"]
FORMS: tuple[Form, ...] = ("deflated", "stored", "hdf5")
DTYPES = ("uint8", "float32")
KEY = "X"

_SUFFIXES = {"deflated": ".npz", "stored": ".stored.npz", "hdf5": ".h5"}
_REPOSITORY = Path(__file__).parents[2]
_N_DRAWN = 200
_DRAWN_SIDE_PX = 128
# Of an image of its own; a chunk of a stack is one image, as in the real archives.
_CHUNK_PX = 512
_BLOCK_BYTES = 2**25


def data_folder() -> Path:
    """Folder of the real images, whether it is there or not."""
    return Path(os.environ.get("NUCLEISEG_DATA", _REPOSITORY.parent / "shared/data"))


@dataclass(frozen=True)
class Crops:
    """Different images, and as many more as are wanted by turning and mirroring them.

    Copies lie so far apart that no compression sees them.
    """

    name: str
    pixels: NDArray[np.uint8]
    """(n, H, W), H = W."""

    @property
    def side_px(self) -> int:
        """Height and width of an image."""
        return int(self.pixels.shape[1])

    def read(self, start: int, stop: int) -> NDArray[np.uint8]:
        """Give images; after the last one they begin anew, seen otherwise."""
        shape = (stop - start, self.side_px, self.side_px)
        images = np.empty(shape, dtype=np.uint8)
        for position, number in enumerate(range(start, stop)):
            turn, index = divmod(number, len(self.pixels))
            image = np.rot90(self.pixels[index], turn % 4)
            images[position] = image if turn % 8 < 4 else image[:, ::-1]
        return images


def find_crops(side_px: int = _DRAWN_SIDE_PX) -> Crops:
    """Take the real test crops where they are, else draw some.

    Parameters
    ----------
    side_px : int
        Height and width, at most 128: a part of each crop.

    Raises
    ------
    ConfigError
        No crop is so large.
    """
    if not 0 < side_px <= _DRAWN_SIDE_PX:
        raise ConfigError(
            f"images of {side_px} px are asked for, and crops have 1 to "
            f"{_DRAWN_SIDE_PX}; use --side with one of these"
        )
    path = data_folder() / "test_images.npz"
    if path.exists():
        with np.load(path) as archive:
            # The notebook's float32 holds whole numbers from 0 to 255.
            pixels = np.rint(archive["X"]).clip(0, 255).astype(np.uint8)
        return Crops("real", pixels[:, :side_px, :side_px])
    shape = (_DRAWN_SIDE_PX, _DRAWN_SIDE_PX)
    drawn, _ = synthetic.draw_fields(_N_DRAWN, shape, seed=1)
    return Crops("drawn", drawn.astype(np.uint8)[:, :side_px, :side_px])


def make_stack(
    folder: Path, crops: Crops, n_images: int, *, form: Form, dtype: str
) -> Path:
    """Write an archive with a stack of images, unless the folder has it."""
    name = f"{crops.name}-{n_images}x{crops.side_px}px-{dtype}{_SUFFIXES[form]}"
    step = max(1, _BLOCK_BYTES // (crops.side_px**2 * np.dtype(dtype).itemsize))

    def blocks() -> Iterator[NDArray[Any]]:
        for start in range(0, n_images, step):
            images = crops.read(start, min(start + step, n_images))
            yield images.astype(dtype)

    shape = (n_images, crops.side_px, crops.side_px)
    return _make(folder / name, blocks(), shape, dtype=dtype, form=form)


def make_image(folder: Path, crops: Crops, side_px: int, *, form: Form) -> Path:
    """Write an archive with one uint16 image made of crops, unless it is there."""
    name = f"{crops.name}-one-{side_px}px-uint16{_SUFFIXES[form]}"
    n_across = -(-side_px // crops.side_px)

    def bands() -> Iterator[NDArray[Any]]:
        for number in range(n_across):
            images = crops.read(number * n_across, (number + 1) * n_across)
            band = np.hstack(list(images))[: side_px - number * crops.side_px, :side_px]
            # As a camera of 14 bits would give it.
            yield band.astype(np.uint16) * 64

    return _make(folder / name, bands(), (side_px, side_px), dtype="uint16", form=form)


def _make(
    path: Path,
    blocks: Iterator[NDArray[Any]],
    shape: tuple[int, ...],
    *,
    dtype: str,
    form: Form,
) -> Path:
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(path) as temporary:
            write = _write_hdf5 if form == "hdf5" else _write_npz
            write(temporary, blocks, shape, np.dtype(dtype), form)
    return path


def _write_npz(
    path: Path,
    blocks: Iterator[NDArray[Any]],
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    form: Form,
) -> None:
    """Write what `np.savez` or `np.savez_compressed` would, without holding it."""
    method = zipfile.ZIP_STORED if form == "stored" else zipfile.ZIP_DEFLATED
    header = {"descr": dtype.str, "fortran_order": False, "shape": shape}
    with (
        zipfile.ZipFile(path, "w", method) as archive,
        archive.open(f"{KEY}.npy", "w", force_zip64=True) as stream,
    ):
        _write_header(stream, header)
        for block in blocks:
            stream.write(block.tobytes())


def _write_header(stream: IO[bytes], header: dict[str, Any]) -> None:
    np.lib.format.write_array_header_1_0(stream, header)


def _write_hdf5(
    path: Path,
    blocks: Iterator[NDArray[Any]],
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    form: Form,
) -> None:
    chunk = (1, *shape[1:]) if len(shape) == 3 else (min(_CHUNK_PX, shape[0]),) * 2
    with h5py.File(path, "w") as archive:
        dataset = archive.create_dataset(
            KEY, shape, dtype, chunks=chunk, compression="gzip"
        )
        start = 0
        for block in blocks:
            dataset[start : start + len(block)] = block
            start += len(block)
