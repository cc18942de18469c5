"""The model bundle: what a trained network needs to be used rightly elsewhere."""

import hashlib
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from nucleiseg import __version__
from nucleiseg.config import (
    Config,
    InstancesConfig,
    ModelConfig,
    PreprocessConfig,
)
from nucleiseg.errors import BundleError, NucleisegError
from nucleiseg.runs import Bundle, read_json, write_json

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


def read_bundle(folder: Path) -> BundleInfo:
    """Read a model bundle and check that its weights are whole.

    Raises
    ------
    BundleError
        The folder is no bundle, lacks its weights, or they are damaged.
    """
    bundle = _find(folder)
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
        )
    except BundleError:
        raise
    except (
        NucleisegError,
        ValidationError,
        KeyError,
        AttributeError,
        TypeError,
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


def _find(folder: Path) -> Bundle:
    if folder.is_file():
        raise BundleError(
            f"model bundle {folder} is a file; use the folder that holds it, "
            f"{folder.parent}"
        )
    if not folder.is_dir():
        raise BundleError(
            f"model bundle {folder} not found; --model takes the folder 'model' that "
            "a training leaves in its run directory"
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


def resolve_for_counting(config: Config, info: BundleInfo) -> Config:
    """Complete a count run's configuration from the model bundle.

    The network is the bundle's. So is the normalisation, and a configuration that
    says otherwise is refused. Thresholds are the bundle's unless the user set them.

    Raises
    ------
    BundleError
        The configuration wants another normalisation than the bundle's, or scaling by
        a diameter that the bundle does not have.
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
    return config.model_copy(
        update={
            "preprocess": info.preprocess,
            "model": info.model,
            "instances": instances,
        }
    )


def _differing(explicit: dict[str, Any], kept: ModelConfig) -> list[str]:
    values = kept.model_dump(mode="json")
    return [key for key, value in explicit.items() if values[key] != value]
