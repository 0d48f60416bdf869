"""From Keras 3 to tf_keras: the same layers, names and weights, checked to compute the same."""

import inspect
import sys
from typing import Any

import keras
import numpy as np
from keras import tree

from keras_gss import _keras
from keras_gss._probe import max_difference, random_inputs, tolerance

# Arguments of Keras 3 that tf_keras calls otherwise, by layer kind.
_ARGUMENTS = {"LeakyReLU": {"negative_slope": "alpha"}}
# Entries that only the configs of tf_keras have, and must have.
_MISSING = {"MultiHeadAttention": ("query_shape", "key_shape", "value_shape")}
_ACTIVATIONS = {"silu": "swish"}


def to_tf_keras(model: keras.Model) -> Any:
    """Converts a Keras 3 model to tf_keras, which tfmot and older tools work with.

    Args:
        model: a built Keras 3 Sequential or functional model, nested models included; it is not
            changed.

    Returns:
        An uncompiled tf_keras model with the same layer names, weights and outputs.

    Raises:
        TypeError: `model` is no Keras 3 model with a graph, or a layer or operation of it has no
            counterpart in tf_keras, which the message names.
        ValueError: the model is unbuilt or has NaN weights.
        RuntimeError: the outputs of the two differ on random inputs; Keras does not run on
            TensorFlow.
        ImportError: tf_keras is not installed.

    Example:
    >>> import keras, keras_gss as gss
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, name="fc")])
    >>> converted = gss.to_tf_keras(model)
    >>> type(converted).__module__.split(".")[0], converted.layers[0].name
    ('tf_keras', 'fc')
    """
    if keras.backend.backend() != "tensorflow":
        raise RuntimeError(
            f"`to_tf_keras` needs KERAS_BACKEND=tensorflow, and Keras runs on "
            f"'{keras.backend.backend()}'. Set it before the first import of Keras."
        )
    try:
        import tf_keras
    except ImportError as error:
        raise ImportError("`to_tf_keras` needs tf_keras: pip install tf-keras.") from error
    if _keras.is_tf_keras(model):
        raise TypeError(f"`to_tf_keras`: '{model.name}' is a tf_keras model already.")
    _keras.check_model(model, "to_tf_keras")
    converted = _Conversion(tf_keras).model(model)
    _keras.copy_values(model, converted)
    inputs = random_inputs(model, batch=2)
    with _keras.full_precision():
        outputs = [each(inputs, training=False) for each in (model, converted)]
    difference, scale = max_difference(*outputs)
    if not difference <= tolerance(model) * max(scale, 1.0):
        raise RuntimeError(
            f"`to_tf_keras`: the outputs of '{model.name}' differ by {difference:.1e} after the "
            "conversion, because some layer computes something else in tf_keras. Nothing was "
            "returned."
        )
    return converted


