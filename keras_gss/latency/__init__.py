"""Time per call in the runtime that a model is made for: measured, and as a target."""

from keras_gss.latency.measure import Latencies, measure_latency
from keras_gss.latency.target import Latency

__all__ = ["Latencies", "Latency", "measure_latency"]
