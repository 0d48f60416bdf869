"""Models that Keras alone cannot build anew from their config: own classes, lambdas, functions."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_gss as gss
from keras_gss._keras import Unwritten, library, rebuild
from keras_gss.graph.registry import _RULES


class Distilled(keras.Model):
    """Its constructor takes what no config could hold."""

    def __init__(self, inputs, outputs, teacher, name=None):
        super().__init__(inputs, outputs, name=name)
        self.teacher = teacher


class Stack(keras.Sequential):
    """Its constructor takes no layers."""

    def __init__(self, width, name=None):
        super().__init__([keras.Input((4,)), layers.Dense(width, "relu", name="h")], name=name)


class Traced(keras.Model):
    """Its constructor is Keras' own."""


class Clip(keras.constraints.Constraint):
    def __call__(self, w):
        return ops.clip(w, -0.1, 0.1)


def functional(kind, **arguments):
    x = keras.Input((4,))
    y = layers.Dense(2, name="o")(layers.Dense(5, "relu", name="h")(x))
    return kind(x, y, **arguments)


def unread_neuron(model):
    """Cuts what reads neuron 0 of layer 'h' to zero in its reader 'o'."""
    kernel = np.array(ops.convert_to_numpy(model.get_layer("o").kernel))
    kernel[0] = 0
    model.get_layer("o").kernel.assign(kernel)
    return model


def test_a_class_with_another_constructor_becomes_a_plain_model():
    model = unread_neuron(functional(Distilled, teacher=object(), name="student"))
    before = [(len(o._inbound_nodes), len(o._outbound_nodes)) for o in model.operations]
    with pytest.warns(UserWarning, match="'student' cannot be built anew as Distilled"):
        small = gss.slim(model)
    assert small.get_layer("h").units == 4 and not isinstance(small, Distilled)
    assert small.name == "student"
    with pytest.warns(UserWarning, match="takes other arguments than keras.Sequential"):
        assert type(gss.prune(Stack(3), gss.StdThreshold(0.1))) is keras.Sequential
    after = [(len(o._inbound_nodes), len(o._outbound_nodes)) for o in model.operations]
    assert after == before
    assert type(gss.slim(functional(Traced))) is Traced


@pytest.mark.parametrize("container", [keras.Sequential, "functional"])
def test_such_models_nested_in_others_are_cut(container):
    for inner in (functional(Distilled, teacher=object()), Stack(5), functional(Traced)):
        inside = [keras.Input((4,)), inner, layers.Dense(2, name="o")]
        outer = keras.Sequential(inside)
        if container == "functional":
            x = keras.Input((4,))
            outer = keras.Model(x, inside[2](inner(x)))
        kernel = np.array(ops.convert_to_numpy(inner.get_layer("h").kernel))
        kernel[:, 0] = 0  # emits relu(0)
        inner.get_layer("h").kernel.assign(kernel)
        assert gss.slim(outer).get_layer(inner.name).get_layer("h").units == 4


def test_functions_and_classes_that_are_not_registered_are_handed_on(tmp_path):
    def bent(x):
        return ops.relu(x) - 0.5

    model = keras.Sequential(
        [
            keras.Input((3,)),
            layers.Dense(4, bent, kernel_constraint=Clip()),
            layers.Lambda(lambda x: ops.relu(x)),
            layers.Reshape((2, 2)),
            layers.TimeDistributed(layers.Dense(2, activation=lambda x: bent(x))),
        ]
    )
    pruned = gss.prune(gss.prune(model, gss.StdThreshold(0.1)), gss.StdThreshold(0.5))
    assert pruned.layers[0].activation is bent
    assert pruned.layers[1].function is model.layers[1].function
    assert isinstance(pruned.layers[0].kernel_constraint.constraint, Clip)
    small = gss.slim(pruned)
    x = np.ones((2, 3), "float32")
    np.testing.assert_array_equal(small(x), pruned(x))
    first = keras.Sequential(model.layers[:1])
    first.build((None, 3))
    gss.export(first, tmp_path / "first.keras", format="keras")


def test_a_function_as_constraint_cannot_be_kept_beside_the_zeros():
    with pytest.raises(  # older versions of Keras refuse it when the layer is built
        ValueError, match="a/kernel' has a plain function as its constraint|constraint=<function"
    ):
        layer = layers.Dense(4, kernel_constraint=lambda w: w, name="a")
        model = keras.Sequential([keras.Input((3,)), layer])
        gss.prune(model, gss.StdThreshold(0.5))


class Affine(layers.Layer):
    """Has no `get_config`, but an argument: Keras cannot build it anew."""

    def __init__(self, width, inner=None, name=None):
        super().__init__(name=name)
        self.inner = inner or layers.Dense(width, name="inner")
        self.drop = layers.Dropout(0.5, seed=1)

    def build(self, shape):
        self.inner.build(shape)
        self.shift = self.add_weight(shape=(shape[-1],), name="shift")
        super().build(shape)

    def call(self, x, training=False):
        return self.drop(self.inner(x + self.shift), training=training)

    def compute_output_shape(self, shape):
        return (*shape[:-1], self.shift.shape[0])


def with_affine(**arguments):
    inside = [layers.Dense(5, "relu", name="h"), layers.Dense(4, name="o")]
    inside += [Affine(4, name="affine", **arguments), layers.Dense(2, name="end")]
    return unread_neuron(keras.Sequential([keras.Input((4,)), *inside]))


def values(model):
    return [np.array(ops.convert_to_numpy(variable)) for variable in model.weights]