class _Conversion:
    """One conversion: layers that are called several times become one layer."""

    def __init__(self, tf_keras: Any) -> None:
        self._library = tf_keras
        self._layers: dict[int, Any] = {}

    def model(self, model: Any) -> Any:
        if isinstance(model, keras.Sequential):
            layers = [self._layer(layer) for layer in model.layers]
            (source,) = _keras.sources(model)
            return self._library.Sequential([self._input(source), *layers], name=model.name)
        tensors = {}
        for source in _keras.sources(model):
            tensors[id(source.tensor)] = self._input(source)
        for node in _keras.nodes(model):
            args, kwargs = tree.map_structure(
                lambda x: tensors.get(id(x), _plain(x)), (tuple(node.args), dict(node.kwargs))
            )
            made = self._call(node, args, _present(kwargs))
            for old, new in zip(node.outputs, tree.flatten(made), strict=True):
                tensors[id(old)] = new
        graph = _keras.graph_of(model)
        structures = (graph._inputs_struct, graph._outputs_struct)
        inputs, outputs = tree.map_structure(lambda x: tensors[id(x)], structures)
        return self._library.Model(inputs, outputs, name=model.name)

    def _input(self, source: _keras.Source) -> Any:
        batch, *shape = source.shape
        return self._library.Input(
            shape=shape, batch_size=batch, dtype=source.dtype, name=source.layer.name
        )

    def _call(self, node: _keras.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if isinstance(node.layer, keras.Layer):
            return self._layer(node.layer)(*args, **kwargs)
        name = f"'{node.layer.name}' ({type(node.layer).__name__})"
        function = _keras.tensorflow_function(node.layer)
        if function is None:
            raise TypeError(
                f"`to_tf_keras`: the operation {name} has no counterpart in a tf_keras graph. Use "
                "a layer instead."
            )
        try:
            return function(*args, **kwargs)
        except (TypeError, ValueError) as error:
            raise TypeError(f"`to_tf_keras`: TensorFlow refuses {name}: {error}") from error

    def _layer(self, layer: Any) -> Any:
        if id(layer) not in self._layers:
            made = self.model(layer) if _keras.is_graph(layer) else self._counterpart(layer)
            self._layers[id(layer)] = made
        return self._layers[id(layer)]

    def _counterpart(self, layer: Any) -> Any:
        kind = type(layer)
        builtin = kind.__module__.startswith("keras.src.layers.")
        other = getattr(self._library.layers, kind.__name__, None) if builtin else None
        if other is None:
            raise TypeError(
                f"`to_tf_keras`: the layer '{layer.name}' ({kind.__name__}) has no counterpart in "
                "tf_keras. Replace it, or convert the models before and after it."
            )
        config = _config(layer, other)
        try:
            return other.from_config(config)
        except (TypeError, ValueError) as error:
            raise TypeError(
                f"`to_tf_keras`: the layer '{layer.name}' ({kind.__name__}) cannot be built in "
                f"tf_keras: {error}"
            ) from error


def _config(layer: keras.Layer, other: type) -> dict[str, Any]:
    """Returns the config that builds a layer's counterpart.

    Raises:
        TypeError: the layer uses an argument that tf_keras does not have.
    """
    kind = type(layer)
    config, unknown = _understood(layer.get_config(), kind, other)
    if "hard_sigmoid" in [v for k, v in config.items() if k.endswith("activation")]:
        raise TypeError(
            f"`to_tf_keras`: the layer '{layer.name}' ({kind.__name__}) applies hard_sigmoid, "
            "which is another function in tf_keras. Replace it by ReLU(6) of x + 3, over 6."
        )
    if unknown:
        raise TypeError(
            f"`to_tf_keras`: the layer '{layer.name}' ({kind.__name__}) has arguments that "
            f"tf_keras does not know: {unknown}."
        )
    return config


def _understood(
    config: dict[str, Any], kind: type, other: type
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Splits a config into what a counterpart in tf_keras understands, translated, and the rest.

    What the counterpart does not know is left out where it has its default.
    """
    renamed = _ARGUMENTS.get(kind.__name__, {})
    config = {**dict.fromkeys(_MISSING.get(kind.__name__, ())), **config}
    defaults = {name: p.default for name, p in inspect.signature(kind).parameters.items()}
    expected = _MISSING.get(kind.__name__, ())
    known = {*inspect.signature(other).parameters, *expected, "name", "trainable", "dtype"}
    understood, unknown = {}, {}
    for name, value in config.items():
        if renamed.get(name, name) in known:
            understood[renamed.get(name, name)] = _translated(value)
        elif value and value not in (defaults.get(name), "channels_last"):
            unknown[name] = value
    return understood, unknown


def _translated(value: Any) -> Any:
    """Returns a value of a Keras 3 config as tf_keras writes it."""
    if isinstance(value, str):
        return _ACTIVATIONS.get(value, value)
    if not isinstance(value, dict) or "class_name" not in value:
        return value
    if value["class_name"] == "DTypePolicy":
        return value["config"]["name"]
    tf_keras = sys.modules["tf_keras"]
    for name in ("layers", "initializers", "regularizers", "constraints"):
        kind = getattr(getattr(keras, name), value["class_name"], None)
        other = getattr(getattr(tf_keras, name), value["class_name"], None)
        if value.get("module") == f"keras.{name}" and kind and other:
            config, unknown = _understood(value["config"], kind, other)
            plain = {key: value[key] for key in ("module", "class_name", "registered_name")}
            return {**plain, "config": {**config, **unknown}}
    return value


def _plain(value: Any) -> Any:
    """Returns a number as Python writes it: TensorFlow would take a NumPy one's dtype seriously."""
    return value.item() if isinstance(value, np.generic | np.ndarray) and value.ndim == 0 else value


def _present(kwargs: dict[str, Any]) -> dict[str, Any]:
    """Leaves out the arguments that are not given: the two libraries do not name all alike."""
    return {name: value for name, value in kwargs.items() if value is not None}
