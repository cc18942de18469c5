"""The compute setting: chosen once per run, then binding for every worker."""

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Literal

from nucleiseg.config import InferenceConfig
from nucleiseg.devices import find_device, find_precision
from nucleiseg.errors import RunError
from nucleiseg.runs import CountRun, publish_json, read_json

# Pixels and images of a batch, where the user did not set its size. On two CPU cores
# batches of 2 to 16 are equally fast, and small ones need little memory; GPUs want
# large ones.
_BATCH_PIXELS = {"cpu": 2**18, "gpu": 2**22}
_MOST_IMAGES = {"cpu": 4, "gpu": 64}


@dataclass(frozen=True)
class Compute:
    """What makes the bits of a probability map, besides image and weights."""

    device: Literal["cpu", "gpu"]
    precision: Literal["float32", "bfloat16", "float16"]
    batch_size: int | None
    """As set by the user; None: by tile size, see :meth:`batch_shape`."""
    tile_px: int
    context_px: int

    def batch_shape(self, tile_shape: tuple[int, int]) -> tuple[int, int, int]:
        """Tiles, height and width of a batch; a last one that is smaller is padded.

        Never a batch of 1, and an even number: oneDNN computes odd batches and
        single images in another order, so that last bits differ.
        """
        height, width = tile_shape
        if self.batch_size is not None:
            return self.batch_size, height, width
        fitting = _BATCH_PIXELS[self.device] // (height * width)
        n_tiles = min(max(2, fitting), _MOST_IMAGES[self.device])
        return n_tiles - n_tiles % 2, height, width

    @property
    def identity(self) -> str:
        """Short hash that partial tables carry."""
        text = json.dumps(asdict(self), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def choose_compute(run: CountRun, settings: InferenceConfig) -> Compute:
    """Choose the run's compute setting, or take the one that was chosen first.

    Raises
    ------
    NucleisegError
        This machine cannot meet it.
    """
    if not run.compute.exists():
        device = find_device(settings.device)
        wanted = Compute(
            device=device,
            precision=find_precision(settings.precision, device),
            batch_size=settings.batch_size,
            tile_px=settings.tile_px,
            context_px=settings.context_px,
        )
        publish_json(run.compute, asdict(wanted))
    compute = read_compute(run)
    if settings.device not in ("auto", compute.device):
        raise RunError(
            f"inference.device is {settings.device}, and run {run.root} began on the "
            f"{compute.device.upper()}, which binds all of it; set inference.device="
            f"{compute.device}, or use another --run"
        )
    if compute.device == "gpu":
        find_device("gpu")
    return compute


def read_compute(run: CountRun) -> Compute:
    """Read the run's compute setting.

    Raises
    ------
    RunError
        It is missing or damaged.
    """
    values = read_json(run.compute)
    try:
        return Compute(**values)
    except TypeError as error:
        raise RunError(
            f"{run.compute} is damaged ({error}); use another --run"
        ) from error
