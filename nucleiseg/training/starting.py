"""Training that begins with the weights of a model that is there."""

from nucleiseg.bundle import read_bundle, resolve_for_training
from nucleiseg.config import Config


def resolve_start(config: Config) -> Config:
    """Take network and normalisation from the model that training starts from.

    Raises
    ------
    BundleError
        It cannot be used, or the configuration wants another network.
    """
    if config.training.start_from is None:
        return config
    info = read_bundle(config.training.start_from)
    # A job may start in another folder.
    training = config.training.model_copy(update={"start_from": info.reference})
    resolved = resolve_for_training(config, info)
    return resolved.model_copy(update={"training": training})
