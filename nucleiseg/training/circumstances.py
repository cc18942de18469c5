"""What the bits of a training depend on beside configuration and data."""

import logging
from dataclasses import asdict, dataclass

from nucleiseg.config import Config
from nucleiseg.devices import (
    available_cores,
    find_models,
    find_precision,
    import_tensorflow,
    uses_onednn,
)
from nucleiseg.errors import RunError
from nucleiseg.runs import TrainRun
from nucleiseg.training.replicas import Replicas

logger = logging.getLogger(__name__)

_PLURALS = ("replicas", "threads")
_NAMES = {
    "xla": "training.xla",
    "deterministic": "training.deterministic",
    "model": "the device's model",
    "onednn": "oneDNN",
    "tensorflow": "TensorFlow",
    "keras": "Keras",
}


@dataclass(frozen=True)
class Circumstances:
    """What computes; what is None was not noted by an earlier nucleiseg."""

    replicas: int
    device: str
    precision: str
    threads: int
    tensorflow: str
    keras: str
    xla: bool | None = None
    deterministic: bool | None = None
    model: str | None = None
    """Of the CPU or the GPUs: libraries choose other kernels for another one."""
    onednn: bool | None = None
    """Whether a CPU computes with oneDNN."""


def find_circumstances(config: Config, replicas: Replicas) -> Circumstances:
    """Find what computes in this process."""
    tensorflow = import_tensorflow()
    import keras

    training = config.training
    threads = tensorflow.config.threading.get_intra_op_parallelism_threads()
    models = find_models(replicas.device)
    if replicas.device == "gpu":
        models = models[: replicas.count]
    return Circumstances(
        replicas=replicas.count,
        device=replicas.device,
        precision=find_precision(training.precision, replicas.device),
        threads=threads or available_cores(),
        tensorflow=tensorflow.__version__,
        keras=keras.__version__,
        xla=training.xla,
        deterministic=training.deterministic,
        model=", ".join(dict.fromkeys(models)),
        onednn=uses_onednn() if replicas.device == "cpu" else None,
    )


def compare_circumstances(
    before: Circumstances, now: Circumstances, run: TrainRun
) -> None:
    """Say what makes a training that goes on differ from an undisturbed one.

    Raises
    ------
    RunError
        It would go on in another precision.
    """
    if before.precision != now.precision:
        raise RunError(
            f"{run.root} was trained in {before.precision} so far, and this machine "
            f"would go on in {now.precision}; set training.precision="
            f"{before.precision} or use another --run"
        )
    known, found = asdict(before), asdict(now)
    changes = [
        f"{name} were {known[name]} and are now {value}"
        if name in _PLURALS
        else f"{_NAMES.get(name, name)} was {known[name]} and is now {value}"
        for name, value in found.items()
        if known[name] not in (None, value)
    ]
    if changes:
        logger.warning(
            "going on under other circumstances: %s; the result is as good, but no "
            "longer bit for bit that of an undisturbed training",
            "; ".join(changes),
        )
