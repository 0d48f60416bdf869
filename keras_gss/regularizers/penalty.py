"""Penalties of other authors: their base, and the two ways to put one on a whole model."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import keras
from keras import ops

from keras_gss import _checks, norms
from keras_gss.regularizers.cross_layer import CrossLayerRegularizer
from keras_gss.regularizers.neuron_sums import PowerSums, neuron_strengths

if TYPE_CHECKING:
    from keras_gss.graph import NeuronGroup


class Penalty(keras.Regularizer):
    """Base of the penalties that do not care what a group is.

    A new one overrides `of_weights`, or sets `orders` and overrides `of_groups`, or both.
    Called with a kernel, it groups by rows and, once more, by columns: by the last two axes, for
    convolutions the input and the output channels. `CrossLayer` groups by neurons instead.

    Args:
        factor: strength, finite and >= 0.

    Attributes:
        orders: the p of the sums that `of_groups` needs; none if it is about single weights.

    Raises:
        ValueError: an argument out of its range, named in the message.
    """

    orders: ClassVar[tuple[int, ...]] = ()

    def __init__(self, factor: float) -> None:
        self.factor = _checks.check_factor("factor", factor)

    def of_weights(self, w: Any) -> Any:
        """Returns the part that is about the single weights of one kernel, without the factor."""
        return ops.zeros((), dtype=ops.dtype(w))

    def of_groups(self, *sums: Any) -> Any:
        """Returns the part that is about groups, without the factor.

        Args:
            sums: for each p of `orders` ||w_g||_p^p of groups that cover every weight once,
                shape (groups,).
        """
        raise NotImplementedError(f"{type(self).__name__} does not define `of_groups`.")

    def of_layer(self, layer: int, layers: int) -> Penalty:
        """Returns the penalty for layer 1 .. `layers` of a model, here the same for all."""
        return self

    def __call__(self, x: Any) -> Any:
        """Returns the penalty of a kernel, a scalar tensor, at least in float32."""
        if not self.factor:
            return ops.zeros(())
        w = norms.as_float(x)
        total = self.of_weights(w)
        if self.orders:
            axes = range(len(w.shape))[-2:]
            sums = [norms.power_sums(w, p, axes) for p in self.orders]
            total += sum(self.of_groups(*each) for each in zip(*sums, strict=True))
        return self.factor * total

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor, plain values."""
        return {"factor": self.factor}


