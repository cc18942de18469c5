"""How this machine's GPUs or cores are shared between workers."""

import os
from collections.abc import Sequence
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
    """GPU of each worker, as CUDA_VISIBLE_DEVICES names it; empty: CPUs."""


def plan_workers(
    wanted: int | None, *, device: str, n_shards: int, per_gpu: int = 1
) -> Workers:
    """Share this machine's GPUs or cores between workers.

    Parameters
    ----------
    wanted : int or None
        Number of workers; None: `per_gpu` a GPU, or one on a CPU; 0: none, in this
        process.
    device : {"auto", "cpu", "gpu"}
    n_shards : int
        Shards to compute: more workers than that would only load the network.
    per_gpu : int
        Workers that may share a GPU.

    Raises
    ------
    RunError
        More workers than may share the GPUs.
    """
    cores = available_cores()
    gpus = () if device == "cpu" else _visible_gpus()
    if gpus:
        most = len(gpus) * per_gpu
        count = most if wanted is None else wanted
        if count > most:
            raise RunError(
                f"--workers {count}, but {most} is the most here (GPUs: {len(gpus)}, "
                f"workers that share one: {per_gpu}); lower it, raise "
                "cluster.workers_per_gpu, or set inference.device=cpu"
            )
        count = min(count, max(1, n_shards))
        dealt = tuple(deal_gpu(gpus, number) for number in range(count))
        return Workers(count, max(1, cores // max(1, count)), dealt)
    count = min(1 if wanted is None else wanted, max(1, n_shards))
    return Workers(count, max(1, cores // max(1, count)))


def deal_gpu(gpus: Sequence[str], number: int) -> str:
    """Give the GPU of a worker, by its number: all have as many workers, or nearly."""
    return gpus[number % len(gpus)]


def expect_workers(
    wanted: int | None, *, device: Literal["auto", "cpu", "gpu"], per_gpu: int = 1
) -> tuple[int, Literal["cpu", "gpu"]]:
    """Foresee how many workers there will be and on what, without starting any.

    Parameters
    ----------
    wanted : int or None
        Workers, here or on a cluster; None: `per_gpu` a GPU of this machine, or one.
    device : {"auto", "cpu", "gpu"}
        As set; `gpu` where a cluster's nodes have GPUs, whatever there is here.
    per_gpu : int
    """
    gpus = () if device == "cpu" else _visible_gpus()
    count = max(1, len(gpus) * per_gpu) if wanted is None else max(1, wanted)
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
