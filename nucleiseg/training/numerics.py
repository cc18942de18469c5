"""How TensorFlow computes, the same in every process of a training.

One that resumes only to score the model is set up as the one that trained it.
"""

from typing import Literal

from nucleiseg.devices import find_device, import_tensorflow


def choose_device(wanted: Literal["auto", "cpu", "gpu"]) -> Literal["cpu", "gpu"]:
    """Choose the device, and see to it that nothing is placed on another one.

    Raises
    ------
    NucleisegError
        A GPU was asked for, or granted, and TensorFlow sees none.
    """
    device = find_device(wanted, setting="training.device")
    if device == "cpu":
        # A network would be placed on a GPU that is there.
        import_tensorflow().config.set_visible_devices([], "GPU")
    return device


def settle_numerics(precision: str, *, deterministic: bool) -> None:
    """Have TensorFlow compute in a precision, and the same each time if wanted."""
    tensorflow = import_tensorflow()
    if precision == "float32":
        # Ampere and later GPUs would round to 10 bits and call it float32.
        tensorflow.config.experimental.enable_tensor_float_32_execution(False)
    if deterministic:
        tensorflow.config.experimental.enable_op_determinism()
