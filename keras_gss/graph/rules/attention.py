"""Attention: whole heads, the width that queries share with keys, and the width of values.

The config holds one width for all heads, so position k of every head goes or stays together. Where
keys and values must be of one width, the narrower is filled up with positions that nothing reads.
Two kinds of unit that no weight axis owns say exactly what is needed: a *score* unit (head, k) is
one product of a query and a key, a *context* unit (head, v) one number that a head hands on.
"""

from dataclasses import dataclass

import numpy as np
from keras import layers

from keras_gss.graph.call import Call
from keras_gss.graph.records import Signal
from keras_gss.graph.registry import register_rule
from keras_gss.graph.rules.linear import neurons

_HEAD_MASK = "takes a mask of its own for every head"
Channels = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True, eq=False)
class _Widths:
    """Units of an attention layer: heads of keys and values, of queries, and positions in them."""

    heads: np.ndarray
    query_heads: np.ndarray
    keys: np.ndarray
    values: np.ndarray
    outputs: np.ndarray


@register_rule(layers.MultiHeadAttention)
def multi_head_attention(call: Call) -> list[Signal]:
    """Heads, `key_dim` and `value_dim` are groups of their own, and so is the output width."""
    layer = call.operation
    if _masks_heads(call):
        return call.barrier(_HEAD_MASK)
    output = layer.output_dense.kernel.shape
    if len(output) > 3:
        return call.barrier("gives an output of several widths (`output_shape`)")
    heads, keys, values, width = (
        call.units(count, kind)
        for count, kind in (
            (layer.num_heads, "heads"),
            (layer.key_dim, "keys"),
            (layer.value_dim, "values"),
            (output[-1], "outputs"),
        )
    )
    if layer.key_dim == layer.value_dim:
        call.as_many(keys, values)  # Keras on JAX cannot do without
    signals = _attend(call, _Widths(heads, heads, keys, values, width))
    for key, units in (("num_heads", heads), ("key_dim", keys), ("value_dim", values)):
        call.resize(key, neurons(units), lambda sizes: sizes[0])
    call.resize("output_shape", neurons(width), lambda sizes: (sizes[0],))
    return signals


@register_rule(layers.GroupQueryAttention)
def grouped_query_attention(call: Call) -> list[Signal]:
    """A head of keys and values goes with all query heads that share it.

    Keys are as wide as values (`head_dim`), and the output is as wide as the queries' input, unit
    by unit.
    """
    layer = call.operation
    if _masks_heads(call):
        return call.barrier(_HEAD_MASK)
    heads = call.units(layer.num_key_value_heads, "heads")
    query_heads = np.repeat(heads, layer.num_repeats)
    keys, values = (call.units(layer.head_dim, kind) for kind in ("keys", "values"))
    call.as_many(keys, values)
    outputs = call.along(call.arguments["query"], -1)[0]
    signals = _attend(call, _Widths(heads, query_heads, keys, values, outputs))
    for key, units in (
        ("num_key_value_heads", heads),
        ("num_query_heads", query_heads),
        ("head_dim", keys),
    ):
        call.resize(key, neurons(units), lambda sizes: sizes[0])
    return signals


def _attend(call: Call, widths: _Widths) -> list[Signal]:
    """Declares the projections and what they need; returns the output and, if asked, scores."""
    arguments = call.arguments
    query, value = arguments["query"], arguments["value"]
    key = value if arguments.get("key") is None else arguments["key"]
    call.keep_masks(query, key, value)
    asked, held, given = (call.along(signal, -1) for signal in (query, key, value))
    query_heads, keys, values = widths.query_heads, widths.keys, widths.values
    _declare(call, "_query_dense", query, asked, query_heads, keys, "incoming")
    _declare(call, "_key_dense", key, held, widths.heads, keys, "outgoing")
    _declare(call, "_value_dense", value, given, widths.heads, values, "incoming")
    if hasattr(call.operation, "_gate_dense"):
        _declare(call, "_gate_dense", query, asked, query_heads, values, "incoming")
    output = call.inside("_output_dense")
    output.declare("kernel", 0, query_heads, "outgoing")
    output.declare("kernel", 1, values, "outgoing")
    output.declare("kernel", 2, widths.outputs, "incoming")
    output.declare("bias", 0, widths.outputs)
    output.work("kernel", query.shape[:-1])
    if call.operation.use_bias:
        # A bias (heads, 1) would go astray in `ops.add` if there are as many heads as places.
        for units in (keys, values):
            call.at_least(units, 2)
    for name in ("kernel", "bias"):
        call.inside("_query_dense").rescale(name, keys, _rescaled)
    emitted = np.full(len(widths.outputs), np.nan)
    if call.numeric:
        emitted = _needs(call, widths, asked, held, given)
    signals = [call.signal(call.spread(widths.outputs, -1), call.spread(emitted, -1))]
    if len(call.shapes) > 1:
        signals.append(call.signal(call.spread(query_heads, 0, 1), np.nan, 1))
    return signals


