"""The compute setting: chosen once per run, then binding for every worker."""

import contextlib
import fcntl
import hashlib
import json
import logging
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Literal

from nucleiseg.atomic import publish_json, read_json
from nucleiseg.config import InferenceConfig
from nucleiseg.devices import find_device, find_precision, required, uses_onednn
from nucleiseg.errors import RunError
from nucleiseg.runs import CountRun

logger = logging.getLogger(__name__)

# Measuring takes some seconds, of a large network on a small device a minute.
_LONGEST_MEASURING_S = 180.0
_POLL_S = 0.2

# Pixels and tiles of a batch, where neither the user set its size nor the run is long
# enough for measuring: few on a CPU, so that a short shard is not mostly padding.
_BATCH_PIXELS = {"cpu": 2**18, "gpu": 2**22}
_MOST_TILES = {"cpu": 4, "gpu": 64}
# Of small tiles, whatever was measured with larger ones.
_MOST_MEASURED_TILES = 256


@dataclass(frozen=True)
class Compute:
    """What makes the bits of a probability map, besides image and weights."""

    device: Literal["cpu", "gpu"]
    precision: Literal["float32", "bfloat16", "float16"]
    batch_size: int | None
    """As set by the user; None: by tile size, see :meth:`batch_shape`."""
    tile_px: int
    context_px: int
    batch_pixels: int | None = None
    """Pixels of a batch, measured; None: not measured."""
    requires: str | None = None
    """Feature of the device that the precision was chosen for, as `amx_bf16`."""
    xla: bool = False
    """Whether XLA compiles the network."""
    onednn: bool | None = None
    """Whether a CPU computes with oneDNN; None: not noted, or nothing to choose."""

    def batch_shape(self, tile_shape: tuple[int, int]) -> tuple[int, int, int]:
        """Tiles, height and width of a batch; a last one that is smaller is padded.

        Never a batch of 1, and an even number: oneDNN computes odd batches and
        single images in another order, so that last bits differ.
        """
        height, width = tile_shape
        if self.batch_size is not None:
            return self.batch_size, height, width
        pixels, most = _BATCH_PIXELS[self.device], _MOST_TILES[self.device]
        if self.batch_pixels is not None:
            pixels, most = self.batch_pixels, _MOST_MEASURED_TILES
        n_tiles = min(max(2, pixels // (height * width)), most)
        return n_tiles - n_tiles % 2, height, width

    @property
    def identity(self) -> str:
        """Short hash that partial tables carry."""
        values = asdict(self)
        if self.onednn is None:
            # As of runs that were begun before it was noted.
            del values["onednn"]
        text = json.dumps(values, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def choose_compute(
    run: CountRun,
    settings: InferenceConfig,
    *,
    measure: Callable[[Compute], Compute] | None = None,
) -> Compute:
    """Choose the run's compute setting, or take the one that was chosen first.

    Parameters
    ----------
    run : CountRun
    settings : InferenceConfig
    measure : callable, optional
        Completes what is best found by trying; called only by who chooses.

    Raises
    ------
    NucleisegError
        This machine cannot meet it.
    """
    if not run.compute.exists():
        device = find_device(settings.device)
        precision = find_precision(settings.precision, device)
        wanted = Compute(
            device=device,
            precision=precision,
            batch_size=settings.batch_size,
            tile_px=settings.tile_px,
            context_px=settings.context_px,
            requires=required(precision, device),
            xla=bool(settings.xla),
            onednn=uses_onednn() if device == "cpu" else None,
        )
        if measure is None:
            publish_json(run.compute, asdict(wanted))
        else:
            with _one_at_a_time(run):
                if not run.compute.exists():
                    publish_json(run.compute, asdict(measure(wanted)))
    compute = read_compute(run)
    if settings.device not in ("auto", compute.device):
        raise RunError(
            f"inference.device is {settings.device}, and run {run.root} began on the "
            f"{compute.device.upper()}, which binds all of it; set inference.device="
            f"{compute.device}, or use another --run"
        )
    if compute.device == "gpu":
        find_device("gpu")
    elif compute.onednn not in (None, uses_onednn()):
        raise RunError(
            f"run {run.root} computes {'with' if compute.onednn else 'without'} "
            "oneDNN, and this process would do otherwise; set TF_ENABLE_ONEDNN_OPTS="
            f"{int(compute.onednn or 0)}, or use another --run"
        )
    _refuse_other_device(run, compute)
    return compute


@contextlib.contextmanager
def _one_at_a_time(run: CountRun) -> Iterator[None]:
    """Wait until nobody else measures: workers of one device would time each other."""
    path = run.compute.with_suffix(".lock")
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        deadline_s = time.monotonic() + _LONGEST_MEASURING_S
        # Whoever has it may hang: what is measured then is worse, and that is all.
        while time.monotonic() < deadline_s:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                time.sleep(_POLL_S)
            except OSError as error:
                logger.info("%s cannot be locked: %s", path, error.strerror)
                break
        else:
            logger.warning(
                "another worker has measured for %.0f s: measuring beside it",
                _LONGEST_MEASURING_S,
            )
        yield
    finally:
        os.close(descriptor)


def _refuse_other_device(run: CountRun, compute: Compute) -> None:
    """Refuse a device on which the run's precision would give other bits."""
    here = required(compute.precision, compute.device)
    if here != compute.requires:
        raise RunError(
            f"run {run.root} computes in {compute.precision} on a "
            f"{compute.device.upper()} with {compute.requires or 'nothing made for it'}"
            f", and this one has {here or 'nothing made for it'}; use a node like "
            "those it began on (cluster.constraint), or another --run with "
            "inference.precision=float32"
        )


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
