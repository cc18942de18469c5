"""The compiled steps: one batch of training, one batch of validation."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nucleiseg.bundle import read_bundle
from nucleiseg.config import Config
from nucleiseg.dataset import N_CHANNELS
from nucleiseg.devices import import_tensorflow
from nucleiseg.errors import ConfigError, RunError
from nucleiseg.model import build_unet, image_accuracies, image_losses, set_weights
from nucleiseg.training.numerics import settle_numerics
from nucleiseg.training.optimizers import make_optimizer
from nucleiseg.training.replicas import Replicas


@dataclass(frozen=True)
class Sums:
    """What is added up over the batches of an epoch; tensors, so that nobody waits."""

    values: Any
    """(3,) float64: loss and accuracy over the images, and how many they are."""
    faults: Any
    """(2,) int64: the first step whose loss, whose gradient was not finite; else -1."""

    @classmethod
    def start(cls, values: NDArray[np.float64] | None = None) -> "Sums":
        """Give the sums at an epoch's start, or those of a checkpoint."""
        constant = import_tensorflow().constant
        start = np.zeros(3) if values is None else values
        return cls(constant(start, dtype="float64"), constant([-1, -1], dtype="int64"))

    def mean(self) -> tuple[float, float]:
        """Loss and accuracy, the mean over the images."""
        loss, accuracy, n_images = self.to_numpy()
        return float(loss / n_images), float(accuracy / n_images)

    def to_numpy(self) -> NDArray[np.float64]:
        """Wait for the steps so far, and give the values."""
        return np.asarray(self.values.numpy())


