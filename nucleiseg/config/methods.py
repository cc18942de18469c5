"""Whether nuclei can be found by the method that is set."""

from nucleiseg.config.schema import InstancesConfig, ModelConfig
from nucleiseg.errors import ConfigError


def refuse_unseeded(instances: InstancesConfig, model: ModelConfig) -> None:
    """Refuse a watershed without anything to seed it, before hours of work.

    Raises
    ------
    ConfigError
        The method is `watershed`, and the network gives no marker map.
    """
    if instances.method == "watershed" and model.head == "mask":
        raise ConfigError(
            "instances.method is watershed, and the network gives no marker map to "
            "seed it (model.head mask); set instances.method=auto, or use another model"
        )
