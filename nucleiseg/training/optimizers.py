"""Optimisers and learning rates, all of whose state is in the optimiser's variables."""

from typing import Any

from nucleiseg.config import TrainingConfig
from nucleiseg.devices import import_tensorflow
from nucleiseg.errors import ConfigError


def make_optimizer(
    training: TrainingConfig, weights: list[Any], *, precision: str, n_steps: int
) -> Any:
    """Make and build an optimiser for gradients that are summed over all replicas.

    Parameters
    ----------
    training : TrainingConfig
    weights : list of keras.Variable
        What is trained.
    precision : {"float32", "bfloat16", "float16"}
        float16 has its loss scaled.
    n_steps : int
        Of the whole training; a schedule ends with it.

    Returns
    -------
    keras.optimizers.Optimizer
    """
    import_tensorflow()
    import keras

    settings: dict[str, Any] = {
        "learning_rate": _learning_rate(training, n_steps),
        "global_clipnorm": training.clip_norm,
    }
    kinds = {
        "rmsprop": keras.optimizers.RMSprop,
        "adam": keras.optimizers.Adam,
        "adamw": keras.optimizers.AdamW,
    }
    if training.optimizer == "adamw":
        settings["weight_decay"] = training.weight_decay
    optimizer = kinds[training.optimizer](**settings)
    if training.optimizer == "adamw":
        optimizer.exclude_from_weight_decay(var_names=["bias"])
    _expect_summed(optimizer)
    if precision == "float16":
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    # Loading variables into an optimiser that is not built is skipped silently.
    optimizer.build(weights)
    return optimizer


def _learning_rate(training: TrainingConfig, n_steps: int) -> Any:
    """Make the learning rate: a number, or a function of the optimiser's iterations."""
    import keras

    if training.schedule == "constant" and not training.warmup_steps:
        return training.learning_rate
    if training.warmup_steps >= n_steps:
        raise ConfigError(
            f"training.warmup_steps {training.warmup_steps} leaves nothing of the "
            f"{n_steps} steps of {training.epochs} epochs; lower it or raise "
            "training.epochs"
        )
    is_constant = training.schedule == "constant"
    return keras.optimizers.schedules.CosineDecay(
        0.0 if training.warmup_steps else training.learning_rate,
        # Along a cosine that falls to where it began, it is constant.
        decay_steps=1 if is_constant else n_steps - training.warmup_steps,
        alpha=1.0 if is_constant else 0.0,
        warmup_target=training.learning_rate if training.warmup_steps else None,
        warmup_steps=training.warmup_steps,
    )


def _expect_summed(optimizer: Any) -> None:
    """Have an optimiser take gradients as they are.

    Keras sums them over the replicas last of all: each replica would clip the gradient
    of its own part, and skip a step for an overflow (float16) that others did not have.
    """
    name = "_all_reduce_sum_gradients"
    assert hasattr(optimizer, name), "Keras sums gradients elsewhere now"
    setattr(optimizer, name, lambda gradients_and_variables: gradients_and_variables)
