"""Penalties across layers: Keras regularizers over the groups of neurons of a whole model.

A cross-layer penalty cannot be computed from one kernel. It is declared on layers or handed to
`attach` or to the `GroupSparsity` callback, which find the groups and evaluate `penalty`.
"""

from __future__ import annotations

import numbers
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import keras
from keras import ops

from keras_gss import _checks, norms
from keras_gss._keras import in_symbolic_scope, is_silenced
from keras_gss.regularizers.neuron_sums import PowerSums, neuron_strengths, neuron_sums

if TYPE_CHECKING:
    from keras_gss.graph import NeuronGroup


class CrossLayerRegularizer(keras.Regularizer):
    """Base of the penalties across layers; a new one overrides `terms`.

    Args:
        factor: strength, the paper's lambda, finite and >= 0.
        inputs: whether the input features of the model are groups too.

    Raises:
        ValueError: an argument out of its range, named in the message.
    """

    def __init__(self, factor: float, inputs: bool = False) -> None:
        self.factor = _checks.check_factor("factor", factor)
        self.inputs = _checks.check_flag("inputs", inputs)

    def terms(self, groups: Sequence[NeuronGroup]) -> Any:
        """Returns the penalty of each group, without the factor: scalars, or shape (groups,)."""
        raise NotImplementedError(f"{type(self).__name__} does not define `terms`.")

    def total(self, terms: Any) -> Any:
        """Returns the penalty of the model from those of its groups, shape (groups,): their sum."""
        return ops.sum(terms)

    def multipliers(
        self, groups: Sequence[NeuronGroup], macs: Sequence[float] | None = None
    ) -> list[float]:
        """Returns the number by which each group's term counts: 1 unless there are weights.

        Args:
            groups: the groups penalised.
            macs: the multiply-accumulates that cutting one neuron of each group saves.
        """
        return [1.0] * len(groups)

    def penalty(
        self,
        groups: Sequence[NeuronGroup],
        factor: Any = None,
        multipliers: Sequence[float] | None = None,
    ) -> Any:
        """Returns the whole penalty over the groups given.

        Args:
            groups: the groups to penalise; their weights are read at every call.
            factor: replaces `self.factor`; a number, or a tensor or variable for a schedule.
            multipliers: one number per group; by default what `multipliers(groups)` returns.

        Returns:
            A scalar tensor, at least in float32.
        """
        return self._scaled(lambda: self.terms(groups), groups, factor, multipliers)

    def _factor(self, factor: Any) -> Any:
        if factor is None:
            return self.factor
        is_plain = isinstance(factor, (numbers.Number, str))
        return _checks.check_factor("factor", factor) if is_plain else factor

    def _scaled(self, terms_of: Callable[[], Any], groups, factor, multipliers) -> Any:
        factor = self._factor(factor)
        if _is_zero(factor) or not groups:
            return ops.zeros(())
        terms = terms_of()
        if multipliers is None:
            multipliers = self.multipliers(groups)
        terms = ops.stack(terms) if isinstance(terms, (list, tuple)) else terms
        if any(each != 1 for each in multipliers):
            terms = terms * ops.convert_to_tensor(multipliers, ops.dtype(terms))
        total = self.total(terms)
        return ops.convert_to_tensor(factor, dtype=ops.dtype(total)) * total

    def __call__(self, x: Any) -> Any:
        """Raises: one kernel alone does not determine the penalty.

        Returns:
            Zero while Keras only infers shapes (`fit` does so before it knows its callbacks), and
            for a weight of a tf_keras model that has the whole penalty attached or taken off.
        """
        if in_symbolic_scope() or is_silenced(x):
            return ops.zeros(())
        raise RuntimeError(
            f"{type(self).__name__} is declared but not bound to the groups of its model. Add "
            "callbacks=[keras_gss.GroupSparsity()] to `fit`, or call keras_gss.attach(model); "
            "keras_gss.detach(model, declared=True) drops the penalty."
        )

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor, plain values."""
        return {"factor": self.factor, "inputs": self.inputs}


@keras.saving.register_keras_serializable("keras_gss")
class GSSElement(CrossLayerRegularizer):
    """The paper's "GSS-element": lam sum_l sum_j ( ||in_j||_1^2 + ||out_j||_1^2 ).

    Or lam times the square root of that sum. The weights of a neuron compete with each other, so
    single weights become zero.

    Args:
        factor: strength, the paper's lambda, finite and >= 0.
        squared: True for the sum as it stands, False for one square root over all of it.
        inputs: whether the input features of the model are groups too.

    Raises:
        ValueError: an argument out of its range, named in the message.
    """

    def __init__(self, factor: float, squared: bool = True, inputs: bool = False) -> None:
        super().__init__(factor, inputs)
        self.squared = _checks.check_flag("squared", squared)

    def terms(self, groups: Sequence[NeuronGroup]) -> list[Any]:
        """Returns the penalty of each group, scalar tensors, without the factor."""
        sums = PowerSums(1, groups)
        return [norms.gss_element(*neuron_sums(group, sums)) for group in groups]

    def total(self, terms: Any) -> Any:
        """Returns the penalty of the model from those of its groups: their sum, or its root."""
        return ops.sum(terms) if self.squared else norms.safe_sqrt(ops.sum(terms))

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor, plain values."""
        return {**super().get_config(), "squared": self.squared}


