"""Which weights of a model can be zeroed for good, and where their layer's config says so."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import keras

from keras_gss._keras import leaf_layers, path_of, why_not_rebuilt

KERNELS = frozenset({"kernel", "depthwise", "pointwise", "recurrent"})
# What has a constraint in Keras, and is neither a kernel nor a bias: left alone unless asked for.
_SPARED = frozenset({"gamma", "beta", "alpha", "embeddings"})
_SUFFIX = "_constraint"
_ATTENTION = (keras.layers.MultiHeadAttention, keras.layers.GroupQueryAttention)
_PROJECTIONS = ("_query_dense", "_key_dense", "_value_dense", "_gate_dense", "_output_dense")


@dataclass(frozen=True, eq=False)
class Weight:
    """A weight of a layer, and how its layer's config constrains it.

    Attributes:
        path: the weight's path in the model, for messages.
        layer: the layer that owns it.
        variable: the variable.
        kind: "kernel", "bias" or another word: its constraint's argument less "_constraint";
            empty if the layer has no constraint argument for it.
        inside: where the layer's config holds that of the layer it wraps, which has the argument:
            "layer.config." for instance.
        part: the sublayer that it belongs to, if several have the argument in common.
    """

    path: str
    layer: keras.Layer
    variable: Any
    kind: str
    inside: str = ""
    part: str = ""

    @property
    def key(self) -> str:
        """The config entry that holds the weight's constraint."""
        return self.inside + self.kind + _SUFFIX


def weights_of(model: keras.Model) -> Iterator[Weight]:
    """Yields every floating-point weight of `model` once, shared layers' and nested models' too.

    Example:
    >>> import keras
    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, name="fc")])
    >>> [(weight.path, weight.key) for weight in weights_of(model)]
    [('fc/kernel', 'kernel_constraint'), ('fc/bias', 'bias_constraint')]
    """
    for path, layer in leaf_layers(model):
        kinds = _constraint_kinds(layer)
        for variable in layer.weights:
            if keras.backend.is_float_dtype(variable.dtype):
                place = kinds.get(id(variable), ("",))
                name = path_of(variable).split(f"{layer.name}/", 1)[-1]
                yield Weight(f"{path}/{name}", layer, variable, *place)


def compared(
    weights: Iterable[Weight], biases: bool, also: tuple[str, ...]
) -> tuple[list[Weight], list[Weight]]:
    """Picks the weights that an element-wise threshold compares.

    Args:
        weights: a model's weights.
        biases: whether to take biases besides kernels.
        also: further kinds to take, "gamma" or "embeddings" for instance.

    Returns:
        `(compared, left)`; `left` are the trainable weights of two or more axes that look like
        kernels but cannot be compared or, having a name of their own, were not asked for.
    """
    kinds = KERNELS | set(also) | ({"bias"} if biases else set())
    taken, left = [], []
    for weight in weights:
        if weight.kind in kinds:
            taken.append(weight)
        elif weight.kind not in _SPARED | {"bias"} and _is_matrix(weight):
            left.append(weight)
    return taken, left


def _is_matrix(weight: Weight) -> bool:
    owned = {id(variable) for variable in weight.layer.trainable_variables}
    trainable = id(weight.variable) in owned or not weight.layer.trainable
    return trainable and len(weight.variable.shape) >= 2


def _constraint_kinds(layer: keras.Layer, inside: str = "") -> dict[int, tuple[str, ...]]:
    """Returns `{id(variable): (kind, inside, part)}` for what the layer's config can constrain.

    A constraint argument `x_constraint` belongs to the attribute `x` or `x_kernel` of the layer,
    or of its cell if it is recurrent; a depthwise layer calls its kernel just `kernel`. Asking by
    identity keeps out arguments that a layer hands to several sublayers at once; attention's
    projections are known by name. A wrapper's config holds the configs of the layers that it wraps.
    """
    found: dict[int, tuple[str, ...]] = {}
    if why_not_rebuilt(layer):  # it is copied as it is
        return found
    kinds = [key.removesuffix(_SUFFIX) for key in layer.get_config() if key.endswith(_SUFFIX)]
    owned = {id(variable) for variable in layer.weights}
    for owner in (layer, getattr(layer, "cell", None)):
        for kind in kinds:
            plain = ("kernel",) if kind == "depthwise" else ()
            for name in (f"_{kind}", kind, f"{kind}_kernel", *plain):
                variable = getattr(owner, name, None)
                if id(variable) in owned:
                    found.setdefault(id(variable), (kind, inside))
    if isinstance(layer, _ATTENTION):  # tfmot cannot wrap that of tf_keras, which stays dense
        for part in filter(None, (getattr(layer, name, None) for name in _PROJECTIONS)):
            for kind in ("kernel", "bias"):
                found[id(getattr(part, kind))] = (kind, inside, part.name)
    elif isinstance(layer, keras.layers.Bidirectional):
        found |= _constraint_kinds(layer.forward_layer, f"{inside}layer.config.")
        found |= _constraint_kinds(layer.backward_layer, f"{inside}backward_layer.config.")
    elif isinstance(layer, keras.layers.TimeDistributed):
        found |= _constraint_kinds(layer.layer, f"{inside}layer.config.")
    return found
