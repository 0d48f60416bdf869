"""One model of `applications`: plants dead neurons, cuts them, compares all the rest.

Of `keras.applications`, or of `tf_keras.applications` where the library given is `tf_keras`.
"""

import inspect
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import keras
import numpy as np
import reload

import keras_gss as gss
from keras_gss._keras import library_of
from keras_gss.count import removable_share

SMALL = 64  # pixels; what the models are run at
LEAST = {"InceptionV3": 75, "InceptionResNetV2": 75, "Xception": 71}  # what Keras allows
NOISE = {"float32": 1e-5, "float64": 1e-7}
BATCH = 2
DEEP = 90  # normalisations
sys.setrecursionlimit(10_000)  # tf_keras follows a graph by recursion, to its full depth


def names(library=keras):
    """Returns the names of all constructors."""
    everything = sorted(vars(library.applications).items())
    return tuple(name for name, value in everything if inspect.isfunction(value))


def build(name, size=None, library=keras):
    """Builds a model without pretrained weights, for its usual input size or a given one."""
    shape = {} if size is None else {"input_shape": (size, size, 3)}
    constructor = getattr(library.applications, name)
    return constructor(weights=None, classifier_activation=None, **shape)


def randomise(model, rng):
    """Draws all weights so that a network of which half is dead still carries its input through.

    Each normalisation with an activation behind it tells similar inputs apart a little more. So
    that a rounding error stays one in a network of very many, their activations are mostly on.
    """
    layers = library_of(model).layers
    everything = list(model._flatten_layers())
    norms = sum(isinstance(layer, layers.BatchNormalization) for layer in everything)
    betas = (-0.2, 0.2) if norms <= DEEP else (0.8, 1.2)
    for layer in everything:
        if list(layer._flatten_layers(include_self=False)):
            continue  # each of its layers comes itself
        for variable in layer.trainable_weights:
            if len(variable.shape) == 1:
                centred = variable.name.split("/")[-1].split(":")[0] in ("bias", "beta")
                low, high = betas if centred else (0.5, 1.5)
                variable.assign(rng.uniform(low, high, variable.shape))
            elif isinstance(layer, (layers.Dense, layers.Conv2D)):
                deviation = 2 / np.sqrt(np.prod(variable.shape[:-1]))  # twice He's variance
                if getattr(layer.activation, "__name__", "") == "sigmoid":
                    deviation /= 10  # steep gates make a deep network chaotic, even in float64
                variable.assign(rng.normal(0, deviation, variable.shape))


def draw_statistics(model, rng):
    """Draws the statistics of all normalisations around those of a random batch.

    Statistics drawn out of nothing would fade the input from layer to layer, until the outputs
    are those of the biases alone and their equality proves little.
    """
    layers = library_of(model).layers
    everything = list(model._flatten_layers())
    for layer in everything:
        if isinstance(layer, layers.Normalization) and layer.weights:  # of pixels in 0..1
            layer.adapt_mean.assign(rng.uniform(0.4, 0.6, layer.adapt_mean.shape))
            layer.adapt_variance.assign(rng.uniform(0.05, 0.1, layer.adapt_mean.shape))
            layer.finalize_state()
    norms = [layer for layer in everything if isinstance(layer, layers.BatchNormalization)]
    momenta = [layer.momentum for layer in norms]
    for layer in norms:
        layer.momentum = 0.0
    model(inputs_for(model, rng, 8), training=True)
    for layer, momentum in zip(norms, momenta, strict=True):
        layer.momentum = momentum
        mean, variance = read(layer.moving_mean), read(layer.moving_variance)
        shift = rng.uniform(-0.2, 0.2, mean.shape) * np.sqrt(variance)
        layer.moving_mean.assign(mean + shift)
        layer.moving_variance.assign(variance * rng.uniform(0.5, 1.5, mean.shape) + 1e-3)