class Machine:
    """Network and optimiser on the replicas, and the steps compiled for them.

    Parameters
    ----------
    config : Config
    replicas : Replicas
    precision : {"float32", "bfloat16", "float16"}
    image_shape : (int, int)
    n_steps : int
        Of the whole training.
    """

    def __init__(
        self,
        config: Config,
        replicas: Replicas,
        *,
        precision: str,
        image_shape: tuple[int, int],
        n_steps: int,
    ) -> None:
        import_tensorflow()
        import keras

        training = config.training
        if training.xla and replicas.count > 1:
            raise ConfigError(
                f"training.xla compiles for one replica, not {replicas.count}: "
                "TensorFlow cannot reach the other replicas' variables from compiled "
                "code; set training.xla=false or training.replicas=1"
            )
        self._config = config
        self._replicas = replicas
        self._decay = training.ema_decay
        self._is_scaled = precision == "float16"
        settle_numerics(precision, deterministic=training.deterministic)
        keras.utils.set_random_seed(training.seed)
        with replicas.scope():
            self.network = build_unet(
                config.model, precision=precision, image_shape=image_shape
            )
            if training.start_from is not None:
                set_weights(self.network, read_bundle(training.start_from))
            self._optimizer = make_optimizer(
                training,
                self.network.trainable_variables,
                precision=precision,
                n_steps=n_steps,
            )
        self._averages = self._make_averages()
        self._compile(training.xla, image_shape)

    def _make_averages(self) -> list[Any]:
        """Make a variable for the running average of each weight, if there is one."""
        if self._decay is None:
            return []
        # Plain variables, outside of the scope: one copy is enough for all replicas.
        tensorflow = import_tensorflow()
        return [
            tensorflow.Variable(weight.numpy(), trainable=False)
            for weight in self.network.weights
        ]

    def _compile(self, xla: bool, image_shape: tuple[int, int]) -> None:
        tensorflow = import_tensorflow()
        compiled = tensorflow.function(
            self._train, jit_compile=True if xla else None, autograph=False
        )
        checked = tensorflow.function(
            self._check, jit_compile=True if xla else None, autograph=False
        )
        if self._replicas.strategy is None and not xla:
            # The last, smaller batch of an epoch must not compile the step anew.
            image = tensorflow.TensorSpec((None, *image_shape, 1), "float32")
            n_channels = N_CHANNELS[self._config.model.head]
            target = tensorflow.TensorSpec((None, *image_shape, n_channels), "float32")
            batch = (image, target, tensorflow.TensorSpec((None,), "float32"))
            sums = tensorflow.TensorSpec((3,), "float64")
            integers = tensorflow.TensorSpec((2,), "int64")
            number = tensorflow.TensorSpec((), "int64")
            compiled = compiled.get_concrete_function(sums, integers, number, batch)
            checked = checked.get_concrete_function(sums, batch)
        self._compiled, self._checked = compiled, checked

    def train(self, sums: Sums, step: int, batch: Any) -> Sums:
        """Do step number `step`, counted from 0, with a batch from `feed`."""
        number = import_tensorflow().constant(step, dtype="int64")
        return Sums(*self._compiled(sums.values, sums.faults, number, batch))

    def check(self, sums: Sums, batch: Any) -> Sums:
        """Add up loss and accuracy of a batch from `feed`; nothing is learnt."""
        return Sums(self._checked(sums.values, batch), sums.faults)

    # --- state ---

    @property
    def _variables(self) -> list[Any]:
        """Weights, then dropout's random state, optimiser, averaged weights."""
        weights = list(self.network.weights)
        known = {id(variable) for variable in weights}
        others = [v for v in self.network.variables if id(v) not in known]
        optimizer = list(self._optimizer.variables)
        return [*weights, *others, *optimizer, *self._averages]

    def state(self) -> list[NDArray[Any]]:
        """Copy all that the next step depends on, beside its batch."""
        return [np.array(variable.numpy()) for variable in self._variables]

    def restore(self, state: list[NDArray[Any]]) -> None:
        """Set all that :meth:`state` gave.

        Raises
        ------
        RunError
            It is that of another network or optimiser.
        """
        shapes = [tuple(variable.shape) for variable in self._variables]
        if shapes != [value.shape for value in state]:
            raise RunError(
                f"the checkpoint holds {len(state)} variables of another network, "
                f"expected {len(shapes)}; use another --run"
            )
        for variable, value in zip(self._variables, state, strict=True):
            variable.assign(value)

    def kept_weights(self) -> list[NDArray[Any]]:
        """Copy the weights that are validated and become the model."""
        source = self._averages or self.network.weights
        return [np.array(variable.numpy()) for variable in source]

    @contextlib.contextmanager
    def averaged(self) -> Iterator[None]:
        """Have the network use the averaged weights, where there are some."""
        if not self._averages:
            yield
            return
        own = [weight.numpy() for weight in self.network.weights]
        self.network.set_weights(self.kept_weights())
        try:
            yield
        finally:
            self.network.set_weights(own)

    # --- what is compiled ---

    def _train(self, values: Any, faults: Any, step: Any, batch: Any) -> Any:
        tensorflow = import_tensorflow()
        figures, norm = self._run(self._learn, batch)
        for variable, weight in zip(self._averages, self.network.weights, strict=False):
            # At first the average follows quickly, or it would long be what the
            # network was before it learnt anything.
            done = tensorflow.cast(step, "float32")
            share = 1 - tensorflow.minimum(self._decay, (1 + done) / (10 + done))
            variable.assign_add(share * (weight.value - variable))
        is_finite = tensorflow.math.is_finite(tensorflow.stack([figures[0], norm]))
        faults = tensorflow.where((faults < 0) & ~is_finite, step, faults)
        return _add(values, figures), faults

    def _check(self, values: Any, batch: Any) -> Any:
        figures, _ = self._run(self._look, batch)
        return _add(values, figures)

    def _run(self, function: Any, batch: Any) -> tuple[Any, Any]:
        """Run on each replica; give the figures of the whole batch."""
        strategy = self._replicas.strategy
        if strategy is None:
            figures, norm = function(*batch)
            return figures, norm
        per_replica, norms = strategy.run(function, args=batch)
        figures = strategy.reduce("SUM", per_replica, axis=None)
        # Of the summed gradient, which is the same on all.
        return figures, strategy.experimental_local_results(norms)[0]

    def _learn(self, images: Any, targets: Any, weights: Any) -> tuple[Any, Any]:
        tensorflow = import_tensorflow()
        trained = self.network.trainable_variables
        with tensorflow.GradientTape() as tape:
            output = self.network(images, training=True)
            losses = self._losses(targets, output)
            loss = tensorflow.reduce_sum(losses * weights)
            # In float16, not to lose what is small.
            scaled = self._optimizer.scale_loss(loss)
        gradients = tape.gradient(scaled, [variable.value for variable in trained])
        context = tensorflow.distribute.get_replica_context()
        if self._replicas.strategy is not None:
            gradients = context.all_reduce("SUM", gradients)
        self._optimizer.apply(gradients, trained)
        # Scaled ones overflow now and then, and the step is skipped.
        norm = 0.0 if self._is_scaled else tensorflow.linalg.global_norm(gradients)
        return self._figures(targets, output, losses, weights), norm

    def _look(self, images: Any, targets: Any, weights: Any) -> tuple[Any, Any]:
        output = self.network(images, training=False)
        losses = self._losses(targets, output)
        return self._figures(targets, output, losses, weights), 0.0

    def _losses(self, targets: Any, output: Any) -> Any:
        head = self._config.model.head
        return image_losses(targets, output, head=head, settings=self._config.training)

    def _figures(self, targets: Any, output: Any, losses: Any, weights: Any) -> Any:
        """Weighted loss and accuracy of a replica's images, and how many they are."""
        tensorflow = import_tensorflow()
        head = self._config.model.head
        accuracies = image_accuracies(targets, output, head=head)
        n_images = tensorflow.math.count_nonzero(weights, dtype="float32")
        return tensorflow.stack(
            [
                tensorflow.reduce_sum(losses * weights),
                tensorflow.reduce_sum(accuracies * weights),
                n_images,
            ]
        )


def _add(values: Any, figures: Any) -> Any:
    tensorflow = import_tensorflow()
    loss, accuracy, n_images = tensorflow.unstack(tensorflow.cast(figures, "float64"))
    return values + tensorflow.stack([loss * n_images, accuracy * n_images, n_images])
