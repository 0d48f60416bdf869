"""From a model with dead neurons to a smaller ordinary model that computes the same thing."""

import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import keras
import numpy as np
from keras import tree

from keras_gss import _keras
from keras_gss._checks import check_choice
from keras_gss._probe import (
    in_float64,
    max_difference,
    may_be_rounding,
    random_inputs,
    tolerance,
)
from keras_gss.graph import Liveness, Signal, Trace, liveness, trace
from keras_gss.graph.groups import groups_of
from keras_gss.graph.liveness import border_constants
from keras_gss.graph.records import WeightAxis
from keras_gss.regularizers.cross_layer import CrossLayerRegularizer

_CHECK_BATCH = 4
_LARGE = 100_000  # numbers in a sample; one such says enough, and four need four times the memory


@dataclass(frozen=True)
class SlimReport:
    """What `slim` did.

    Attributes:
        cut: `{group name: (neurons before, after)}` for every group that can lose neurons.
        kept: `{layer path: reason}` for what stays although it might be expected to go.
        input_features: `{input name: (features, features used)}`.
        selected: `{input name: indices into the flattened input}` of the features that a narrowed
            model reads; empty when the inputs are kept.
        max_difference: largest |slim - masked| over the largest |masked| on the random check
            inputs; None if it was not checked.
    """

    cut: dict[str, tuple[int, int]]
    kept: dict[str, str]
    input_features: dict[str, tuple[int, int]]
    selected: dict[str, np.ndarray]
    max_difference: float | None

    def summary(self) -> str:
        """Returns the report as text, one line per group, input and kept layer."""
        lines = [f"{name}: {old} -> {new} neurons" for name, (old, new) in self.cut.items()]
        for name, (features, used) in self.input_features.items():
            lines.append(f"{name}: {used} of {features} input features are used")
        lines += [f"kept {path}: {reason}" for path, reason in self.kept.items()]
        if self.max_difference is not None:
            lines.append(f"largest relative difference of the outputs: {self.max_difference:.1e}")
        return "\n".join(lines)


def slim(
    model: keras.Model,
    inputs: Literal["keep", "narrow", "select"] = "keep",
    check: bool = True,
    return_report: bool = False,
) -> keras.Model | tuple[keras.Model, SlimReport]:
    """Cuts every neuron that a model does not need, and nothing else.

    A neuron goes when all its outgoing weights are zero, or when it provably emits a constant that
    the biases behind it can absorb; what dies because of that goes too. Masks and penalties of
    this library are dropped. No layer is cut to zero width: one neuron stays.

    Args:
        model: a built Keras 3 Sequential or functional model, from `gss.prune` for instance; it is
            not changed.
        inputs: what becomes of input features that nothing reads. `"keep"` leaves the input as it
            is (a gather costs more than it saves), `"narrow"` makes a model that takes the used
            features only, `"select"` puts a selection of them in front.
        check: compare the two models on random inputs.
        return_report: return `(model, SlimReport)`.

    Returns:
        An ordinary, uncompiled Keras model with the same layer names, which loads without
        keras_gss.

    Raises:
        TypeError, ValueError: for a model without a graph, unbuilt, or with NaN weights; for an
            input that cannot be narrowed.
        RuntimeError: if the check finds that the outputs differ.

    Example:
    >>> import keras, numpy as np, keras_gss as gss
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, activation="relu"),
    ...                           keras.layers.Dense(2)])
    >>> kernel = model.layers[1].kernel
    >>> _ = kernel.assign(kernel * np.array([[1.0], [0.0], [1.0]]))  # nothing reads neuron 1
    >>> gss.slim(model).layers[0].units
    2
    """
    check_choice("inputs", inputs, ("keep", "narrow", "select"))
    _keras.check_model(model, "slim")
    model = _keras.without_wrappers(model)
    found = trace(model)
    difference = None
    with _keras.full_precision():
        live = liveness(found, inputs=inputs != "keep")
        narrowed = {} if inputs == "keep" else _narrowed_inputs(model, live)
        # What the cut model has to say is computed before it takes memory.
        expected = _outputs(model) if check else None
        small = _cut(model, live, narrowed)
        if inputs == "select":
            small = _select(model, small, narrowed)
        if check:
            difference = _check(model, small, expected, {} if inputs == "select" else narrowed)
    if not return_report:
        return small
    selected = {} if inputs == "keep" else {n.name: n.flat for n in narrowed.values()}
    return small, _report(found, live, selected, difference)


