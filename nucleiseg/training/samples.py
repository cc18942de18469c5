"""A picture of what the network is trained on."""

import logging

from nucleiseg.augmentation import changes_values, moves_pixels
from nucleiseg.config import Config
from nucleiseg.dataset import BatchOrder, Labelled, draw_samples
from nucleiseg.report import save_montage
from nucleiseg.runs import TrainRun

logger = logging.getLogger(__name__)

# Each row a crop: as it is stored, then augmented.
_ROWS = 4
_COLUMNS = 5


def save_samples(
    run: TrainRun, config: Config, labelled: Labelled, order: BatchOrder
) -> None:
    """Save a picture of augmented crops with their labels, if anything is changed."""
    settings = config.augmentation
    if not (moves_pixels(settings) or changes_values(settings)):
        return
    samples = draw_samples(
        labelled, order, settings, n_crops=_ROWS, n_epochs=_COLUMNS - 1
    )
    save_montage(run.samples, list(samples), columns=_COLUMNS)
    logger.info("augmented crops are shown in %s", run.samples)
