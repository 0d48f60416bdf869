"""ADMM pruning: weights drawn to what a hard constraint on their number would leave of them."""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_gss import norms
from keras_gss._checks import (
    check_choice,
    check_factor,
    check_flag,
    check_integer,
    is_real,
    reject,
)
from keras_gss._keras import to_numpy, track_state, untrack_state
from keras_gss.graph import find_groups
from keras_gss.procedures.base import AfterEpoch, Procedure
from keras_gss.procedures.losses import AddedLosses
from keras_gss.pruning.pieces import Part, neuron_strengths
from keras_gss.pruning.thresholds import GRANULARITIES
from keras_gss.pruning.weights import compared, weights_of


class ADMM(Procedure):
    """Trains under rho/2 ||W - Z + U||_F^2, where Z is W + U with its weakest members at zero.

    Every `update_every` epochs Z becomes the projection of W + U, its largest members and zeros for
    the rest, and U grows by W - Z. A threshold has to make the zeros afterwards. Source: Zhang et
    al., "A Systematic DNN Weight Pruning Framework using Alternating Direction Method of
    Multipliers", ECCV 2018; they prune LeNet-5 by .80, .92, .991 and .93, with rho 1e-4 and an l2
    penalty of 5e-5, which can be given beside as a `regularizer`.

    Args:
        sparsity: the share of members that are zero in Z, 0 <= sparsity < 1: a number for all
            kernels or neuron groups, or a dict by the names of layers ("element") or of groups
            ("neuron"), in which those left out are free. At least one member stays.
        rho: strength, finite and >= 0.
        update_every: epochs between two updates of Z and U.
        granularity: "element" for the largest weights of each kernel, "neuron" for the neurons of
            each group whose in- and outgoing weights have the largest root-mean-square.
        inputs: whether the input features of the model are a group too ("neuron").

    Raises:
        ValueError: an argument out of its range, named in the message; in `begin`, names that the
            model does not have, or nothing that could be pruned.

    Example:
    >>> import keras_gss as gss
    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, use_bias=False)])
    >>> model.set_weights([np.array([[3.0], [-4.0]])])
    >>> admm = gss.ADMM(sparsity=0.5, rho=1.0)
    >>> float(sum(admm.begin(model).losses))  # (3 - 0)^2 / 2
    4.5
    >>> model = admm.end(model)
    """

    def __init__(
        self,
        sparsity: float | Mapping[str, float],
        rho: float = 1e-4,
        update_every: int = 1,
        granularity: str = "element",
        inputs: bool = False,
    ) -> None:
        self.sparsity = _check_sparsity(sparsity)
        self.rho = check_factor("rho", rho)
        self.update_every = check_integer("update_every", update_every, minimum=1)
        self.granularity = check_choice("granularity", granularity, GRANULARITIES)
        self.inputs = check_flag("inputs", inputs)

    def begin(self, model: keras.Model) -> keras.Model:
        """Puts the quadratic loss on the kernels, in place, with U = 0."""
        find = _kernels if self.granularity == "element" else _neurons
        self._members = find(model, self.inputs)
        self._shares = self._shares_of([member.name for member in self._members])
        kernels = [part.variable for member in self._members for part in member.parts]
        self._kernels = list({id(kernel): kernel for kernel in kernels}.values())
        values = [to_numpy(kernel) for kernel in self._kernels]
        self._targets = [track_state(model, z, "admm_target") for z in self._projected(values)]
        self._duals = [keras.Variable(np.zeros_like(w), trainable=False) for w in values]
        pairs = zip(self._kernels, self._targets, strict=True)
        self._losses = AddedLosses(model, [(w, self._pull_to(target)) for w, target in pairs])
        return model

    def callbacks(self) -> list[keras.callbacks.Callback]:
        """Returns the callback that updates Z and U."""
        return [AfterEpoch(self.update)]

    def state(self) -> list[Any]:
        """Returns Z - U and U of every kernel."""
        return [*self._targets, *self._duals]

    def end(self, model: keras.Model) -> keras.Model:
        """Takes the loss off, in place."""
        self._losses.remove()
        for target in self._targets:
            untrack_state(model, target)
        return model

    def update(self, epoch: int) -> None:
        """Sets Z to the projection of W + U, then adds W - Z to U, if it is time."""
        if (epoch + 1) % self.update_every:
            return
        pairs = zip(self._kernels, self._duals, strict=True)
        shifted = [to_numpy(w) + to_numpy(u) for w, u in pairs]
        for k, z in enumerate(self._projected(shifted)):
            self._duals[k].assign(shifted[k] - z)
            self._targets[k].assign(2 * z - shifted[k])

    def _pull_to(self, target: Any) -> Any:
        return lambda w: self.rho / 2 * ops.sum(ops.square(norms.as_float(w) - target))

    def _projected(self, values: list[np.ndarray]) -> list[np.ndarray]:
        """Returns the kernels' values with zeros for all but the strongest members."""
        by_kernel = {id(w): value for w, value in zip(self._kernels, values, strict=True)}
        projected = dict(by_kernel)
        for share, member in zip(self._shares, self._members, strict=True):
            keep = strongest(member.strengths(by_kernel), share)
            for part in member.parts:
                projected[id(part.variable)] = projected[id(part.variable)] * part.spread(keep)
        return list(projected.values())

    def _shares_of(self, names: list[str]) -> list[float]:
        if not names:
            raise ValueError(f"`ADMM` finds nothing to prune at granularity='{self.granularity}'.")
        if not isinstance(self.sparsity, dict):
            return [self.sparsity] * len(names)
        if unknown := sorted(set(self.sparsity) - set(names)):
            raise reject("sparsity", f"keyed by some of {names}", unknown)
        return [self.sparsity.get(name, 0.0) for name in names]

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor, plain values."""
        names = ("sparsity", "rho", "update_every", "granularity", "inputs")
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True, eq=False)
class _Members:
    """What is compared with each other: a kernel's weights, or a group's neurons.

    Attributes:
        name: of the layer or the group.
        parts: what goes to zero with a member.
        strengths: the members' strengths by the kernels' values.
    """

    name: str
    parts: tuple[Part, ...]
    strengths: Callable[[Mapping[int, np.ndarray]], np.ndarray]


def _kernels(model: keras.Model, inputs: bool) -> list[_Members]:
    taken, _ = compared(weights_of(model), biases=False, also=())
    return [
        _Members(
            w.path.rpartition("/")[0],
            (Part(w.variable),),
            functools.partial(_magnitudes, w.variable),
        )
        for w in taken
    ]


def _magnitudes(kernel: Any, values: Mapping[int, np.ndarray]) -> np.ndarray:
    return np.abs(values[id(kernel)])


def _neurons(model: keras.Model, inputs: bool) -> list[_Members]:
    return [
        _Members(
            group.name,
            tuple(Part(s.weight, s.axis, s.index) for s in (*group.incoming, *group.outgoing)),
            functools.partial(neuron_strengths, group),
        )
        for group in find_groups(model, inputs=inputs)
        if group.removable or group.kind == "input"
    ]


def strongest(strengths: np.ndarray, sparsity: float) -> np.ndarray:
    """Tells which members stay if a share of them goes; of equal ones the first stay.

    Example:
    >>> strongest(np.array([3.0, 1.0, 2.0, 1.0]), sparsity=0.5).tolist()
    [True, False, True, False]
    """
    kept = max(1, round((1 - sparsity) * strengths.size))
    keep = np.zeros(strengths.size, bool)
    keep[np.argsort(-strengths.ravel(), kind="stable")[:kept]] = True
    return keep.reshape(strengths.shape)


def _check_sparsity(value: Any) -> float | dict[str, float]:
    if isinstance(value, Mapping):
        return {str(key): _check_below_one(f"sparsity[{key!r}]", v) for key, v in value.items()}
    return _check_below_one("sparsity", value)


def _check_below_one(name: str, value: Any) -> float:
    if not is_real(value) or not 0 <= value < 1:
        raise reject(name, "a number >= 0 and < 1", value)
    return float(value)
