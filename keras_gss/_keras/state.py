"""What a model holds while it trains: traced functions, and variables that files leave out."""

import itertools
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import keras

from keras_gss._keras.library import is_tf_keras


def in_symbolic_scope() -> bool:
    """Tells whether Keras only infers shapes and dtypes now, as `fit` does before it trains."""
    return keras.src.backend.common.symbolic_scope.in_symbolic_scope()


def in_training() -> bool:
    """Tells whether the Keras 3 model that is being called is called with `training=True`."""
    context = keras.src.backend.common.global_state.get_global_attribute("current_call_ctx")
    return context is not None and bool(context.get_value("training"))


def in_tensorflow_xla() -> bool:
    """Tells whether TensorFlow has the step that is being traced compiled by XLA."""
    if keras.backend.backend() != "tensorflow":
        return False
    import tensorflow as tf
    from tensorflow.python.ops import control_flow_util

    return control_flow_util.GraphOrParentsInXlaContext(tf.compat.v1.get_default_graph())


def after_the_rest() -> AbstractContextManager:
    """Returns a context whose operations wait for all that TensorFlow's graph holds before them.

    A penalty computed beside the forward pass delays it: a convolution lasts until the last of its
    threads is done. Where nothing is traced, or XLA orders the operations, it does nothing.
    """
    if keras.backend.backend() != "tensorflow" or in_tensorflow_xla():
        return nullcontext()
    import tensorflow as tf

    if tf.executing_eagerly():
        return nullcontext()
    traced = reversed(tf.compat.v1.get_default_graph().get_operations())
    return tf.control_dependencies(list(itertools.islice((op for op in traced if op.inputs), 1)))


def sum_of_squares(x: Any, axis: tuple[int, ...]) -> Any:
    """Returns the sum of x^2 along `axis`, which TensorFlow adds up without a tensor of squares."""
    import tensorflow as tf

    return tf.square(tf.raw_ops.EuclideanNorm(input=x, axis=axis))


def eagerly() -> AbstractContextManager:
    """Returns a context in which constants are computed at once, also where a step is traced."""
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        return tf.init_scope()
    if backend == "jax":
        import jax

        return jax.ensure_compile_time_eval()
    return nullcontext()


class _State:
    """Looks to Keras like a seed generator: it owns one variable, called `state`."""

    def __init__(self, state: keras.Variable) -> None:
        self.state = state


def track_state(model: Any, value: Any, name: str) -> keras.Variable:
    """Gives a model a variable that its traced functions read and write, but files don't hold.

    Keras 3 passes the states of a model's seed generators in and out of every traced step (JAX
    freezes any variable it is not told of), and leaves them out of `weights` and saved files. A
    traced step of tf_keras refers to any variable.

    Args:
        model: the model that owns the variable from now on.
        value: its initial value, an array or a number.
        name: its name.

    Returns:
        A variable that is not trainable; in a step replicated by `tf.distribute`, every replica
        has to assign the same value to it.
    """
    with _strategy_scope(model):
        state = keras.Variable(
            value, trainable=False, autocast=False, aggregation="only_first_replica", name=name
        )
    if not is_tf_keras(model):
        model._seed_generators.append(_State(state))
    return state


def track_noise(model: Any, seed: int) -> keras.random.SeedGenerator:
    """Gives a Keras 3 model a source of random numbers for its traced steps."""
    generator = keras.random.SeedGenerator(seed)
    model._seed_generators.append(generator)
    return generator


def has_noise(model: Any) -> bool:
    """Tells whether a model, apart from its layers, holds a source of random numbers."""
    sources = getattr(model, "_seed_generators", ())
    return any(isinstance(each, keras.random.SeedGenerator) for each in sources)


def untrack_noise(model: Any, generator: keras.random.SeedGenerator) -> None:
    """Takes back one `track_noise`."""
    model._seed_generators[:] = [each for each in model._seed_generators if each is not generator]


def untrack_state(model: Any, state: keras.Variable) -> None:
    """Takes back one `track_state`."""
    if not is_tf_keras(model):
        model._seed_generators[:] = [s for s in model._seed_generators if s.state is not state]


def add_loss(model: Any, loss: Callable[[], Any]) -> Any:
    """Adds a loss to a tf_keras model, which computes it anew at every step.

    Returns:
        What `remove_loss` takes back.
    """
    model.add_loss(loss)
    return model._callable_losses[-1]


def remove_loss(model: Any, added: Any) -> None:
    """Takes back one `add_loss`."""
    model._callable_losses[:] = [loss for loss in model._callable_losses if loss is not added]


def forget_functions(model: Any) -> None:
    """Makes a model trace its steps anew: traced ones keep the old losses and the old kernels."""
    model.train_function = None
    model.test_function = None
    model.predict_function = None


def _strategy_scope(model: Any) -> AbstractContextManager[Any]:
    if keras.backend.backend() == "tensorflow":
        return model.distribute_strategy.scope()
    return nullcontext()