@keras.saving.register_keras_serializable("keras_gss")
class DeepGSS121(CrossLayerRegularizer):
    """Deep GSS121, the paper's eq. 2-3: lam sum_l sum_j sqrt( ||in_j||_1^2 + ||out_j||_1^2 ).

    Args:
        factor: strength, the paper's lambda, finite and >= 0.
        inputs: whether the input features of the model are groups too.

    Raises:
        ValueError: an argument out of its range, named in the message.
    """

    def terms(self, groups: Sequence[NeuronGroup]) -> list[Any]:
        """Returns the penalty of each group, scalar tensors, without the factor."""
        sums = PowerSums(1, groups)
        return [norms.deep_gss121(*neuron_sums(group, sums)) for group in groups]


@keras.saving.register_keras_serializable("keras_gss")
class GSSStructure(CrossLayerRegularizer):
    """The paper's "GSS-structure" and its (p, q) family: lam sum_l m_l || (||w_j||_p)_j ||_r^p.

    Here 1/r = 1/p + 1/q, and w_j is all incoming and outgoing weights of neuron j of group l as
    one vector. (2, 2) is the paper's lam sum_l (sum_j sqrt( ||in_j||_2^2 + ||out_j||_2^2 ))^2.
    Neurons compete within their group, so whole neurons become zero. (1, 2), (2, 1) and (1, 1)
    are not convex; for neurons of norm between 0 and 1e-4 they are floored as
    `keras_gss.norms.gss_structure` states.

    Args:
        factor: strength, the paper's lambda, finite and >= 0.
        p: 1 or 2, the norm of a neuron's weights.
        q: 1 or 2, the norm that bounds the selection variables.
        squared: True for the sum as it stands, False for its p-th root (with p=1 the same).
        inputs: whether the input features of the model are groups too.
        refresh_every: number of steps for which the selection variables are held. 1 is the closed
            form; more is cheaper and follows the same penalty with a lag. What a loss shows of it
            is then its value at the last refresh.
        weights: the multipliers m_l. "uniform": 1. "macs": the multiply-accumulates that one
            neuron of the group costs, divided by their mean over the groups. Or a dict from names
            of groups to numbers > 0, the groups left out counting 1.

    Raises:
        ValueError: an argument out of its range, named in the message.
    """

    def __init__(
        self,
        factor: float,
        p: int = 2,
        q: int = 2,
        squared: bool = True,
        inputs: bool = False,
        refresh_every: int = 1,
        weights: str | Mapping[str, float] = "uniform",
    ) -> None:
        super().__init__(factor, inputs)
        self.p = _checks.check_choice("p", p, (1, 2))
        self.q = _checks.check_choice("q", q, (1, 2))
        self.squared = _checks.check_flag("squared", squared)
        self.refresh_every = _checks.check_integer("refresh_every", refresh_every, minimum=1)
        self.weights = _check_weights(weights)

    def strengths(self, groups: Sequence[NeuronGroup], valued: bool = True) -> list[Any]:
        """Returns s_j = ||w_j||_p^p of the neurons of each group, shape (group.size,).

        Args:
            groups: the groups.
            valued: False for zeros with the gradients of the strengths, which cost far less.
        """
        sums = PowerSums(self.p, groups, valued)
        return [neuron_strengths(group, sums) for group in groups]

    def terms(self, groups: Sequence[NeuronGroup]) -> Any:
        """Returns the penalty of each group, shape (groups,), without factor and multiplier."""
        return norms.gss_structures(self.strengths(groups), self.p, self.q)

    def total(self, terms: Any) -> Any:
        """Returns the penalty of the model from those of its groups: their sum, or its root."""
        return ops.sum(terms) if self.squared or self.p == 1 else norms.safe_sqrt(ops.sum(terms))

    def selection(
        self, groups: Sequence[NeuronGroup], strengths: Sequence[Any] | None = None
    ) -> list[Any]:
        """Returns the selection variables a_j of each group, shape (group.size,), constants.

        Args:
            groups: the groups.
            strengths: what `strengths(groups)` returned, if it is at hand.
        """
        found = self.strengths(groups) if strengths is None else strengths
        return [norms.selection_variables(each, self.p, self.q) for each in found]

    def selected_penalty(
        self,
        groups: Sequence[NeuronGroup],
        selection: Sequence[Any],
        factor: Any = None,
        multipliers: Sequence[float] | None = None,
    ) -> Any:
        """Returns the penalty with the selection variables held: lam sum_l m_l sum_j s_j / a_j^p.

        Args:
            groups: as in `penalty`.
            selection: what `selection(groups)` returned, at this step or an earlier one.
            factor: as in `penalty`.
            multipliers: as in `penalty`.

        Returns:
            A scalar tensor; with the selection of this step, value and gradient of `penalty`.
        """

        def terms() -> list[Any]:
            pairs = zip(self.strengths(groups), selection, strict=True)
            return [norms.selected_sum(each, held, self.p) for each, held in pairs]

        return self._scaled(terms, groups, factor, multipliers)

    def to_hold(self, groups: Sequence[NeuronGroup]) -> list[Any]:
        """Returns what `held_penalty` is given for some steps, constants.

        They are a_j^p of all neurons, one group after another, and sum_j s_j / a_j^p of every
        group, shape (groups,).
        """
        strengths = [ops.stop_gradient(each) for each in self.strengths(groups)]
        selection = self.selection(groups, strengths)
        pairs = zip(strengths, selection, strict=True)
        terms = [norms.selected_sum(each, chosen, self.p) for each, chosen in pairs]
        return [ops.power(norms.join(selection), self.p), ops.stack(terms)]

    def held_penalty(
        self,
        groups: Sequence[NeuronGroup],
        held: Sequence[Any],
        factor: Any = None,
        multipliers: Sequence[float] | None = None,
    ) -> Any:
        """Returns the penalty that was when the selection variables were chosen.

        Its gradient is that of `selected_penalty`, by the weights as they are; where the penalty is
        a root (`squared=False`), that of the sum as it was then.

        Args:
            groups: as in `penalty`.
            held: what `to_hold(groups)` returned at an earlier step.
            factor: as in `penalty`.
            multipliers: as in `penalty`.
        """

        def terms() -> Any:
            return norms.held_sums(self.strengths(groups, valued=False), *held)

        return self._scaled(terms, groups, factor, multipliers)

    def multipliers(
        self, groups: Sequence[NeuronGroup], macs: Sequence[float] | None = None
    ) -> list[float]:
        """Returns m_l of each group, see `weights`; `macs` is needed for weights="macs" only.

        Raises:
            ValueError: weights="macs" without `macs`, or a weight for a group that is not there.
        """
        if isinstance(self.weights, dict):
            names = [group.name for group in groups]
            if unknown := sorted(set(self.weights) - set(names)):
                raise _checks.reject("weights", f"keyed by groups, some of {names}", unknown)
            return [self.weights.get(name, 1.0) for name in names]
        if self.weights == "uniform":
            return super().multipliers(groups)
        if macs is None:
            raise ValueError('weights="macs" needs `macs`, one number per group.')
        mean = sum(macs) / len(macs)
        return [each / mean for each in macs]

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor, plain values."""
        return {
            **super().get_config(),
            "p": self.p,
            "q": self.q,
            "squared": self.squared,
            "refresh_every": self.refresh_every,
            "weights": self.weights if isinstance(self.weights, str) else dict(self.weights),
        }


def _is_zero(factor: Any) -> bool:
    """Whether the factor is the plain number 0, which needs no graph and leaves none behind."""
    return isinstance(factor, numbers.Number) and factor == 0


def _check_weights(value: Any) -> str | dict[str, float]:
    if isinstance(value, Mapping):
        return {
            str(name): _checks.check_positive(f"weights[{name!r}]", each)
            for name, each in value.items()
        }
    if value not in ("uniform", "macs"):
        raise _checks.reject(
            "weights", "'uniform', 'macs' or a dict of multipliers by group", value
        )
    return value
