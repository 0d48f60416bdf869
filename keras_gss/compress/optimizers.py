"""Adam with the weight decay that the authors finetune with, for both libraries."""

import functools
from collections.abc import Sequence
from typing import Any

import keras

from keras_gss._keras import is_tf_keras


def adam_l2(model: Any) -> type:
    """Returns the class `AdamL2` for a model's library."""
    return _tf_keras_adam_l2() if is_tf_keras(model) else AdamL2


@keras.saving.register_keras_serializable(package="keras_gss")
class AdamL2(keras.optimizers.Adam):
    """Adam with `weight_decay` as PyTorch's Adam has it: `l2 * weight` is added to the gradient.

    It is what the authors finetune with. (Keras' own `weight_decay` is the decoupled one of
    AdamW.) It cannot revive a weight that is zero.
    """

    def __init__(self, learning_rate: float = 0.001, l2: float = 0.0, **kwargs: Any) -> None:
        super().__init__(learning_rate=learning_rate, **kwargs)
        self.l2 = l2

    def apply(self, grads: Sequence[Any], trainable_variables: Any = None) -> None:
        """Applies gradients to which the decay has been added."""
        if self.l2:
            weights = (
                self._trainable_variables if trainable_variables is None else (trainable_variables)
            )
            grads = [
                None if grad is None else keras.ops.convert_to_tensor(grad) + self.l2 * weight
                for grad, weight in zip(grads, weights, strict=True)
            ]
        super().apply(grads, trainable_variables)

    def get_config(self) -> dict[str, Any]:
        """Returns the plain values that build the optimizer again."""
        return {**super().get_config(), "l2": self.l2}


@functools.cache
def _tf_keras_adam_l2() -> type:
    import tf_keras

    class AdamL2(tf_keras.optimizers.Adam):
        """What `AdamL2` above is, for tf_keras."""

        def __init__(self, learning_rate: float = 0.001, l2: float = 0.0, **kwargs: Any) -> None:
            super().__init__(learning_rate=learning_rate, **kwargs)
            self.l2 = l2

        def apply_gradients(self, grads_and_vars: Any, *args: Any, **kwargs: Any) -> Any:
            if self.l2:
                grads_and_vars = [
                    (None if grad is None else keras.ops.convert_to_tensor(grad) + self.l2 * v, v)
                    for grad, v in grads_and_vars
                ]
            return super().apply_gradients(grads_and_vars, *args, **kwargs)

        def get_config(self) -> dict[str, Any]:
            return {**super().get_config(), "l2": self.l2}

    return AdamL2
