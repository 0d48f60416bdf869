"""tfmot's pruning wrappers, as far as one has to know of them to look inside."""

from typing import Any

from keras_gss._keras.walk import is_graph, operations, unwrapped


def without_wrappers(model: Any) -> Any:
    """Returns a copy of a wrapped model without the wrappers, its masks applied to its weights.

    A model that holds no wrapper is returned as it is.
    """
    if not _is_wrapped(model):
        return model
    from keras_gss.pruning.tfmot import strip

    return strip(model)


def _is_wrapped(model: Any) -> bool:
    return any(
        unwrapped(each) is not each or (is_graph(each) and _is_wrapped(each))
        for each in operations(model)
    )
