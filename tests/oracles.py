"""The penalties once more, in float64 NumPy and plain loops, and gradients of either side."""

import itertools

import keras
import numpy as np


def groups_of_kernel(w, inner, middle):
    """Yields every group of a kernel as the list of its subgroups, each a flat array."""
    w = np.asarray(w, "float64")
    inner, middle = [axis % w.ndim for axis in inner], [axis % w.ndim for axis in middle]
    outer = [axis for axis in range(w.ndim) if axis not in (*inner, *middle)]
    for group in itertools.product(*[range(w.shape[axis]) for axis in outer]):
        subgroups = []
        for subgroup in itertools.product(*[range(w.shape[axis]) for axis in middle]):
            where = [slice(None)] * w.ndim
            for axis, position in zip(outer + middle, group + subgroup, strict=True):
                where[axis] = position
            subgroups.append(np.ravel(w[tuple(where)]))
        yield subgroups


def gss121(w, inner, middle):
    return sum(
        np.sqrt(sum(np.abs(part).sum() ** 2 for part in group))
        for group in groups_of_kernel(w, inner, middle)
    )


def gss212(w, inner, middle, squared=False):
    square = sum(
        sum(np.linalg.norm(part) for part in group) ** 2
        for group in groups_of_kernel(w, inner, middle)
    )
    return square if squared else np.sqrt(square)


def neurons(group, values):
    """Yields (in_j, out_j) of the neurons of a group as flat arrays; a shared entry is in out_j.

    `values` maps the id of a variable to its float64 array.
    """
    for j in range(group.size):
        entries = {}
        for role in ("incoming", "outgoing"):
            for part in getattr(group, role):
                value = values[id(part.weight)]
                positions = np.flatnonzero(part.index == j)
                numbers = np.arange(value.size).reshape(value.shape)
                for entry in np.take(numbers, positions, axis=part.axis).ravel():
                    entries[id(part.weight), entry] = (role, value.ravel()[entry])
        yield tuple(
            np.array([value for kept, value in entries.values() if kept == role])
            for role in ("incoming", "outgoing")
        )


def element(groups, values):
    return [
        sum(np.abs(into).sum() ** 2 + np.abs(out).sum() ** 2 for into, out in neurons(g, values))
        for g in groups
    ]


def deep_gss121(groups, values):
    return [
        sum(np.hypot(np.abs(into).sum(), np.abs(out).sum()) for into, out in neurons(g, values))
        for g in groups
    ]


def structure(groups, values, p, q, floor=1e-4):
    return [
        gss_structure(
            [(np.abs(np.concatenate(both)) ** p).sum() for both in neurons(group, values)],
            p,
            q,
            floor,
        )
        for group in groups
    ]


def gss_structure(strengths, p, q, floor=1e-4):
    r = p * q / (p + q)
    total = 0.0
    for strength in strengths:
        length = strength ** (1 / p)
        if (p, q) == (2, 2) or length >= floor or length == 0:
            total += length**r
        else:
            total += strength * floor ** (r - p)
    return total ** (p / r)


def finite_differences(function, values, step=1e-6):
    """Returns the central differences of a function of a list of float64 arrays, per array."""
    gradients = []
    for value in values:
        gradient = np.zeros_like(value)
        for where in np.ndindex(value.shape):
            kept = value[where]
            value[where] = kept + step
            above = function(values)
            value[where] = kept - step
            gradient[where] = (above - function(values)) / (2 * step)
            value[where] = kept
        gradients.append(gradient)
    return gradients


def gradients(function, variables):
    """Returns the gradients that the backend finds for a function that reads Keras variables."""
    if keras.backend.backend() == "jax":
        import jax

        def pure(values):
            pairs = list(zip(variables, values, strict=True))
            with keras.StatelessScope(state_mapping=pairs):
                return function()

        found = jax.grad(pure)([variable.value for variable in variables])
    else:
        import tensorflow as tf

        with tf.GradientTape() as tape:
            value = function()
        found = tape.gradient(
            value, [variable.value for variable in variables], unconnected_gradients="zero"
        )
    return [keras.ops.convert_to_numpy(each) for each in found]
