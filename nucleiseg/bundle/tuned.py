"""A bundle with other thresholds: in its own place, or a copy of it."""

import shutil
from pathlib import Path
from typing import Any

from nucleiseg.atomic import atomic_path, create_private, read_json, write_json
from nucleiseg.box import name_model
from nucleiseg.bundle.reading import BundleInfo, read_bundle
from nucleiseg.config import InstancesConfig
from nucleiseg.errors import BundleError
from nucleiseg.quality import Calibration
from nucleiseg.runs import Bundle


def find_tuned(info: BundleInfo, out: Path | None) -> Bundle:
    """Find where a bundle with other thresholds goes: to itself, or to a copy.

    Raises
    ------
    BundleError
        The bundle is one in the box, or the folder holds something.
    """
    if out is None and name_model(info.paths.root) is not None:
        raise BundleError(
            f"{info.paths.root.name} is a model in the box, which stays as it is; name "
            "a folder for a copy with the new thresholds (--out)"
        )
    if out is None:
        return info.paths
    target = Bundle(out.absolute())
    if target.root.exists() and any(target.root.iterdir()):
        raise BundleError(f"{out} holds something already; name another folder")
    return target


def write_tuned(
    info: BundleInfo,
    instances: InstancesConfig,
    tuning: dict[str, Any],
    *,
    calibration: Calibration | None = None,
    out: Path | None = None,
) -> BundleInfo:
    """Store other thresholds and what they are worth, in a bundle or a copy of it.

    Parameters
    ----------
    info : BundleInfo
    instances : InstancesConfig
    tuning : dict
        How they were chosen, for people to read.
    calibration : Calibration, optional
        Of nuclei made with them; without one the bundle has none any more.
    out : Path, optional
        Folder of the copy, new or empty.

    Raises
    ------
    BundleError
        See :func:`find_tuned`.
    """
    target = find_tuned(info, out)
    if out is not None:
        create_private(target.root)
        with atomic_path(target.weights) as temporary:
            shutil.copyfile(info.paths.weights, temporary)
    values = read_json(info.paths.info)
    values.update(instances=instances.model_dump(mode="json"), tuning=tuning)
    values["calibration"] = calibration and calibration.as_dict()
    values["maps"] = info.model.maps_version
    if out is not None:
        values.pop("card", None)
    write_json(target.info, values)
    return read_bundle(target.root)
