"""What of a configuration comes from the bundle, and what may differ from it."""

import logging
from typing import Any

from nucleiseg.bundle.reading import BundleInfo
from nucleiseg.config import Config, ModelConfig, refuse_unseeded
from nucleiseg.errors import BundleError

logger = logging.getLogger(__name__)


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
    if instances.views > 1 and "views" not in config.explicit("instances"):
        logger.info(
            "the model will take the mean over %d views of each image, as %s does; "
            "instances.views=1 makes it %d times as fast",
            *(instances.views, info.paths.root, instances.views),
        )
    return config.model_copy(
        update={"preprocess": info.preprocess, "model": model, "instances": instances}
    )


def _differing(explicit: dict[str, Any], kept: ModelConfig) -> list[str]:
    values = kept.model_dump(mode="json")
    return [key for key, value in explicit.items() if values[key] != value]