@dataclass(frozen=True, eq=False)
class _Narrowed:
    """How one model input shrinks: positions kept per axis, or of the flattened sample."""

    name: str
    flat: np.ndarray
    axes: tuple[np.ndarray, ...] | None
    shape: tuple[int | None, ...]

    def __call__(self, x: Any) -> Any:
        if self.axes is None:
            x = keras.ops.reshape(x, (-1, int(np.prod(self.shape))))
            return keras.ops.take(x, self.flat, axis=1)
        for axis, positions in enumerate(self.axes):
            if self.shape[axis] is not None and len(positions) < self.shape[axis]:
                x = keras.ops.take(x, positions, axis=axis + 1)
        return x


def _narrowed_inputs(model: keras.Model, live: Liveness) -> dict[int, _Narrowed]:
    narrowed = {}
    for operation, signal in live.trace.inputs:
        kept = live.keep(signal.labels)
        axes = range(kept.ndim)
        lines = [kept.any(tuple(a for a in axes if a != axis)) for axis in axes]
        rectangle = np.ix_(*lines) if kept.ndim else ()
        full = np.broadcast_to(kept, [size or 1 for size in signal.shape])
        positions: tuple[np.ndarray, ...] | None = tuple(
            np.arange(size or 1) if kept.shape[axis] == 1 else np.flatnonzero(lines[axis])
            for axis, size in enumerate(signal.shape)
        )
        if not kept[rectangle].all():
            if not _only_flattened(model, operation):
                raise ValueError(
                    f"The used features of the input '{operation.name}' form no rectangle in its "
                    f"shape {signal.shape}, so it cannot be narrowed. Use `inputs='keep'`."
                )
            positions = None
        flat = np.flatnonzero(full)
        narrowed[id(operation)] = _Narrowed(operation.name, flat, positions, signal.shape)
    return narrowed


def _only_flattened(model: keras.Model, operation: Any) -> bool:
    """Tells whether every reader of a model input is a channels-last `Flatten`."""
    tensors = {id(source.tensor) for source in _keras.sources(model) if source.layer is operation}
    readers = [
        node.layer for node in _keras.nodes(model) if any(id(x) in tensors for x in node.inputs)
    ]
    flatten = _keras.library_of(model).layers.Flatten
    return all(isinstance(r, flatten) and r.data_format == "channels_last" for r in readers)


def _cut(model: keras.Model, live: Liveness, narrowed: dict[int, _Narrowed]) -> keras.Model:
    found = live.trace
    variables = {id(v): v for v in model.weights}
    changed: dict[int, np.ndarray] = {}
    added = {}
    for edge in found.edges.values():
        folded = live.folded(edge)
        if not folded.any():
            continue
        if edge.bias is not None:
            bias = changed.get(id(edge.bias), found.read(edge.bias))
            changed[id(edge.bias)] = bias + folded
        else:
            added[id(edge.layer), "bias"] = folded[..., live.keep(edge.outputs)]
    for key, rescale in found.rescales.items():
        kept = live.keep(rescale.labels)
        value = changed.get(key, found.read(variables[key]))
        factor = rescale.compute(kept.size, int(kept.sum()))
        changed[key] = (value * factor).astype(value.dtype)
    resized: dict[int, dict[str, Any]] = {}
    for (operation, key), resize in found.resizes.items():
        sizes = live.sizes(resize.signal.labels, resize.signal.shape)
        if operation in narrowed and narrowed[operation].axes is None:
            sizes = (len(narrowed[operation].flat),)
        resized.setdefault(operation, {})[key] = resize.compute(sizes)
    for (operation, key), entry in found.listed.items():
        remaining = np.compress(live.keep(entry.labels), entry.values)
        resized.setdefault(operation, {})[key] = remaining.tolist()

    def edit(operation: Any, config: dict[str, Any]) -> dict[str, Any]:
        config = _plain(config)
        for key, value in resized.get(id(operation), {}).items():
            _keras.put(config, key, value)
        if (id(operation), "bias") in added:
            config["use_bias"] = True
        return config

    return _keras.rebuild(model, edit, _Cut(variables, changed, live), added)


