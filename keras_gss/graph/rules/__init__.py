"""The rules that ship with the library, one short function per layer kind, filed by family."""

from keras_gss.graph.rules import (
    attention,
    companions,
    elementwise,
    embedding,
    linear,
    merges,
    movers,
    normalisation,
    recurrent,
    spatial,
)

__all__ = [
    "attention",
    "companions",
    "elementwise",
    "embedding",
    "linear",
    "merges",
    "movers",
    "normalisation",
    "recurrent",
    "spatial",
]
