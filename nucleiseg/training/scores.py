"""How well a freshly trained network counts its validation images."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nucleiseg.config import AugmentationConfig, Config
from nucleiseg.dataset import BatchOrder, Gatherer, Labelled
from nucleiseg.errors import StoppedError
from nucleiseg.instances import label_nuclei
from nucleiseg.metrics import count_instances, count_scores
from nucleiseg.model import add_prediction, average_views, build_unet, predict
from nucleiseg.training.numerics import settle_numerics

_BATCH_SIZE = 4
_CROPS_AT_ONCE = 64


def score_counts(
    config: Config,
    weights: list[NDArray[Any]],
    labelled: Labelled,
    must_stop: Callable[[], bool],
) -> dict[str, Any]:
    """Count the validation crops in float32 and compare with their labels.

    Returns
    -------
    dict
        Figures of :class:`nucleiseg.metrics.CountScores`. The labels of a source
        whose only value above 0 is 1, or 255, are masks: their nuclei are the connected
        components, which takes touching ones as one.

    Raises
    ------
    StoppedError
        `must_stop`, which is asked after each batch, said so.
    """

    def check() -> None:
        if must_stop():
            raise StoppedError(
                f"stopped while scoring the model of {config.training.epochs} epochs, "
                "as asked; the same command begins that anew"
            )

    # Whatever the training computed in, and whether it was in this process.
    settle_numerics("float32", deterministic=config.training.deterministic)
    network = build_unet(config.model)
    network.set_weights(weights)
    network = average_views(
        add_prediction(network, config.model), config.instances.views
    )
    part = labelled.validation
    order = BatchOrder(part.n_crops, _CROPS_AT_ONCE, shuffle=False, seed=0)
    store = labelled.make_store(part, order, first_batch=0, n_batches=order.n_batches)
    gatherer = Gatherer(labelled, part, order, store, AugmentationConfig())
    predicted: list[int] = []
    true: list[NDArray[Any]] = []
    for batch in range(order.n_batches):
        images, labels = gatherer.gather_labels(batch)
        stack = predict(network, images, batch_size=_BATCH_SIZE, after_batch=check)
        predicted += [
            int(label_nuclei(maps, config.instances).max(initial=0)) for maps in stack
        ]
        crops = part.crop_images[order.indices(batch)]
        are_masks = np.array([labelled.is_mask(int(image)) for image in crops])
        true.append(_true_counts(labels, are_masks, config))
    truth = np.concatenate(true)
    scores = count_scores(np.array(predicted), truth)
    return {
        "n_images": scores.n_images,
        "true_total": scores.true_total,
        "predicted_total": scores.predicted_total,
        # Undefined figures, of images without any nucleus, are null in JSON.
        **{
            name: value if math.isfinite(value) else None
            for name in ("mae", "mape", "count_error", "bias", "exact")
            for value in [round(getattr(scores, name).value, 4)]
        },
    }


def _true_counts(
    labels: NDArray[Any], are_masks: NDArray[np.bool_], config: Config
) -> NDArray[np.int64]:
    """Count the nuclei of crops (N, H, W), each by what its labels are."""
    counts = np.empty(len(labels), dtype=np.int64)
    instances = labels[~are_masks].astype(np.int64)
    counts[~are_masks] = count_instances(instances, config.instances.min_area_px)
    # A mask is a certain probability map: label it by the same rules.
    settings = config.instances.model_copy(update={"method": "components"})
    certain = (labels[are_masks] > 0).astype(np.float32)[..., np.newaxis]
    counts[are_masks] = [
        label_nuclei(maps, settings).max(initial=0) for maps in certain
    ]
    return counts
