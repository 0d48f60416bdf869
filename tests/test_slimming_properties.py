"""`slim` and `find_groups` on random models with planted dead neurons, against an independent oracle.

More cases than run here: `python tests/fuzz.py --cases 20000 --seed 0`.
"""

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import keras
import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from random_models import Case, random_case

import keras_gss as gss

CASES = 400
TOLERANCE = {"float32": 1e-5, "float64": 1e-10}


def arrays(outputs) -> list[np.ndarray]:
    return [keras.ops.convert_to_numpy(y) for y in keras.tree.flatten(outputs)]


def layers_by_path(model: keras.Model, prefix: tuple[str, ...] = ()) -> dict:
    found = {}
    for layer in model.layers:
        found[*prefix, layer.name] = layer
        if isinstance(layer, keras.Model):
            found |= layers_by_path(layer, (*prefix, layer.name))
    return found


def snapshot(model: keras.Model) -> tuple:
    """Everything of a model that `slim` may not change."""
    layers = layers_by_path(model).values()
    nodes = [(len(layer._inbound_nodes), len(layer._outbound_nodes)) for layer in layers]
    return model.to_json(), nodes, [w.numpy().tobytes() for w in model.variables]


def largest_difference(first: list[np.ndarray], second: list[np.ndarray]) -> float:
    """Largest |a - b| over the largest |a|, the worst of all outputs."""
    worst = 0.0
    for a, b in zip(first, second, strict=True):
        assert a.shape == b.shape
        assert np.isfinite(a).all()
        worst = max(worst, float(np.abs(a - b).max() / (np.abs(a).max() or 1.0)))
    return worst


def check_weights(case: Case, small: keras.Model) -> None:
    """Exactly the needed slices stay, unchanged; biases gain exactly the constants cut before them."""
    found = layers_by_path(small)
    assert list(found) == list(layers_by_path(case.model))
    tolerance = 1e-5 if case.dtype == "float32" else 1e-7
    for piece in case.program.pieces:
        if not piece.weights:
            continue
        layer = found[piece.path]
        assert type(layer) is type(piece.layer)
        expected = case.oracle.expected_weights(piece)
        if piece.family == "linear":
            folded = case.oracle.folded(piece)
            if case.oracle.gains_bias(piece):
                expected["bias"] = expected.get("bias", 0.0) + folded
        actual = {v.path.split("/")[-1]: keras.ops.convert_to_numpy(v) for v in layer.weights}
        shapes = {name: value.shape for name, value in actual.items()}
        wanted = {name: value.shape for name, value in expected.items()}
        assert shapes == wanted, f"{piece.path}: left {shapes}, expected {wanted}"
        for name, value in actual.items():
            if name == "bias" and piece.family == "linear":
                # what an unneeded neuron adds, kept for the sake of a width of 1, is of no concern
                units = case.oracle.units[id(piece)]
                read = case.oracle.is_read(units)[case.oracle.kept(units)]
                value, wanted = value[read], expected[name][read]
                scale = 1 + np.abs(wanted).max(initial=0.0)
                np.testing.assert_allclose(
                    value, wanted, rtol=0, atol=tolerance * scale, err_msg=str(piece.path)
                )
            else:
                np.testing.assert_array_equal(value, expected[name], err_msg=str(piece.path))


def check_groups(case: Case) -> None:
    """Every position of every declared weight belongs to the neuron that the oracle says."""
    groups = gss.find_groups(case.model)
    oracle = case.oracle
    pieces = {id(p.layer): p for p in case.program.pieces if p.weights}
    neuron_of: dict[tuple[int, int], int] = {}
    covered = set()
    for number, group in enumerate(groups):
        if not group.removable:
            continue
        for piece_slice in (*group.incoming, *group.outgoing, *group.companions):
            piece = pieces[id(piece_slice.layer)]
            roots = oracle.roots(oracle.axis_units(piece, piece_slice))
            assert piece_slice.index.shape == roots.shape
            for position in np.flatnonzero(piece_slice.index >= 0):
                neuron = (number, int(piece_slice.index[position]))
                assert roots[position] != 0, (group.name, piece.path)
                assert neuron_of.setdefault(neuron, int(roots[position])) == roots[position]
                covered.add((piece.path, piece_slice.weight.path, piece_slice.axis, int(position)))
    assert len(set(neuron_of.values())) == len(neuron_of), "one unit in two neurons"
    assert set(neuron_of.values()) == oracle.removable_units()
    for piece in pieces.values():
        for variable in piece.layer.weights:
            for axis in range(len(variable.shape)):
                roots = oracle.axis_roots(piece, variable.path.split("/")[-1], axis)
                for position in np.flatnonzero(roots):
                    assert (piece.path, variable.path, axis, int(position)) in covered


def check_case(case: Case, more: bool = False) -> float:
    """Asserts all that must hold of `slim` on one case; returns the relative difference.

    Args:
        case: the generated model.
        more: also save, load, train a step, narrow the inputs.
    """
    before = snapshot(case.model)
    small, report = gss.slim(case.model, return_report=True)
    assert snapshot(case.model) == before, "the input model was changed"
    assert "keras_gss" not in small.to_json()
    assert type(small) is type(case.model) and small.name == case.model.name

    inputs = case.inputs()
    expected = arrays(case.model(inputs))
    difference = largest_difference(expected, arrays(small(inputs)))
    assert difference <= TOLERANCE[case.dtype]

    check_weights(case, small)
    again = gss.slim(small, check=False)
    assert again.to_json() == small.to_json()
    for a, b in zip(again.weights, small.weights, strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy())
    return difference
