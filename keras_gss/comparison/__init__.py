"""Comparing methods on equal terms: one protocol, one call, one table."""

from keras_gss.comparison.compare import compare_methods, load_comparison
from keras_gss.comparison.methods import METHODS, Method
from keras_gss.comparison.protocol import Protocol
from keras_gss.comparison.table import Comparison

__all__ = ["METHODS", "Comparison", "Method", "Protocol", "compare_methods", "load_comparison"]
