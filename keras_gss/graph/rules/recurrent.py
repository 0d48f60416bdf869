"""Recurrent layers: units that read each other at the next step, and the wrappers around layers."""

from collections.abc import Iterable
from typing import Any

import numpy as np
from keras import layers, tree

from keras_gss.graph.call import Call
from keras_gss.graph.records import Signal
from keras_gss.graph.registry import register_rule, rule_for
from keras_gss.graph.rules.elementwise import activate, mapped
from keras_gss.graph.rules.linear import neurons
from keras_gss.graph.rules.merges import product

_STATEFUL = "keeps its state from one batch to the next (`stateful=True`)"
_FILLING_GATE = {layers.SimpleRNN: 0, layers.LSTM: 2, layers.GRU: 2}


@register_rule(layers.SimpleRNN, layers.LSTM, layers.GRU)
def recurrent(call: Call) -> list[Signal]:
    """`kernel` (inputs, gates * units), `recurrent_kernel` (units, gates * units).

    Gate k of unit j is column j + k * units, and row j is what all units read of unit j.
    """
    layer = call.operation
    if layer.stateful:
        return call.barrier(_STATEFUL)
    arguments = call.arguments
    sequences, states = arguments["sequences"], _states(arguments)
    if not all(isinstance(state, Signal) for state in states):
        return call.barrier("starts from a state held in the graph")
    call.keep_masks(sequences, *states)
    labels, value = call.along(sequences, -1)
    own = call.units(layer.units)
    cell = call.inside("cell")
    gates = np.tile(own, cell.variable("kernel").shape[-1] // layer.units)
    cell.declare("kernel", 0, labels, "outgoing")
    cell.declare("kernel", 1, gates, "incoming")
    cell.declare("recurrent_kernel", 0, own, "outgoing")
    cell.declare("recurrent_kernel", 1, gates, "incoming")
    cell.declare("bias", -1, gates)
    cell.work("kernel", sequences.shape[:1])
    cell.work("recurrent_kernel", sequences.shape[:1])
    call.resize("units", neurons(own), lambda sizes: sizes[0])
    starts = [call.along(state, -1) for state in states]
    for start, _ in starts:
        call.tie(own, start)
    emitted = np.full(len(own), np.nan)
    if call.numeric:
        emitted = _silent(call, cell, value, [start for _, start in starts])
        weights = np.concatenate([cell.read("kernel"), cell.read("recurrent_kernel")])
        sums = weights
        if getattr(layer, "reset_after", False):  # the first row of its bias goes with the inputs
            sums = np.stack([weights, np.zeros_like(weights)], 1)
        inputs = np.concatenate([labels, own]), np.concatenate([value, emitted])
        cell.edge(inputs, gates, weights != 0, sums, absorbs=True)
    outputs = [
        call.signal(call.spread(own, -1, k), call.spread(emitted, -1, k), k)
        for k in range(len(call.shapes))
    ]
    for function in (layer.activation, getattr(layer, "recurrent_activation", None)):
        activate(call, outputs[0], function)
    return outputs


def _states(arguments: dict[str, Any]) -> list[Any]:
    return [state for state in tree.flatten(arguments.get("initial_state")) if state is not None]


def _silent(call: Call, cell: Call, value: np.ndarray, starts: list[np.ndarray]) -> np.ndarray:
    """Returns 0 for units whose state is 0 at every step, NaN for all others.

    Without incoming weights a unit is no constant: its biases drive the state. But it stays 0 if it
    starts there and nothing, no bias either, ever reaches the gate that fills its state.
    """
    recurrent = cell.read("recurrent_kernel")
    units = len(recurrent)
    first = _FILLING_GATE[type(call.operation)] * units
    gate = slice(first, first + units)
    silent = ~(cell.read("kernel")[value != 0, gate] != 0).any(0)
    if cell.variable("bias") is not None:
        silent &= ~(cell.read("bias").reshape(-1, len(recurrent.T))[:, gate] != 0).any(0)
    for start in starts:
        silent &= start == 0
    silent &= mapped(call, call.operation.activation, np.zeros(units)) == 0
    while (reached := silent & (recurrent[~silent, gate] != 0).any(0)).any():
        silent &= ~reached
    return np.where(silent, 0.0, np.nan)


@register_rule(layers.Bidirectional)
def bidirectional(call: Call) -> list[Signal]:
    """One layer forwards and one backwards in time, their outputs merged.

    Keras takes both to be of one width, so unit j of one goes or stays with unit j of the other.
    """
    layer = call.operation
    pair = (layer.forward_layer, layer.backward_layer)
    for each in pair:
        if rule_for(each) is not recurrent:
            return call.barrier(f"wraps '{each.name}' ({type(each).__name__}), which has no rule")
    if layer.stateful:
        return call.barrier(_STATEFUL)
    if pair[0].units != pair[1].units:
        return call.barrier("runs layers of different widths")
    arguments = call.arguments
    states = _states(arguments)
    call.keep_masks(arguments["sequences"], *states)
    half = len(states) // 2
    count = (len(call.shapes) - (1 if layer.merge_mode else 2)) // 2
    width = (pair[0].units,)
    runs = [
        recurrent(
            call.inside(
                attribute,
                config,
                args=[arguments["sequences"]],
                kwargs={"initial_state": start or None},
                shapes=[(*call.shapes[0][:-1], *width), *[width] * count],
            )
        )
        for attribute, config, start in (
            ("forward_layer", "layer.config.", states[:half]),
            ("backward_layer", "backward_layer.config.", states[half:]),
        )
    ]
    (forwards, *first), (backwards, *second) = map(_listed, runs)
    call.tie(forwards.labels, backwards.labels)
    if layer.merge_mode is None:
        return [forwards, backwards, *first, *second]
    both = [forwards.value, backwards.value]
    if layer.merge_mode == "concat":
        labels = np.concatenate([forwards.labels, backwards.labels], -1)
        return [call.signal(labels, np.concatenate(both, -1)), *first, *second]
    value = {"sum": sum(both), "ave": sum(both) / 2, "mul": product(both)}[layer.merge_mode]
    return [call.signal(forwards.labels, value), *first, *second]


@register_rule(layers.TimeDistributed)
def time_distributed(call: Call) -> list[Signal]:
    """One layer at every step: its own rule, for a tensor without the axis of time."""
    inner = call.operation.layer
    rule = rule_for(inner)
    if rule is None:
        return call.barrier(f"wraps '{inner.name}' ({type(inner).__name__}), which has no rule")
    call.keep_masks(call.x)
    x = call.collapse(call.x, (0,))
    outputs = rule(
        call.inside(
            "layer",
            "layer.config.",
            args=[Signal(x.shape[1:], x.labels[0], x.value[0])],
            kwargs={"training": True} if call.training else {},
            shapes=[shape[1:] for shape in call.shapes],
            times=x.shape[0],
        )
    )
    return [call.signal(s.labels[None], s.value[None], k) for k, s in enumerate(_listed(outputs))]


def _listed(outputs: Signal | Iterable[Signal]) -> list[Signal]:
    return [outputs] if isinstance(outputs, Signal) else list(outputs)