@pytest.mark.parametrize("nested", [False, True])
def test_a_layer_that_its_config_does_not_build_is_left_whole_as_a_copy(nested, tmp_path):
    inner = keras.Sequential([keras.Input((4,)), layers.Dense(3, "relu"), layers.Dense(4)])
    model = with_affine(inner=inner if nested else None)
    layer, before = model.get_layer("affine"), values(model)
    assert "Affine has no rule" in gss.find_groups(model).skipped["affine"]
    with pytest.warns(UserWarning, match=r"deep copies: 'affine' \(Affine\): .*get_config"):
        small = gss.slim(model)
    assert small.get_layer("h").units == 4
    copy = small.get_layer("affine")
    assert type(copy) is Affine and len(copy.weights) == len(layer.weights)
    assert not {id(v) for v in copy.weights} & {id(v) for v in layer.weights}
    x = np.random.default_rng(0).normal(size=(3, 4)).astype("float32")
    np.testing.assert_allclose(small(x), model(x), rtol=1e-5, atol=1e-6)
    if keras.backend.backend() == "tensorflow":
        gss.export(small, tmp_path / "saved")
    small.compile("sgd", "mse", jit_compile=False)
    small.fit(x, np.ones((3, 2)), verbose=0)
    assert not any(np.array_equal(v, w) for v, w in zip(values(copy), values(layer), strict=True))
    for now, value in zip(values(model), before, strict=True):
        np.testing.assert_array_equal(now, value)
    assert len(layer._inbound_nodes) == 1 and "get_config" not in vars(layer)


@pytest.mark.filterwarnings("ignore:.*deep copies")
def test_such_a_layer_is_pruned_around():
    model = with_affine()
    pruned = gss.prune(model, gss.StdThreshold(0.5), granularity="element")
    assert (values(pruned)[0] == 0).any()
    for name in ("shift", "inner"):
        ours, theirs = (getattr(m.get_layer("affine"), name) for m in (pruned, model))
        ours, theirs = (each.kernel if name == "inner" else each for each in (ours, theirs))
        np.testing.assert_array_equal(ours, theirs)

    @gss.register_rule(Affine)
    def affine(call):
        call.declare("shift", 0, call.along(call.x, -1)[0])
        return call.like(float("nan"))

    try:
        assert "not built by its own `get_config`" in gss.find_groups(model).skipped["affine"]
        assert gss.slim(model).get_layer("o").units == 4
    finally:
        del _RULES[Affine]


def test_a_layer_that_shares_weights_with_others_is_not_copied():
    x = keras.Input((4,))
    model = with_affine()
    model = keras.Model(x, [model(x), model.get_layer("affine").inner(x)])
    with pytest.raises(
        ValueError, match=r"built by their own .*/affine' \(Affine\): .* Correct it"
    ):
        gss.slim(model)


class Fourier(layers.Layer):
    """Holds a seeded constant that is no weight."""

    def build(self, shape):
        self.basis = keras.initializers.RandomNormal(stddev=1.0, seed=3)((5, 2))

    def call(self, x):
        return ops.cos(ops.matmul(x, self.basis))


def test_constants_that_a_layer_draws_are_drawn_again():
    model = keras.Sequential([keras.Input((4,)), layers.Dense(5), Fourier(), layers.Dense(2)])
    x = np.ones((3, 4), "float32")
    pruned = gss.prune(model, gss.AbsoluteThreshold(0.0))
    np.testing.assert_array_equal(pruned(x), model(x))


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize(
    "shape", [(3, 3), (1100, 301), (1, 1, 1500, 201), (400_003,), (2, 250_001)]
)
def test_large_values_are_assigned_to_one_variable_alone(shape, dtype):
    value = np.random.default_rng(0).normal(size=shape).astype("float32")
    variable = keras.Variable(np.zeros(shape, "float32"), dtype=dtype)
    other = keras.Variable(np.ones(shape, "float32"), dtype=dtype)
    other.assign(variable.value)  # TensorFlow lets them share their memory until one is changed
    read = variable.value + 0
    library.assign(variable, value)
    expected = ops.convert_to_numpy(ops.cast(value, dtype)).astype("float32")
    np.testing.assert_array_equal(ops.convert_to_numpy(variable).astype("float32"), expected)
    assert not ops.convert_to_numpy(other).any() and not ops.convert_to_numpy(read).any()
    with pytest.raises(ValueError, match="shape"):
        library.assign(variable, value[None, ..., 1:])


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="of TensorFlow's variables")
def test_reading_a_new_models_weights_does_not_copy_them():
    import tensorflow as tf

    def read(variable):
        stored = variable.value
        return np.asarray(tf.raw_ops.ReadVariableOp(resource=stored.handle, dtype=stored.dtype))

    # Over 4 MB, which a scatter once wrote row by row.
    wide = [layers.Dense(1200, "relu"), layers.Dense(1200)]
    model = keras.Sequential([keras.Input((1200,)), *wide])
    pruned = gss.prune(model, gss.StdThreshold(0.5))
    for new in (rebuild(model), pruned, gss.slim(pruned)):
        for layer in new.layers:
            assert np.shares_memory(read(layer.kernel), read(layer.kernel))


def test_an_unwritten_value_keeps_its_dtype():
    value = np.random.default_rng(0).normal(size=(3, 4))
    unwritten = Unwritten(value.shape, value.dtype, lambda array: np.copyto(array, value))
    np.testing.assert_array_equal(unwritten, value)
    assert np.asarray(unwritten).dtype == np.float64
    variable = keras.Variable(np.zeros((3, 4), "float32"), dtype="float32")
    library.assign(variable, unwritten)
    np.testing.assert_array_equal(ops.convert_to_numpy(variable), value.astype("float32"))
