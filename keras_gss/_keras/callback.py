"""The base of this library's callbacks."""

import keras


class Callback(keras.callbacks.Callback):
    """A callback that `fit` of both libraries takes, and that has no hooks for single batches."""

    def _implements_train_batch_hooks(self) -> bool:  # tf_keras asks
        return False

    _implements_test_batch_hooks = _implements_train_batch_hooks
    _implements_predict_batch_hooks = _implements_train_batch_hooks
