"""Where a result comes from: versions, commit, host."""

import datetime
import importlib.metadata
import os
import platform
import socket
import subprocess
from pathlib import Path
from typing import Any

import nucleiseg

_PACKAGES = (
    "tensorflow",
    "tensorflow-cpu",
    "keras",
    "numpy",
    "opencv-python-headless",
    "pandas",
    "pyarrow",
    "h5py",
    "dask",
    "distributed",
)


def describe_environment() -> dict[str, Any]:
    """Versions of everything that touches a result, the commit, and the host."""
    versions = {}
    for package in _PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {
        "nucleiseg": nucleiseg.__version__,
        "commit": _commit(),
        "python": platform.python_version(),
        "packages": versions,
        "host": socket.gethostname(),
        "cores": len(os.sched_getaffinity(0)),
        "slurm_job": os.environ.get("SLURM_JOB_ID"),
    }


def timestamp() -> str:
    """Time of day in UTC, to the second."""
    now = datetime.datetime.now(datetime.UTC)
    return now.isoformat(timespec="seconds")


def _commit() -> str | None:
    """Commit of the checkout the package runs from; None where it is installed."""
    checkout = Path(nucleiseg.__file__).parent.parent
    if not (checkout / ".git").exists():
        return None
    try:
        answer = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12"],
            cwd=checkout,
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return "unknown: git could not be asked"
    return answer.stdout.strip()
