"""What TensorFlow sees, asked in a process of its own, which may hang or die."""

import json
import re
import sys
from dataclasses import dataclass
from typing import Any

from nucleiseg.doctor.check import ask

# From a cold network file system it has taken two minutes.
LIMIT_S = 240.0


@dataclass(frozen=True)
class Sight:
    """TensorFlow, and its GPUs."""

    version: str | None
    """None: it could not be imported."""
    gpus: tuple[str, ...] = ()
    problem: str | None = None


def ask_tensorflow(limit_s: float = LIMIT_S) -> Sight:
    """Ask TensorFlow for its version and GPUs, and have it compute on one."""
    answer = ask([sys.executable, "-m", __name__], limit_s=limit_s)
    found = re.search(r"^\{.*\}$", answer.output, re.M)
    problem = answer.last_words if answer.status != 0 else None
    if problem is not None and answer.status is not None and answer.status < 0:
        problem = f"it was killed by signal {-answer.status}"
    if found is None:
        return Sight(None, problem=problem or "it said nothing")
    facts = json.loads(found[0])
    return Sight(facts["version"], tuple(facts["gpus"]), problem)


def _look() -> None:
    from nucleiseg.devices import import_tensorflow
    from nucleiseg.errors import NucleisegError

    try:
        tensorflow: Any = import_tensorflow()
    except NucleisegError as error:
        raise SystemExit(str(error)) from error
    gpus = tensorflow.config.list_physical_devices("GPU")
    names = [
        tensorflow.config.experimental.get_device_details(gpu).get(
            "device_name", gpu.name
        )
        for gpu in gpus
    ]
    facts = {"version": tensorflow.__version__, "gpus": names}
    sys.stdout.write(f"{json.dumps(facts)}\n")
    sys.stdout.flush()
    if gpus:
        # Only when something is computed does it show that driver and cuDNN fit.
        image = tensorflow.ones((1, 16, 16, 1))
        kernel = tensorflow.ones((3, 3, 1, 1))
        tensorflow.nn.conv2d(image, kernel, 1, "SAME").numpy()


if __name__ == "__main__":
    _look()
