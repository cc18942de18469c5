"""A model bundle, read and checked."""

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from nucleiseg import __version__
from nucleiseg.atomic import read_json, write_json
from nucleiseg.box import find_model, list_models, name_model
from nucleiseg.config import (
    Config,
    InstancesConfig,
    ModelConfig,
    PreprocessConfig,
)
from nucleiseg.errors import BundleError, NucleisegError
from nucleiseg.quality import Calibration
from nucleiseg.runs import Bundle

_FORMAT = 1


@dataclass(frozen=True)
class BundleInfo:
    """A model bundle that was read and checked, without its weights."""

    paths: Bundle
    preprocess: PreprocessConfig
    model: ModelConfig
    instances: InstancesConfig
    weights_sha256: str
    training: dict[str, Any]
    scores: dict[str, Any]

    card: dict[str, Any] = field(default_factory=dict)
    """Name and version, of a model in the box."""
    calibration: Calibration | None = None
    """What validation images say of its nuclei, where they were asked."""
    maps_version: int = 1
    """Of the maps that its thresholds and calibration are for."""

    @property
    def is_outdated(self) -> bool:
        """Whether its thresholds are for other maps than it has now."""
        return self.maps_version != self.model.maps_version

    @property
    def reference(self) -> str:
        """How it is found again: the name of a model in the box, or its folder."""
        return name_model(self.paths.root) or str(self.paths.root)

    @property
    def title(self) -> str:
        """For people: name and version, or folder, and the beginning of its hash."""
        names = [str(self.card[key]) for key in ("name", "version") if key in self.card]
        if name_model(self.paths.root) is None:
            names.append(str(self.paths.root))
        return f"{' '.join(names)} (SHA-256 {self.weights_sha256[:16]}…)"

    @property
    def identity(self) -> str:
        """What a table depends on: weights, normalisation and network."""
        parts = (
            self.weights_sha256,
            self.preprocess.model_dump_json(),
            self.model.model_dump_json(),
        )
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def write_info(
    bundle: Bundle,
    config: Config,
    *,
    training: dict[str, Any],
    scores: dict[str, Any],
) -> None:
    """Write the bundle's JSON file beside weights that are in place.

    Parameters
    ----------
    bundle : Bundle
        Paths; the weights file exists.
    config : Config
        Of the training: normalisation, network and thresholds are kept.
    training, scores : dict
        How it was trained and how well it did, for people to read.
    """
    write_json(
        bundle.info,
        {
            "format": _FORMAT,
            "nucleiseg": __version__,
            "weights_sha256": file_sha256(bundle.weights),
            "preprocess": config.preprocess.model_dump(mode="json"),
            "model": config.model.model_dump(mode="json"),
            "instances": config.instances.model_dump(mode="json"),
            "maps": config.model.maps_version,
            "training": training,
            "scores": scores,
        },
    )


def read_bundle(model: str | Path | None) -> BundleInfo:
    """Read a model bundle and check that its weights are whole.

    Parameters
    ----------
    model : str, Path or None
        Its folder, or the name of a model in the box; None: the default one.

    Raises
    ------
    BundleError
        The folder is no bundle, lacks its weights, or they are damaged.
    """
    bundle = _find(find_model(model))
    try:
        values = read_json(bundle.info)
        if values.get("format") != _FORMAT:
            raise BundleError(
                f"model bundle {bundle.root} has format {values.get('format')!r}, "
                f"this version reads {_FORMAT}; use the nucleiseg that wrote it"
            )
        info = BundleInfo(
            paths=bundle,
            preprocess=PreprocessConfig.model_validate(values["preprocess"]),
            model=ModelConfig.model_validate(
                # Bundles of before there were others.
                {"head": "mask", **values["model"]}
            ),
            instances=InstancesConfig.model_validate(values["instances"]),
            weights_sha256=str(values["weights_sha256"]),
            training=values["training"],
            scores=values["scores"],
            card=values.get("card", {}),
            calibration=_read_calibration(values),
            maps_version=int(values.get("maps", 1)),
        )
    except BundleError:
        raise
    except (
        NucleisegError,
        ValidationError,
        KeyError,
        AttributeError,
        TypeError,
        ValueError,
        IndexError,
    ) as error:
        cause = " ".join(str(error).split())
        raise BundleError(
            f"{bundle.info} is damaged ({cause}); copy the bundle again or train anew"
        ) from error
    found = file_sha256(bundle.weights)
    if found != info.weights_sha256:
        raise BundleError(
            f"{bundle.weights} is damaged: SHA-256 {found[:12]}…, expected "
            f"{info.weights_sha256[:12]}…; copy the bundle again or train anew"
        )
    return info


def _read_calibration(values: dict[str, Any]) -> Calibration | None:
    found = values.get("calibration")
    return None if found is None else Calibration.from_dict(found)


def _find(folder: Path) -> Bundle:
    if folder.is_file():
        raise BundleError(
            f"model bundle {folder} is a file; use the folder that holds it, "
            f"{folder.parent}"
        )
    if not folder.is_dir():
        raise BundleError(
            f"model bundle {folder} not found; --model takes the folder 'model' that "
            "a training leaves in its run directory, or a model in the box: "
            f"{', '.join(list_models())}"
        )
    bundle = Bundle(folder)
    # The natural slip: naming the training's directory instead of the model in it.
    if not bundle.info.exists() and Bundle(folder / "model").info.exists():
        raise BundleError(
            f"{folder} is a training's run directory; use --model {folder / 'model'}"
        )
    for path, role in ((bundle.weights, "weights"), (bundle.info, "description")):
        if not path.is_file():
            raise BundleError(
                f"model bundle {folder} has no {path.name} (its {role}); copy the "
                "whole folder again or train anew"
            )
    return bundle


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's content, in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
