"""What TensorFlow may use on this machine: devices, threads and precision."""

import contextlib
import importlib
import logging
import os
import platform
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from nucleiseg.config import Precision
from nucleiseg.errors import NucleisegError
from nucleiseg.loading import without_chatter, without_unused_packages

logger = logging.getLogger(__name__)

_ONEDNN = "TF_ENABLE_ONEDNN_OPTS"


def uses_onednn() -> bool | None:
    """Whether TensorFlow computes with oneDNN on this CPU; None: as it thinks best.

    By itself it leaves oneDNN out on x86 CPUs without instructions for numbers of 8 or
    16 bits. Measured on an AMD EPYC with AVX2 only: with it, U-Nets of 16 and 64 base
    filters predict 1.6 and 1.2 times as many images a second, and take less memory.
    """
    if platform.machine() != "x86_64":
        return None
    return os.environ.get(_ONEDNN, "1").lower() not in ("0", "false")


def import_tensorflow() -> ModuleType:
    """Import TensorFlow, without its start-up chatter.

    Raises
    ------
    NucleisegError
        TensorFlow is not installed; the message has the commands.
    """
    # What matters comes as an exception; set it to 0 to see everything.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    # A shared GPU must not be grabbed whole.
    os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
    if "tensorflow" in sys.modules:
        return sys.modules["tensorflow"]
    if uses_onednn():
        os.environ.setdefault(_ONEDNN, "1")
    try:
        with without_chatter(), without_unused_packages():
            return importlib.import_module("tensorflow")
    except ModuleNotFoundError as error:
        if error.name != "tensorflow":
            raise
        raise NucleisegError(
            "TensorFlow is not installed; run pip install 'nucleiseg[cpu]' or, on a "
            "machine with NVIDIA GPUs, pip install 'nucleiseg[gpu]'"
        ) from error


def available_cores() -> int:
    """CPU cores this process may use: SLURM grants fewer than there are."""
    return len(os.sched_getaffinity(0))


def n_gpus() -> int:
    """Count the GPUs that TensorFlow sees."""
    return len(import_tensorflow().config.list_physical_devices("GPU"))


def find_device(
    wanted: Literal["auto", "cpu", "gpu"], *, setting: str = "inference.device"
) -> Literal["cpu", "gpu"]:
    """Decide where to compute.

    Parameters
    ----------
    wanted : {"auto", "cpu", "gpu"}
    setting : str
        Name of the setting that says so, for the message.

    Raises
    ------
    NucleisegError
        A GPU was asked for and TensorFlow sees none.
    """
    if wanted == "cpu":
        return "cpu"
    if n_gpus():
        return "gpu"
    if wanted == "gpu":
        raise _no_gpu(f"{setting} is gpu", f"{setting}=cpu")
    refuse_lost_gpus(f"{setting}=cpu")
    return "cpu"


def refuse_lost_gpus(remedy: str) -> None:
    """Refuse to compute on a CPU where GPUs were granted and TensorFlow sees none.

    Parameters
    ----------
    remedy : str
        What to set for computing on the CPU all the same.

    Raises
    ------
    NucleisegError
        CUDA_VISIBLE_DEVICES names GPUs.
    """
    granted = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    if granted.strip() not in ("", "-1"):
        raise _no_gpu("GPUs were granted", remedy)


def _no_gpu(what: str, remedy: str) -> NucleisegError:
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "not set")
    return NucleisegError(
        f"{what}, but TensorFlow sees no GPU (CUDA_VISIBLE_DEVICES is {visible}); "
        "check nvidia-smi, that nucleiseg[gpu] is installed and what "
        f"TF_CPP_MIN_LOG_LEVEL=0 shows, or set {remedy}"
    )


def describe_device(device: Literal["cpu", "gpu"]) -> str:
    """Name what will compute, and what the scheduler pinned."""
    pinned = os.environ.get("CUDA_VISIBLE_DEVICES", "not set")
    if device == "cpu":
        return f"CPU (CUDA_VISIBLE_DEVICES={pinned})"
    return f"GPU {', '.join(find_models(device))} (CUDA_VISIBLE_DEVICES={pinned})"


