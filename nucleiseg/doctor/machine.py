"""The machine: TensorFlow and its GPUs, cores, memory, open files."""

import importlib.metadata
import os
import re
import resource
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal

from nucleiseg.devices import available_cores, find_precision
from nucleiseg.doctor.check import Check, failed, passed, warned
from nucleiseg.doctor.sight import Sight

_PROC = Path("/proc")
_CGROUPS = Path("/sys/fs/cgroup")
_LEAST_BYTES = 2 * 2**30
_LEAST_FILES = 1024


def check_builds() -> Check | None:
    """Refuse two builds of TensorFlow in one place; None: there is one at most."""
    builds = []
    for name in ("tensorflow", "tensorflow-cpu"):
        try:
            builds.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    if len(builds) < 2:
        return None
    return failed(
        "TensorFlow builds",
        f"{' and '.join(builds)}, which overwrite each other's files",
        "pip uninstall both, then install one: nucleiseg[gpu] or nucleiseg[cpu]",
    )


def check_tensorflow(sight: Sight) -> Check:
    """Check that TensorFlow is there and computes."""
    remedy = (
        "pip install 'nucleiseg[cpu]' or, with NVIDIA GPUs, 'nucleiseg[gpu]'; "
        "TF_CPP_MIN_LOG_LEVEL=0 shows more"
    )
    if sight.version is None:
        # The message has the same remedy.
        found = (sight.problem or "").partition("; run pip")[0]
        return failed("TensorFlow", found, remedy)
    if sight.problem is not None:
        return failed("TensorFlow", f"{sight.version}, {sight.problem}", remedy)
    return passed("TensorFlow", sight.version)


def find_promised(
    environment: Mapping[str, str], proc: Path = _PROC
) -> tuple[int, str]:
    """Count the GPUs that should be there, and say who says so."""
    visible = environment.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        # CUDA takes no name that follows -1.
        names = re.split(r",?\s*-1", visible)[0].split(",")
        number = len([name for name in names if name.strip()])
        return number, f"CUDA_VISIBLE_DEVICES={visible}"
    try:
        number = len(list((proc / "driver/nvidia/gpus").iterdir()))
    except OSError:
        number = 0
    return number, "NVIDIA's driver"


def check_gpus(
    sight: Sight,
    promised: tuple[int, str],
    *,
    wanted: Literal["auto", "cpu", "gpu"],
    is_needed: bool,
) -> Check:
    """Compare the GPUs that TensorFlow sees with those that are promised.

    Parameters
    ----------
    sight : Sight
    promised : (int, str)
        How many, and by whom.
    wanted : {"auto", "cpu", "gpu"}
        The device that is set.
    is_needed : bool
        Whether this machine will compute; a login node will not.
    """
    number, source = promised
    n_seen = len(sight.gpus)
    name = "GPUs"
    remedy = (
        "check nvidia-smi, that nucleiseg[gpu] is installed, in a container --nv or "
        "--gpus all; or set inference.device=cpu and training.device=cpu"
    )
    if number and not n_seen:
        found = f"TensorFlow sees none of the {number} that {source} promises"
        if wanted == "cpu":
            return passed(name, f"{found}; none is wanted")
        return failed(name, found, remedy) if is_needed else warned(name, found, remedy)
    if not n_seen and wanted == "gpu" and is_needed:
        return failed(name, "none, and the device is set to gpu", remedy)
    if not n_seen:
        return passed(name, "CPU only: fine for small runs")
    seen = f"{n_seen}: {', '.join(sight.gpus)}"
    if n_seen < number:
        return warned(
            name,
            f"{seen}, of {number} that {source} promises",
            "TF_CPP_MIN_LOG_LEVEL=0 shows why TensorFlow leaves the others out",
        )
    return passed(name, seen)


def check_cpu() -> Check:
    """Say what the CPU is, and how it computes."""
    try:
        text = (_PROC / "cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = ""
    model = re.search(r"^model name\s*:\s*(.*)$", text, re.M)
    has_amx = find_precision("auto", "cpu") == "bfloat16"
    how = "AMX, computes in bfloat16" if has_amx else "no AMX, computes in float32"
    return passed("CPU", f"{model[1] if model else 'unknown'}; {how}")


def check_cores(
    n_cores: int | None = None, root: Path = _CGROUPS, proc: Path = _PROC
) -> Check:
    """Compare the cores this process may run on with the time it may take on them."""
    n_cores = available_cores() if n_cores is None else n_cores
    quota = _cpu_quota(root, proc)
    if quota is not None and quota < n_cores:
        n_whole = max(1, int(quota))
        return warned(
            "cores",
            f"{n_cores}, with time for {quota:g} (cgroup quota): threads will stall",
            f"start with taskset --cpu-list 0-{n_whole - 1}, or ask for whole cores",
        )
    return passed("cores", str(n_cores))


def check_memory(root: Path = _CGROUPS, proc: Path = _PROC) -> Check:
    """Check the memory that is left."""
    found = re.search(
        r"^MemAvailable:\s+(\d+) kB", (proc / "meminfo").read_text("ascii"), re.M
    )
    available = int(found[1]) * 1024 if found else 0
    names = ("memory.max", "memory.limit_in_bytes")
    limits = [
        int(text)
        for folder in _cgroup_folders("memory", root, proc)
        for name in names
        if (text := _read(folder / name)).isdecimal()
    ]
    least = min([available, *limits])
    words = f"{least / 2**30:.1f} GB"
    if least < _LEAST_BYTES:
        return warned(
            "memory", words, "ask for 2 GB or more: TensorFlow takes one a worker"
        )
    return passed("memory", words)


def check_open_files() -> Check:
    """Check how many files a process may have open."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit != resource.RLIM_INFINITY and limit < _LEAST_FILES:
        return warned("open files", f"at most {limit}", "ulimit -n 4096")
    words = "no limit" if limit == resource.RLIM_INFINITY else f"at most {limit}"
    return passed("open files", words)


def _cpu_quota(root: Path, proc: Path) -> float | None:
    """Cores' worth of time that all cgroups above this process grant."""
    quotas = []
    for folder in _cgroup_folders("cpu", root, proc):
        parts = _read(folder / "cpu.max").split() or [
            _read(folder / "cpu.cfs_quota_us"),
            _read(folder / "cpu.cfs_period_us"),
        ]
        # Without a limit the quota is -1, or `max`.
        if len(parts) == 2 and all(part.isdecimal() for part in parts):
            quotas.append(int(parts[0]) / int(parts[1]))
    return min(quotas, default=None)


def _cgroup_folders(controller: str, root: Path, proc: Path) -> Iterator[Path]:
    """Folders of a controller from this process up; those not mounted included."""
    for line in _read(proc / "self/cgroup").splitlines():
        _, names, path = line.split(":", 2)
        # Version 2 has one tree for all, which has no name.
        if names and controller not in names.split(","):
            continue
        base = root / names if names else root
        own = base / path.strip("/")
        for folder in (own, *own.parents):
            yield folder
            if folder == base:
                break


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return ""


def wanted_device(*devices: str) -> Literal["auto", "cpu", "gpu"]:
    """Of several settings, the one that asks for most."""
    if "gpu" in devices:
        return "gpu"
    return "cpu" if set(devices) == {"cpu"} else "auto"


def check_locking_variable() -> Check | None:
    """Say what the environment tells HDF5 about locks; None: nothing."""
    value = os.environ.get("HDF5_USE_FILE_LOCKING")
    if value is None:
        return None
    return passed("HDF5_USE_FILE_LOCKING", f"{value!r}, which HDF5 goes by")
