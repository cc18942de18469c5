"""Python and the packages: what all else needs, and what may be missing itself."""

import importlib.metadata
import json
import platform
import re
import sys
from collections.abc import Callable, Iterator

from nucleiseg.doctor.check import Check, ask, failed, passed, warned

_IMPORT_LIMIT_S = 180.0
_MODULES = (
    *("numpy", "h5py", "hdf5plugin", "cv2", "pandas", "pyarrow", "sklearn", "dask"),
    *("distributed", "cryptography", "submitit", "pydantic", "yaml", "matplotlib"),
    "tqdm",
)
# Their versions count where they are there; tensorflow and tensorflow-cpu exclude
# each other, so that neither is among what must be installed.
_OPTIONAL = ("tensorflow", "tensorflow-cpu", "keras")

# In a process of its own: a library built for another CPU kills whoever loads it.
_IMPORT_ALL = """
import importlib, json, sys
problems = {}
for name in sys.argv[1:]:
    try:
        importlib.import_module(name)
    except Exception as error:
        problems[name] = f"{type(error).__name__}: {error}"
import h5py
print(json.dumps({"problems": problems, "hdf5": h5py.version.hdf5_version}))
"""

Lookup = Callable[[str], str]


def check_installation() -> Iterator[Check]:
    """Check Python and the packages."""
    yield check_python()
    yield check_packages(importlib.metadata.version)
    yield check_imports()


def check_python(version: str = platform.python_version()) -> Check:
    """Check that this Python is one nucleiseg runs on."""
    found = f"{version} ({sys.executable})"
    if [int(part) for part in version.split(".")[:2]] < [3, 11]:
        return failed("Python", found, "use Python 3.11 or later")
    return passed("Python", found)


def check_packages(version_of: Lookup) -> Check:
    """Check that every package is there, in a version that will do.

    Parameters
    ----------
    version_of : callable
        Version of an installed package; raises PackageNotFoundError.
    """
    name = "packages"
    try:
        texts = importlib.metadata.requires("nucleiseg") or []
        problems = _find_problems(texts, version_of)
    except importlib.metadata.PackageNotFoundError:
        return warned(
            name,
            "nucleiseg is not installed, so that nothing says what it needs",
            "run pip install -e . in its folder",
        )
    except ModuleNotFoundError as error:
        problems = [f"{error.name} is missing"]
    if problems:
        return failed(
            name,
            ", ".join(problems),
            "install nucleiseg again, with pip, which gets them",
        )
    return passed(name, f"nucleiseg {version_of('nucleiseg')} and all that it needs")


def _find_problems(texts: list[str], version_of: Lookup) -> list[str]:
    from packaging.requirements import Requirement

    problems = []
    for requirement in map(Requirement, texts):
        is_needed = not requirement.marker or requirement.marker.evaluate({"extra": ""})
        if not is_needed and requirement.name not in _OPTIONAL:
            continue
        try:
            version = version_of(requirement.name)
        except importlib.metadata.PackageNotFoundError:
            if is_needed:
                problems.append(f"{requirement.name} is missing")
            continue
        if not requirement.specifier.contains(version, prereleases=True):
            words = f"{requirement.name} is {version}, not {requirement.specifier}"
            if words not in problems:
                problems.append(words)
    return problems


def check_imports(modules: tuple[str, ...] = _MODULES) -> Check:
    """Check that what is installed can be imported."""
    name = "imports"
    remedy = "install it again: pip install --force-reinstall --no-deps PACKAGE"
    answer = ask([sys.executable, "-c", _IMPORT_ALL, *modules], limit_s=_IMPORT_LIMIT_S)
    if answer.status is None:
        return failed(
            name,
            answer.errors,
            "the file system that holds Python is too slow: install on a faster one",
        )
    found = re.search(r"^\{.*\}$", answer.output, re.M)
    if answer.status != 0 or found is None:
        what = f"signal {-answer.status}, " if answer.status < 0 else ""
        return failed(name, f"{what}{answer.last_words}", remedy)
    facts = json.loads(found[0])
    if facts["problems"]:
        words = "; ".join(f"{key}: {text}" for key, text in facts["problems"].items())
        return failed(name, " ".join(words.split()), remedy)
    return passed(name, f"{len(modules)} libraries, HDF5 {facts['hdf5']} with filters")
