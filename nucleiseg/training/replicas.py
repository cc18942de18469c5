"""Replicas: every visible GPU, or logical CPU devices for a machine without one."""

import contextlib
import logging
from dataclasses import dataclass
from typing import Any, Literal

from nucleiseg.devices import import_tensorflow, n_gpus
from nucleiseg.errors import ConfigError
from nucleiseg.training.numerics import choose_device

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Replicas:
    """The devices that share each batch."""

    device: Literal["cpu", "gpu"]
    count: int
    strategy: Any
    """A MirroredStrategy, or None for a single device."""

    def scope(self) -> contextlib.AbstractContextManager[Any]:
        """Context in which network and optimiser must be made."""
        if self.strategy is None:
            return contextlib.nullcontext()
        scope: contextlib.AbstractContextManager[Any] = self.strategy.scope()
        return scope


def find_replicas(
    wanted: int | None,
    *,
    batch_size: int,
    wanted_device: Literal["auto", "cpu", "gpu"] = "auto",
) -> Replicas:
    """Decide on which devices to train; call before TensorFlow is used.

    Parameters
    ----------
    wanted : int or None
        Number of replicas; None for every GPU, or one CPU.
    batch_size : int
        Global batch size, shared evenly.
    wanted_device : {"auto", "cpu", "gpu"}

    Raises
    ------
    NucleisegError
        A GPU was asked for, or granted, and TensorFlow sees none.
    ConfigError
        Fewer GPUs than asked for, or a batch that cannot be shared evenly.
    """
    device = choose_device(wanted_device)
    gpus = n_gpus() if device == "gpu" else 0
    count = wanted or _largest_divisor(batch_size, at_most=gpus or 1)
    if wanted is None and count < gpus:
        logger.info(
            "using %d of %d GPUs: they share a batch of %d evenly",
            count,
            gpus,
            batch_size,
        )
    if gpus and count > gpus:
        raise ConfigError(
            f"training.replicas is {count}, but TensorFlow sees {gpus} GPUs; lower it, "
            "or ask the cluster for more"
        )
    if batch_size % count:
        raise ConfigError(
            f"training.batch_size {batch_size} cannot be shared evenly by {count} "
            f"replicas (training.replicas); use a multiple of {count}"
        )
    if count == 1:
        return Replicas(device, 1, None)
    tensorflow = import_tensorflow()
    if device == "cpu":
        _make_logical_cpus(count)
    names = [f"{device.upper()}:{index}" for index in range(count)]
    return Replicas(device, count, tensorflow.distribute.MirroredStrategy(names))


def _largest_divisor(number: int, *, at_most: int) -> int:
    return max(n for n in range(1, at_most + 1) if number % n == 0)


def _make_logical_cpus(count: int) -> None:
    tensorflow = import_tensorflow()
    cpu = tensorflow.config.list_physical_devices("CPU")[0]
    configured = tensorflow.config.get_logical_device_configuration(cpu)
    if configured is not None and len(configured) >= count:
        return
    try:
        tensorflow.config.set_logical_device_configuration(
            cpu, [tensorflow.config.LogicalDeviceConfiguration()] * count
        )
    except RuntimeError as error:
        raise ConfigError(
            f"training.replicas is {count}, but TensorFlow was started with fewer CPU "
            "devices in this process; train in a process of its own"
        ) from error