def plant(groups, rng):
    """Zeroes all weights that read a random half of the neurons of every removable group.

    Returns:
        `{group name: bool per neuron, true for those that stay}`.
    """
    stays, values = {}, {}
    for group in groups:
        if group.removable:
            stays[group.name] = np.ones(group.size, bool)
            stays[group.name][rng.permutation(group.size)[: group.size // 2]] = False
        for piece in group.outgoing if group.removable else ():
            value = values.setdefault(id(piece.weight), (piece.weight, read(piece.weight).copy()))
            along = np.moveaxis(value[1], piece.axis, 0)
            along[~owned(piece, stays[group.name])] = 0
    for weight, value in values.values():
        weight.assign(value)
    return stays


def read(variable):
    """Returns a variable's value."""
    return keras.ops.convert_to_numpy(variable)


def owned(piece, stays):
    """Tells for each position of a slice's axis whether it stays: others' positions do."""
    return np.where(piece.index >= 0, stays[piece.index], True)


def check_weights(model, small, groups, stays):
    """Raises unless the slim weights are the old ones without exactly the planted neurons."""
    masks = {}
    for group in groups:
        for piece in (*group.incoming, *group.outgoing, *group.companions):
            if group.removable:
                keep = owned(piece, stays[group.name])
                key = id(piece.weight), piece.axis
                masks[key] = masks.get(key, True) & keep
    for old, new in zip(model.weights, small.weights, strict=True):
        expected = read(old)
        for axis in range(expected.ndim):
            if (id(old), axis) in masks:
                expected = np.compress(masks[id(old), axis], expected, axis)
        np.testing.assert_array_equal(read(new), expected, err_msg=getattr(old, "path", old.name))


def inputs_for(model, rng, batch=BATCH):
    """Draws a batch: pixels where the model has its own preprocessing, else what it leads to."""
    layers = library_of(model).layers
    own = (layers.Rescaling, layers.Normalization)
    low, high = (0, 255) if any(isinstance(layer, own) for layer in model.layers) else (-1, 1)
    return rng.uniform(low, high, (batch, *model.input_shape[1:]))


def cut(model, seed=0):
    """Randomises, plants and cuts.

    Returns:
        `(slim model, inputs, figures)`, the figures a dict to be written down.

    Raises:
        AssertionError: if the widths or the weights are not those planted.
    """
    rng = np.random.default_rng(seed)
    randomise(model, rng)
    groups = gss.find_groups(model)
    stays = plant(groups, rng)
    draw_statistics(model, rng)
    (small, report), seconds = clock(lambda: gss.slim(model, return_report=True))
    expected = {group: (len(mask), int(mask.sum())) for group, mask in stays.items()}
    assert report.cut == expected, f"cut {report.cut}, planted {expected}"
    check_weights(model, small, groups, stays)
    x = inputs_for(model, rng)
    before = read(model(x, training=False))
    after = read(small(x, training=False))
    assert np.ptp(before, 0).max() > 0.01 * np.abs(before).max(), "the input does not get through"
    largest = float(np.abs(before - after).max() / np.abs(before).max())
    return small, x, {"difference": largest, "slim": seconds}


def train(small, x):
    """Takes one step on random targets; returns the loss.

    Raises:
        AssertionError: if the loss or a weight is no finite number, or no weight moved.
    """
    optimizer = library_of(small).optimizers.SGD(1e-3)
    small.compile(optimizer, "mse", run_eagerly=True, jit_compile=False)
    kernel = read(small.trainable_weights[0]).copy()
    loss = float(small.train_on_batch(x, np.ones((BATCH, *small.output_shape[1:]))))
    assert np.isfinite(loss), f"the loss is {loss}"
    assert all(np.isfinite(read(variable)).all() for variable in small.weights)
    assert (read(small.trainable_weights[0]) != kernel).any(), "nothing was learnt"
    return loss


def reloaded(small, x):
    """Saves, loads in a process without keras_gss and returns the differences by kind of file."""
    with tempfile.TemporaryDirectory() as folder:
        gss.export(small, Path(folder) / "small")
        small.save(Path(folder) / "small.keras")
        np.savez(Path(folder) / "io.npz", x=x, y=read(small(x, training=False)))
        done = subprocess.run(
            [sys.executable, reload.__file__, folder, library_of(small).__name__],
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise RuntimeError(f"reloading failed: {done.stderr[-2000:]}")
        return json.loads(done.stdout.splitlines()[-1])


def clock(function):
    """Returns what `function` returns, and the wall and CPU seconds it took."""
    started, used = time.perf_counter(), time.process_time()
    result = function()
    wall, cpu = time.perf_counter() - started, time.process_time() - used
    return result, {"wall_seconds": wall, "cpu_seconds": cpu}


def survey(name, library=keras):
    """Finds groups at the model's usual input size: how many, what share, how fast."""
    model = build(name, library=library)
    if None in model.input_shape[1:]:
        model = build(name, 224, library)
    gss.find_groups(model)
    groups, seconds = clock(lambda: gss.find_groups(model))
    share, counted = removable_share(model), gss.count(model)
    library.backend.clear_session()
    return {
        "input": list(model.input_shape[1:]),
        "layers": len(model.layers),
        "parameters": counted.parameters,
        "macs": counted.macs,
        "groups": len(groups),
        "removable_groups": sum(group.removable for group in groups),
        "neurons": sum(group.size for group in groups),
        "removable_parameters": share.parameters,
        "removable_macs": share.macs,
        "find_groups": seconds,
        "untouched": groups.skipped,
        "uncounted": counted.uncounted,
    }


def check(name, library=keras):
    """Does all of it for one model and returns the figures; raises where something is wrong."""
    library.utils.set_random_seed(0)
    row = survey(name, library)
    row["run_at"] = size = LEAST.get(name, SMALL)
    for dtype in NOISE:  # float64 where float32 is too noisy, and only there
        library.backend.set_floatx(dtype)
        small, x, figures = cut(build(name, size, library))
        figures["reloaded"] = reloaded(small, x)
        row[dtype] = figures
        if max(figures["difference"], *figures["reloaded"].values()) <= NOISE[dtype]:
            break
        library.backend.clear_session()
    else:
        raise AssertionError(f"outputs differ: {row['float32']}, {row['float64']}")
    half = gss.count(small)
    row |= {"half_parameters": half.parameters, "half_macs": half.macs, "loss": train(small, x)}
    return row