class _Cut(Mapping[int, np.ndarray]):
    """The values of variables without what is cut off, each made when asked for."""

    def __init__(
        self, variables: Mapping[int, Any], changed: Mapping[int, np.ndarray], live: Liveness
    ) -> None:
        self._variables, self._changed, self._live = variables, changed, live
        self._axes: dict[int, list[tuple[int, WeightAxis]]] = {}
        for (variable, axis), declared in live.trace.axes.items():
            self._axes.setdefault(variable, []).append((axis, declared))

    def __getitem__(self, key: int) -> np.ndarray:
        value = self._changed.get(key)
        if value is None:
            value = self._live.trace.read(self._variables[key])
        kept = {}
        for axis, declared in self._axes.get(key, ()):
            if declared.role == "outgoing":
                value = _zeroed(value, axis, self._live.silenced(declared.labels))
            kept[axis] = self._live.keep(declared.labels)
        for axis in sorted(kept, key=lambda axis: kept[axis].mean()):  # what cuts most comes first
            if not kept[axis].all():
                value = np.compress(kept[axis], value, axis)
        return value

    def __iter__(self) -> Iterator[int]:
        return iter(self._variables)

    def __len__(self) -> int:
        return len(self._variables)


def _zeroed(value: np.ndarray, axis: int, positions: np.ndarray) -> np.ndarray:
    along = np.where(positions, 0, 1).astype(value.dtype)
    shape = [1] * value.ndim
    shape[axis] = -1
    return value * along.reshape(shape) if positions.any() else value


def _plain(config: Any) -> Any:
    """Replaces masks and penalties of this library in a config by the user's own beside them."""
    if isinstance(config, list | tuple):
        return type(config)(_plain(each) for each in config)
    if not isinstance(config, dict):
        return config
    kind = _keras.class_of(config)
    if kind is not None and issubclass(kind, CrossLayerRegularizer):
        return None
    if not _keras.is_own_config(config):
        return {key: _plain(value) for key, value in config.items()}
    held = config["config"]
    inside = (_plain(each) for each in held.get("regularizers", [held.get("wrapped")]))
    return _in_one([own for own in inside if own is not None])


def _in_one(configs: list[dict[str, Any]]) -> dict[str, Any] | None:
    """Returns one serialised regularizer that equals several: a weight cannot have more."""
    if len(configs) < 2:
        return configs[0] if configs else None
    if all(each["class_name"] in ("L1", "L2", "L1L2") for each in configs):
        factors = {key: sum(c["config"].get(key, 0.0) for c in configs) for key in ("l1", "l2")}
        return {**configs[0], "class_name": "L1L2", "config": factors}
    first, *others = (each["class_name"] for each in configs)
    warnings.warn(
        f"A weight declares {first} beside {', '.join(others)}. An ordinary layer holds one "
        f"regularizer, so the slim model keeps {first} only; it matters if you train it on.",
        stacklevel=2,
    )
    return configs[0]


