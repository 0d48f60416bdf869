"""The rules that ship with the library, one short function per layer kind, filed by family."""

from keras_gss.graph.rules import (
    applications,
    companions,
    elementwise,
    linear,
    merges,
    movers,
    spatial,
)

__all__ = ["applications", "companions", "elementwise", "linear", "merges", "movers", "spatial"]
