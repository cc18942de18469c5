"""Status of any run."""

from pathlib import Path

from nucleiseg.monitoring.counts import (
    CountStatus,
    is_count,
    read_count_status,
    refuse_unknown,
)
from nucleiseg.monitoring.trainings import (
    TrainStatus,
    is_training,
    read_train_status,
)


def read_status(root: Path, *, now_s: float) -> CountStatus | TrainStatus:
    """Read how far a run is, whatever it is.

    Parameters
    ----------
    root : Path
        The run directory.
    now_s : float
        Seconds since the epoch.

    Raises
    ------
    RunError
        It is no run's directory.
    """
    if is_count(root):
        return read_count_status(root, now_s=now_s)
    if not is_training(root):
        refuse_unknown(root)
    return read_train_status(root, now_s=now_s)