def _select(model: keras.Model, small: keras.Model, narrowed: dict[int, _Narrowed]) -> keras.Model:
    """Puts the selection of the used input features in front of a narrowed model."""
    library = _keras.library_of(model)
    sources = _keras.sources(model)
    fronts = [
        library.Input(
            batch_size=source.shape[0],
            shape=source.shape[1:],
            dtype=source.dtype,
            name=source.layer.name,
        )
        for source in sources
    ]
    chosen = [
        narrowed[id(source.layer)](front) for source, front in zip(sources, fronts, strict=True)
    ]
    outputs = _keras.graph_of(small).call(
        tree.pack_sequence_as(_keras.input_structure(small), chosen)
    )
    structure = tree.pack_sequence_as(_keras.input_structure(model), fronts)
    return library.Model(structure, outputs, name=model.name)


def _check(
    model: keras.Model, small: keras.Model, expected: Any, narrowed: dict[int, _Narrowed]
) -> float | None:
    """Compares the outputs on random inputs; in float64 where float32 rounding blurs them."""
    allowed = tolerance(model)
    ways = [narrowed[id(source.layer)] for source in _keras.sources(model)] if narrowed else []
    difference = _difference(model, small, expected, ways, allowed)
    if difference is None:
        warnings.warn(
            f"'{model.name}' gives two different outputs for the same input, so `slim` could not "
            "compare the cut model with it.",
            stacklevel=3,
        )
        return None
    decisive = difference
    if may_be_rounding(model, difference):
        exact = in_float64(model)
        decisive = _difference(exact, in_float64(small), _outputs(exact), ways, allowed)
    if decisive is None or not decisive <= allowed:
        raise RuntimeError(
            f"The cut model's outputs differ from those of '{model.name}' by {decisive:.1e} of the "
            f"largest output (allowed: {allowed:.0e}). Nothing was returned; please report this "
            "model."
        )
    return difference


def _outputs(model: keras.Model) -> Any:
    return _keras.predict_lean(model, _check_inputs(model))


def _check_inputs(model: keras.Model) -> Any:
    inputs = random_inputs(model, 1)
    large = sum(np.size(x) for x in tree.flatten(inputs)) >= _LARGE
    return inputs if large else random_inputs(model, _CHECK_BATCH)


def _difference(
    model: keras.Model,
    small: keras.Model,
    expected: Any,
    narrowed: list[_Narrowed],
    noise: float,
) -> float | None:
    """Returns the relative difference of the outputs, None if the model alone makes it `noise`."""
    fewer = tree.flatten(_check_inputs(model))
    if narrowed:
        fewer = [
            narrow(keras.ops.convert_to_tensor(x))
            for narrow, x in zip(narrowed, fewer, strict=True)
        ]
    structure = _keras.input_structure(small)
    received = _keras.predict_lean(small, tree.pack_sequence_as(structure, fewer))
    difference, scale = max_difference(expected, received)
    scale = scale or 1.0
    if not difference <= noise * scale:
        again, _ = max_difference(expected, _outputs(model))
        if again > noise * scale:
            return None
    return difference / scale


def _report(
    found: Trace, live: Liveness, selected: dict[str, np.ndarray], difference: float | None
) -> SlimReport:
    groups = groups_of(found)
    cut = {group.name: (group.size, live.width(group)) for group in groups if group.removable}
    kept = dict(groups.skipped)
    for path, (number, reason) in border_constants(live).items():
        kept[path] = f"{number} of the neurons it reads stay: {reason}"
    return SlimReport(cut, kept, _used_features(found), selected, difference)


def _used_features(found: Trace) -> dict[str, tuple[int, int]]:
    live = liveness(found, inputs=True)

    def used(signal: Signal) -> tuple[int, int]:
        full = np.broadcast_to(live.keep(signal.labels), [size or 1 for size in signal.shape])
        return full.size, int(full.sum())

    return {operation.name: used(signal) for operation, signal in found.inputs}