def find_models(device: Literal["cpu", "gpu"]) -> list[str]:
    """Find the models of the GPUs that TensorFlow sees, or of the CPU."""
    if device == "cpu":
        return [_read_cpuinfo("model name") or platform.machine()]
    tensorflow = import_tensorflow()
    names = []
    for gpu in tensorflow.config.list_physical_devices("GPU"):
        details: dict[str, Any] = tensorflow.config.experimental.get_device_details(gpu)
        names.append(str(details.get("device_name", gpu.name)))
    return names


def find_precision(
    wanted: Precision, device: Literal["cpu", "gpu"]
) -> Literal["float32", "bfloat16", "float16"]:
    """Decide the computation type: what was asked for, or what the device is fast at.

    bfloat16 on GPUs of compute capability 8 and above and on CPUs with AMX, float16
    on GPUs of capability 7, float32 elsewhere.
    """
    if wanted != "auto":
        return wanted
    features = find_features(device)
    if features & {"amx_bf16", "compute capability 8"}:
        return "bfloat16"
    return "float16" if "compute capability 7" in features else "float32"


# What computes in a type of 16 bits, and does so in its own way. The first of a CPU's
# that is there is the one that oneDNN uses.
_FEATURES = {
    ("bfloat16", "cpu"): ("amx_bf16", "avx512_bf16"),
    ("float16", "cpu"): ("amx_fp16", "avx512_fp16"),
    ("bfloat16", "gpu"): ("compute capability 8",),
    ("float16", "gpu"): ("compute capability 7",),
}


def find_features(device: Literal["cpu", "gpu"]) -> set[str]:
    """Find what a device has for types of 16 bits.

    Returns
    -------
    set of str
        Flags of the CPU, such as `amx_bf16`; of a GPU the compute capabilities from
        7 on that it has or exceeds, such as `compute capability 8`.
    """
    if device == "cpu":
        known = {name for names in _FEATURES.values() for name in names}
        return _cpu_flags() & known
    tensorflow = import_tensorflow()
    gpu = tensorflow.config.list_physical_devices("GPU")[0]
    details: dict[str, Any] = tensorflow.config.experimental.get_device_details(gpu)
    major = details.get("compute_capability", (0, 0))[0]
    return {f"compute capability {number}" for number in range(7, major + 1)}


def required(
    precision: Literal["float32", "bfloat16", "float16"], device: Literal["cpu", "gpu"]
) -> str | None:
    """Name the feature by which this machine computes in a precision.

    Returns
    -------
    str or None
        None for float32, and where it is emulated, which any machine can do.
    """
    names = _FEATURES.get((precision, device))
    if names is None:
        return None
    found = find_features(device)
    return next((name for name in names if name in found), None)


def _cpu_flags() -> set[str]:
    flags = _read_cpuinfo("flags", "Features")
    if flags is None:
        logger.info("no flags in /proc/cpuinfo here: computing in float32")
        return set()
    return set(flags.split())


def _read_cpuinfo(*names: str) -> str | None:
    """Read the first core's entry of one of these names."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace")
    except OSError:
        return None
    for line in text.splitlines():
        if line.startswith(names):
            return line.partition(":")[2].strip()
    return None


def dtype_policy(precision: str) -> str:
    """Name of the Keras dtype policy for a computation type."""
    return precision if precision == "float32" else f"mixed_{precision}"


@contextlib.contextmanager
def explain_exhaustion() -> Iterator[None]:
    """Turn TensorFlow's lack of memory into one line.

    Raises
    ------
    NucleisegError
        A device has too little memory for what was asked.
    """
    tensorflow = import_tensorflow()
    try:
        yield
    except tensorflow.errors.ResourceExhaustedError as error:
        first_line = str(error).strip().partition("\n")[0]
        raise NucleisegError(
            f"not enough memory for the network ({first_line[:160]}); lower "
            "training.batch_size, inference.batch_size, cluster.workers_per_gpu or "
            "model.base_filters, or use a device with more"
        ) from error
