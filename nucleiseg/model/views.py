"""A network that looks at an image from several sides, and takes the mean."""

from typing import Any

from nucleiseg.devices import import_tensorflow

_ROWS, _COLUMNS = 1, 2
# Of a batch (N, H, W, C), the axes that each view is mirrored along. Sides may differ,
# so that quarter turns would give another shape to compile.
_VIEWS = ((), (_ROWS, _COLUMNS), (_COLUMNS,), (_ROWS,))


def average_views(network: Any, n_views: int) -> Any:
    """Make the network whose maps are the mean over views of the image.

    Nothing in the images that are counted says which side is up, and a network's
    mistakes depend on it: they average out.

    Parameters
    ----------
    network : keras.Model
        (N, H, W, 1) to maps (N, H, W, C).
    n_views : {1, 2, 4}
        1 is the image itself; 2, turned by half, too; 4, mirrored both ways, too.

    Returns
    -------
    keras.Model
        The network itself for one view. Weights are shared.

    Raises
    ------
    ValueError
        Another number of views.
    """
    import keras

    if n_views not in (1, 2, 4):
        raise ValueError(f"views is {n_views}, expected 1, 2 or 4")
    if n_views == 1:
        return network
    image = network.inputs[0]
    follow = _make_follower()
    outputs = [network(image)]
    for axes in _VIEWS[1:n_views]:
        mirrored = keras.ops.flip(follow(image, outputs[-1]), axis=axes)
        outputs.append(keras.ops.flip(network(mirrored), axis=axes))
    return keras.Model(image, sum(outputs[1:], outputs[0]) / n_views, name="views")


def _make_follower() -> Any:
    """Make a layer that passes an image on once the maps of the view before are there.

    TensorFlow would have all views under way at once, and hold what each needs.
    """
    import keras

    tensorflow = import_tensorflow()

    class Follow(keras.layers.Layer):  # type: ignore[misc]
        def call(self, image: Any, maps: Any) -> Any:
            with tensorflow.control_dependencies([maps]):
                return tensorflow.identity(image)

    return Follow()