def _rescaled(old: int, new: int) -> float:
    """Scores are divided by the root of the width, which Keras holds in float32."""
    return float(np.float32(old**-0.5)) / float(np.float32(new**-0.5))


def _masks_heads(call: Call) -> bool:
    """Tells whether a mask, with its batch axis, has an axis for the heads too."""
    mask = call.arguments.get("attention_mask")
    rank = len(mask.shape) + 1 if isinstance(mask, Signal) else np.ndim(mask)
    return rank > 1 + 2 * len(getattr(call.operation, "_attention_axes", (1,)))


def _declare(
    call: Call,
    attribute: str,
    source: Signal,
    channels: Channels,
    heads: np.ndarray,
    positions: np.ndarray,
    role: str,
) -> None:
    """A projection with a kernel (inputs, heads, positions) and a bias (heads, positions)."""
    dense = call.inside(attribute)
    dense.declare("kernel", 0, channels[0], "outgoing")
    dense.declare("kernel", 1, heads, "incoming")
    dense.declare("kernel", 2, positions, role)
    dense.declare("bias", 0, heads)
    dense.declare("bias", 1, positions)
    dense.work("kernel", source.shape[:-1])


def _needs(
    call: Call, widths: _Widths, asked: Channels, held: Channels, given: Channels
) -> np.ndarray:
    """Records what each projection needs; returns the constants of the output.

    A score counts if the query can differ from zero and the key from place to place: what a key
    adds to the scores of all places alike, its bias for instance, softmax takes away. A context
    counts if the value can differ from zero. Other constants are not followed: masks may show them.
    """
    count, repeats = len(widths.heads), len(widths.query_heads) // len(widths.heads)
    scores = call.units(count * len(widths.keys), "scores").reshape(count, -1)
    contexts = call.units(count * len(widths.values), "contexts").reshape(count, -1)
    query, key, value = (call.inside(f"_{name}_dense") for name in ("query", "key", "value"))
    _edge(query, asked, np.repeat(scores, repeats, 0))
    _edge(key, held, scores)
    _edge(value, given, contexts)
    if hasattr(call.operation, "_gate_dense"):
        _edge(call.inside("_gate_dense"), asked, np.repeat(contexts, repeats, 0))
    counts = _can_differ_from_zero(query, asked).reshape(count, repeats, -1).any(1)
    counts &= (key.read("kernel")[np.isnan(held[1])] != 0).any(0)
    own_head = np.eye(count, dtype=bool)
    call.reads(
        scores.ravel(),
        widths.heads,
        np.repeat(own_head, len(widths.keys), 0) & counts.reshape(-1, 1),
    )
    call.reads(widths.heads, contexts, own_head[:, :, None])
    call.reads(widths.keys, scores, np.eye(len(widths.keys), dtype=bool)[:, None])
    call.reads(widths.values, contexts, np.eye(len(widths.values), dtype=bool)[:, None])
    output = call.inside("_output_dense")
    kernel = output.read("kernel")
    kernel = kernel.reshape(-1, kernel.shape[-1])
    emitted = np.where(_can_differ_from_zero(value, given), np.nan, 0.0)
    labels, constants = (np.repeat(each, repeats, 0).ravel() for each in (contexts, emitted))
    return output.edge((labels, constants), widths.outputs, kernel != 0, kernel, absorbs=True)


def _edge(dense: Call, channels: Channels, outputs: np.ndarray) -> None:
    kernel = dense.read("kernel")
    dense.edge(channels, outputs, kernel != 0, kernel, absorbs=True)


def _can_differ_from_zero(dense: Call, channels: Channels) -> np.ndarray:
    """Returns, `(heads, positions)`, where a weight or a bias can make a number other than 0."""
    reached = (dense.read("kernel")[channels[1] != 0] != 0).any(0)
    return reached if dense.variable("bias") is None else reached | (dense.read("bias") != 0)
