"""The model bundle: what a trained network needs to be used rightly elsewhere."""

import hashlib
import logging
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from nucleiseg import __version__
from nucleiseg.atomic import atomic_path, create_private, read_json, write_json
from nucleiseg.box import find_model, list_models, name_model
from nucleiseg.config import (
    Config,
    InstancesConfig,
    ModelConfig,
    PreprocessConfig,
    refuse_unseeded,
)
from nucleiseg.errors import BundleError, NucleisegError
from nucleiseg.quality import Calibration
from nucleiseg.runs import Bundle

logger = logging.getLogger(__name__)

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
    if out is not None:
        values.pop("card", None)
    write_json(target.info, values)
    return read_bundle(target.root)


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's content, in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def resolve_for_counting(config: Config, info: BundleInfo) -> Config:
    """Complete a count run's configuration from the model bundle.

    The network is the bundle's. So is the normalisation, and a configuration that
    says otherwise is refused. Thresholds are the bundle's unless the user set them.

    Raises
    ------
    BundleError
        The configuration wants another normalisation than the bundle's, or scaling by
        a diameter that the bundle does not have.
    ConfigError
        It wants a watershed, and the network gives no marker map.
    """
    kept = info.preprocess.model_dump(mode="json")
    for key, value in config.explicit("preprocess").items():
        if kept[key] != value:
            raise BundleError(
                f"preprocess.{key} is {value!r} in the configuration, but the model "
                f"bundle {info.paths.root} was trained with {kept[key]!r}; remove the "
                "setting, or train with it"
            )
    if config.inference.diameter_px is not None and info.preprocess.diameter_px is None:
        raise BundleError(
            f"inference.diameter_px is {config.inference.diameter_px:g}, but the model "
            f"bundle {info.paths.root} was trained on images of any scale; remove the "
            "setting (--diameter), or train with preprocess.diameter_px"
        )
    if unused := _differing(config.explicit("model"), info.model):
        logger.warning(
            "%s in the configuration is not used: the network comes from %s",
            ", ".join(f"model.{key}" for key in unused),
            info.paths.root,
        )
    instances = info.instances.model_copy(update=config.explicit("instances"))
    refuse_unseeded(instances, info.model)
    return config.model_copy(
        update={
            "preprocess": info.preprocess,
            "model": info.model,
            "instances": instances,
        }
    )


def resolve_for_training(config: Config, info: BundleInfo) -> Config:
    """Complete the configuration of a training that starts from a bundle's weights.

    Network and normalisation are the bundle's, and so are the thresholds unless set.

    Raises
    ------
    BundleError
        The configuration wants another network or normalisation.
    """
    kept = {
        "preprocess": info.preprocess.model_dump(mode="json"),
        "model": info.model.model_dump(mode="json"),
    }
    for section, values in kept.items():
        for key, value in config.explicit(section).items():
            # Dropout is no part of the weights.
            if key != "dropout" and values[key] != value:
                raise BundleError(
                    f"{section}.{key} is {value!r} in the configuration, but training "
                    f"starts from {info.paths.root}, which has {values[key]!r}; remove "
                    "the setting, or start from random weights"
                )
    model = info.model.model_copy(
        update={
            key: value
            for key, value in config.explicit("model").items()
            if key == "dropout"
        }
    )
    instances = info.instances.model_copy(update=config.explicit("instances"))
    return config.model_copy(
        update={"preprocess": info.preprocess, "model": model, "instances": instances}
    )


def _differing(explicit: dict[str, Any], kept: ModelConfig) -> list[str]:
    values = kept.model_dump(mode="json")
    return [key for key, value in explicit.items() if values[key] != value]
