"""The penalties by name, for the command line and for comparisons."""

from collections.abc import Callable
from typing import Any

from keras_gss._checks import check_choice
from keras_gss.regularizers import cross_layer, groups, weights
from keras_gss.regularizers.cross_layer import CrossLayerRegularizer
from keras_gss.regularizers.penalty import CrossLayer, EachKernel, Penalty

# Each is made from a factor and, for the trimmed ones, the share that is left free.
_ON_ELEMENTS: dict[str, Callable[[float, float], Penalty]] = {
    "l1": lambda factor, free: weights.L1(factor),
    "hoyer": lambda factor, free: weights.Hoyer(factor),
    "hoyer-square": lambda factor, free: weights.HoyerSquare(factor),
    "transformed-l1": lambda factor, free: weights.TransformedL1(factor),
    "l1-trim": weights.L1Trim,
}
_ON_GROUPS: dict[str, Callable[[float, float], Penalty]] = {
    "group-lasso": lambda factor, free: groups.GroupLasso(factor),
    "group-hoyer-square": lambda factor, free: groups.GroupHoyerSquare(factor),
    "exclusive-lasso": lambda factor, free: groups.ExclusiveLasso(factor),
    "cges": lambda factor, free: groups.CGES(factor),
    "sparse-group-lasso": lambda factor, free: groups.SparseGroupLasso(factor),
    "group-l1-trim": groups.GroupL1Trim,
    "shsq-gl12": lambda factor, free: groups.SHSQGL12(factor),
}
_ACROSS_LAYERS: dict[str, Callable[..., CrossLayerRegularizer]] = {
    "gss-structure": cross_layer.GSSStructure,
    "gss-element": cross_layer.GSSElement,
    "deep-gss121": cross_layer.DeepGSS121,
}
_CROSS = "cross-"

PENALTIES = (
    *_ACROSS_LAYERS,
    *_ON_ELEMENTS,
    *_ON_GROUPS,
    *(_CROSS + name for name in _ON_GROUPS),
)


def named_penalty(
    name: str, factor: float, inputs: bool = False, free: float = 0.1, **more: Any
) -> CrossLayerRegularizer:
    """Builds a penalty for a whole model by its name.

    Args:
        name: one of `PENALTIES`; "cross-" stands for the form across layers, whose groups are
            neurons instead of the rows and columns of kernels.
        factor: strength, finite and >= 0.
        inputs: whether the input features are groups too.
        free: of the trimmed penalties, the share that is left free, from 0 to 1.
        more: further arguments of "gss-structure".

    Raises:
        ValueError: an unknown name, or an argument out of its range.

    Example:
    >>> named_penalty("cross-group-lasso", 1e-4).get_config()["penalty"]["config"]
    {'factor': 0.0001}
    """
    check_choice("name", name, PENALTIES)
    if name in _ACROSS_LAYERS:
        return _ACROSS_LAYERS[name](factor, inputs=inputs, **more)
    if name.startswith(_CROSS):
        return CrossLayer(_ON_GROUPS[name.removeprefix(_CROSS)](factor, free), inputs=inputs)
    return EachKernel({**_ON_ELEMENTS, **_ON_GROUPS}[name](factor, free), inputs=inputs)
