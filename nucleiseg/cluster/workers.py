"""How this machine's GPUs or cores are shared between workers."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from nucleiseg.devices import available_cores
from nucleiseg.errors import RunError


@dataclass(frozen=True)
class Workers:
    """How many worker processes, and what each may use."""

    count: int
    """0: compute in this process, without dask."""
    n_threads: int
    """Cores each may keep busy."""
    gpus: tuple[str, ...] = ()
    """One GPU for each worker, as CUDA_VISIBLE_DEVICES names it; empty: CPUs."""


def plan_workers(wanted: int | None, *, device: str, n_shards: int) -> Workers:
    """Share this machine's GPUs or cores between workers.

    Parameters
    ----------
    wanted : int or None
        Number of workers; None: one a GPU, or one on a CPU; 0: none, in this process.
    device : {"auto", "cpu", "gpu"}
    n_shards : int
        Shards to compute: more workers than that would only load the network.

    Raises
    ------
    RunError
        More workers than GPUs.
    """
    cores = available_cores()
    gpus = () if device == "cpu" else _visible_gpus()
    if gpus:
        count = len(gpus) if wanted is None else wanted
        if count > len(gpus):
            raise RunError(
                f"--workers {count}, but this machine shows {len(gpus)} GPUs and each "
                "worker takes one; lower it, or set inference.device=cpu"
            )
        count = min(count, max(1, n_shards))
        return Workers(count, max(1, cores // max(1, count)), gpus[:count])
    count = min(1 if wanted is None else wanted, max(1, n_shards))
    return Workers(count, max(1, cores // max(1, count)))


def expect_workers(
    wanted: int | None, *, device: Literal["auto", "cpu", "gpu"]
) -> tuple[int, Literal["cpu", "gpu"]]:
    """Foresee how many workers there will be and on what, without starting any.

    Parameters
    ----------
    wanted : int or None
        Workers, here or on a cluster; None: one a GPU of this machine, or one.
    device : {"auto", "cpu", "gpu"}
        As set; `gpu` where a cluster's nodes have GPUs, whatever there is here.
    """
    gpus = () if device == "cpu" else _visible_gpus()
    count = max(1, len(gpus)) if wanted is None else max(1, wanted)
    return count, "gpu" if gpus or device == "gpu" else "cpu"


def _visible_gpus() -> tuple[str, ...]:
    """GPUs this process may use, found without loading TensorFlow."""
    granted = os.environ.get("CUDA_VISIBLE_DEVICES")
    if granted is not None:
        # What a scheduler pinned must stay pinned. -1 hides all.
        return tuple(
            name
            for name in granted.replace(" ", "").split(",")
            if name not in ("", "-1")
        )
    folder = Path("/proc/driver/nvidia/gpus")
    count = len(list(folder.iterdir())) if folder.is_dir() else 0
    return tuple(str(number) for number in range(count))
