"""The network's weights in a model bundle, and in a computation type."""

from typing import Any

from numpy.typing import NDArray

from nucleiseg.atomic import atomic_path
from nucleiseg.bundle import BundleInfo
from nucleiseg.config import ModelConfig
from nucleiseg.devices import import_tensorflow
from nucleiseg.errors import BundleError
from nucleiseg.model.rounding import round_kernel
from nucleiseg.model.unet import add_prediction, build_unet
from nucleiseg.model.views import average_views
from nucleiseg.runs import Bundle


def save_weights(
    bundle: Bundle, settings: ModelConfig, weights: list[NDArray[Any]]
) -> None:
    """Save a network as `model.keras`, in float32 whatever it was trained in."""
    network = build_unet(settings)
    network.set_weights(weights)
    with atomic_path(bundle.weights) as temporary:
        network.save(temporary)


def load_network(
    info: BundleInfo, *, precision: str = "float32", views: int = 1
) -> Any:
    """Load a bundle's network for prediction in a computation type.

    Parameters
    ----------
    info : BundleInfo
    precision : {"float32", "bfloat16", "float16"}
    views : {1, 2, 4}
        Views of an image that its maps are the mean of.

    Returns
    -------
    keras.Model
        See :func:`nucleiseg.model.add_prediction`.

    Raises
    ------
    BundleError
        The weights do not belong to the network that the bundle describes.
    """
    network = build_unet(info.model, precision=precision)
    set_weights(network, info)
    _round_kernels(network, precision)
    return average_views(add_prediction(network, info.model), views)


def set_weights(network: Any, info: BundleInfo) -> None:
    """Give a network the weights of a bundle.

    Raises
    ------
    BundleError
        They are those of another network.
    """
    import_tensorflow()
    import keras

    try:
        saved = keras.models.load_model(info.paths.weights, compile=False)
        network.set_weights(saved.get_weights())
    except (ValueError, OSError, TypeError, KeyError) as error:
        raise BundleError(
            f"{info.paths.weights} does not hold the network that {info.paths.info} "
            f"describes ({' '.join(str(error).split())[:200]}); train anew"
        ) from error


def _round_kernels(network: Any, precision: str) -> None:
    """Round the kernels of the layers that compute in a type of 16 bits."""
    if precision == "float32":
        return
    dtype = import_tensorflow().as_dtype(precision).as_numpy_dtype
    for layer in network.layers:
        if layer.weights and layer.compute_dtype == precision:
            kernel, bias = layer.get_weights()
            layer.set_weights([round_kernel(kernel, dtype), bias])
