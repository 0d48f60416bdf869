"""The rules that ship with the library, one short function per layer kind, filed by family."""

from keras_gss.graph.rules import (
    applications,
    attention,
    companions,
    elementwise,
    embedding,
    keras_hub,
    linear,
    merges,
    movers,
    normalisation,
    recurrent,
    spatial,
)

__all__ = [
    "applications",
    "attention",
    "companions",
    "elementwise",
    "embedding",
    "keras_hub",
    "linear",
    "merges",
    "movers",
    "normalisation",
    "recurrent",
    "spatial",
]