@keras.saving.register_keras_serializable("keras_gss")
class CrossLayer(CrossLayerRegularizer):
    """A penalty whose groups are the neurons of a model: all incoming and outgoing weights of one.

    What the penalty says of groups is summed over the neuron groups that `find_groups` finds;
    what it says of single weights, over the kernels that these consist of, once each. So a penalty
    can be compared with the single-kernel form of itself, and with GSS under the same grouping.

    Args:
        penalty: a `Penalty`, such as `GroupLasso(1e-4)`; its factor counts.
        inputs: whether the input features of the model are groups too.

    Raises:
        ValueError: an argument out of its range, named in the message.

    Example:
    >>> import keras, keras_gss as gss
    >>> model = keras.Sequential(
    ...     [keras.Input((4,)), keras.layers.Dense(3), keras.layers.Dense(2)])
    >>> [group.size for group in gss.attach(model, gss.CrossLayer(gss.GroupLasso(1e-4)))]
    [3]
    """

    def __init__(self, penalty: Penalty, inputs: bool = False) -> None:
        self.penalised = _regularizer("penalty", penalty, Penalty, "such as GroupLasso(1e-4)")
        super().__init__(self.penalised.factor, inputs)

    def terms(self, groups: Sequence[NeuronGroup]) -> list[Any]:
        """Returns the penalty of each group, scalar tensors, without the factor."""
        sums = [PowerSums(p, groups) for p in self.penalised.orders]
        terms = []
        shares = zip(groups, kernels_by_group(groups), strict=True)
        for layer, (group, kernels) in enumerate(shares, start=1):
            penalty = self.penalised.of_layer(layer, len(groups))
            parts = [penalty.of_weights(norms.as_float(each)) for each in kernels]
            if sums:
                parts.append(penalty.of_groups(*[neuron_strengths(group, each) for each in sums]))
            terms.append(_sum(parts, groups))
        return terms

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor, plain values."""
        return {"penalty": keras.regularizers.serialize(self.penalised), "inputs": self.inputs}


@keras.saving.register_keras_serializable("keras_gss")
class EachKernel(CrossLayerRegularizer):
    """A penalty on one kernel, on every kernel that makes or reads removable neurons, once each.

    `attach`, `GroupSparsity` and `compress` put it around a penalty on one kernel that they are
    given, so that such a penalty covers the same weights as one across layers.

    Args:
        regularizer: any Keras regularizer that is called with one kernel.
        inputs: whether the kernels that read the input features of the model are covered even if
            they neither make nor read removable neurons.

    Raises:
        ValueError: an argument out of its range, named in the message.

    Example:
    >>> import keras, keras_gss as gss
    >>> model = keras.Sequential([
    ...     keras.Input((4,)), keras.layers.Dense(3, kernel_initializer="ones"),
    ...     keras.layers.Dense(2, kernel_initializer="ones")])
    >>> groups = gss.attach(model, gss.EachKernel(gss.L1(0.5)))
    >>> float(sum(model.losses))
    9.0
    """

    def __init__(self, regularizer: keras.Regularizer, inputs: bool = False) -> None:
        super().__init__(1.0, inputs)
        self.regularizer = _regularizer(
            "regularizer", regularizer, keras.Regularizer, "on one kernel, such as L1(1e-4)"
        )

    def terms(self, groups: Sequence[NeuronGroup]) -> list[Any]:
        """Returns the penalty of the kernels that each group is the first to hold, scalars."""
        shares = kernels_by_group(groups)
        count, layer = sum(map(len, shares)), itertools.count(1)
        return [
            _sum([_of_layer(self.regularizer, next(layer), count)(k) for k in kernels], groups)
            for kernels in shares
        ]

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor, plain values."""
        regularizer = keras.regularizers.serialize(self.regularizer)
        return {"regularizer": regularizer, "inputs": self.inputs}


def as_cross_layer(regularizer: Any) -> CrossLayerRegularizer:
    """Returns a penalty for a whole model: the one given, or `EachKernel` around one on a kernel.

    Raises:
        TypeError: if `regularizer` is no Keras regularizer.
    """
    if isinstance(regularizer, CrossLayerRegularizer):
        return regularizer
    if isinstance(regularizer, keras.Regularizer):
        return EachKernel(regularizer)
    raise TypeError(
        "`regularizer` must be a cross-layer penalty such as GSSStructure(1e-6), or a penalty on "
        f"one kernel such as L1(1e-4). Received: regularizer={regularizer!r}"
    )


def kernels_by_group(groups: Sequence[NeuronGroup]) -> list[list[Any]]:
    """Returns the variables of each group's slices, each with the first group that holds it."""
    seen: set[int] = set()
    shares: list[list[Any]] = []
    for group in groups:
        shares.append([])
        for part in (*group.incoming, *group.outgoing):
            if id(part.weight) not in seen:
                seen.add(id(part.weight))
                shares[-1].append(part.weight)
    return shares


def _of_layer(regularizer: Any, layer: int, layers: int) -> Any:
    return regularizer.of_layer(layer, layers) if isinstance(regularizer, Penalty) else regularizer


def _sum(values: Sequence[Any], groups: Sequence[NeuronGroup]) -> Any:
    """Adds up scalars; if there are none, to a zero of the type that the groups' others have."""
    weights = (part.weight for group in groups for part in (*group.incoming, *group.outgoing))
    zero = ops.zeros((), ops.dtype(norms.as_float(next(weights))))
    return sum((norms.as_float(value) for value in values), start=zero)


def _regularizer(name: str, value: Any, kind: type, expected: str) -> Any:
    found = keras.regularizers.get(value) if isinstance(value, dict) else value
    if not isinstance(found, kind) or isinstance(found, CrossLayerRegularizer):
        raise _checks.reject(name, f"a penalty {expected}", value)
    return found
