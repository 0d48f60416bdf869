"""PFP: how much of what a layer adds up comes from each of its input channels."""

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from keras_gss._checks import check_integer
from keras_gss._keras import layer_inputs, library_of, to_numpy
from keras_gss._samples import check_arrays, checksum
from keras_gss.graph import NeuronGroup, WeightSlice
from keras_gss.pruning.pieces import Survey
from keras_gss.pruning.rankings import Ranking

_CHUNK = 16  # samples at a time: the contributions of one are as large as the kernel or larger


@dataclass(frozen=True, repr=False, eq=False)
class PFP(Ranking):
    """Provable filter pruning: neurons stay by their largest share in what reads them.

    The sensitivity of neuron j is the largest share, over samples, patches and outputs i, of j in
    the sum that makes i: w_ij a_j / sum_k w_ik a_k, of positive and of negative products apart.
    Leaving out neurons moves no such sum by more than the sum of their sensitivities, in parts of
    one. Drawing K S_l neurons of layer l with replacement, with probabilities s_j / S_l, keeps the
    relative error of all layers alike: so one number K serves all layers, and the
    budget or the fraction settles it. As many neurons stay as that many draws are expected to
    hit, those of the highest sensitivity; with a `seed` those that such draws do hit. (Their
    reweighting is left to the finetuning.) Source: Liebenwein, Baykal, Lang, Feldman, Rus, ICLR
    2020; the first is what their code does by default.

    Args:
        x: the inputs of a few hundred samples, an array or a list or dict of arrays.
        seed: integer >= 0 to draw the neurons; None to keep the most sensitive ones.
        fraction, per_layer, inputs, keep_strongest, round_to: see `Ranking`.

    Raises:
        ValueError: an argument is out of its range; in use, granularity="element".

    Example:
    >>> import keras, numpy as np, keras_gss as gss
    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2, use_bias=False),
    ...                           keras.layers.Dense(1, use_bias=False)])
    >>> model.set_weights([np.eye(2), np.array([[1.0], [3.0]])])
    >>> pruned = gss.prune(model, gss.PFP(np.ones((1, 2)), fraction=0.5), granularity="neuron")
    >>> print(keras.ops.convert_to_numpy(pruned.layers[1].kernel)[:, 0])  # shares 1/4 and 3/4
    [0. 3.]
    """

    x: Any
    seed: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "x", check_arrays("x", self.x))
        if self.seed is not None:
            object.__setattr__(self, "seed", check_integer("seed", self.seed))

    def scores(self, found: Survey) -> list[np.ndarray]:
        """Returns 1 / K for the least K at which each neuron stays; infinite for what must stay."""
        if any(piece.group is None for piece in found.pieces):
            raise ValueError('`PFP` ranks neurons, not single weights: use granularity="neuron".')
        given = layer_inputs(found.model, self.x)
        draws = None if self.seed is None else np.random.default_rng(self.seed)
        scores = []
        for piece in found.pieces:
            shares = sensitivities(piece.group, given)
            if draws is None:
                scores.append(expected_levels(shares))
            else:
                scores.append(shares / draws.exponential(size=shares.shape))
        return scores

    def _said(self, name: str) -> str:
        return f"<{checksum(self.x)}>" if name == "x" else super()._said(name)


def sensitivities(group: NeuronGroup, given: dict[int, list[np.ndarray]]) -> np.ndarray:
    """Returns the sensitivity of each neuron of a group, from 0 to 1.

    It is infinite, with a warning, if another layer than a Dense or plain convolutional one reads
    the neurons: their share cannot be told.

    Args:
        group: the group.
        given: what each layer was called with, by `id(layer)`: see `layer_inputs`.
    """
    largest = np.zeros(group.size)
    for piece in group.outgoing:
        if not _is_readable(piece):
            warnings.warn(
                f"PFP leaves '{group.name}' whole: it knows Dense layers and Conv1D and Conv2D "
                f"without groups, and '{piece.layer.name}' ({type(piece.layer).__name__}) reads "
                "its neurons. Use another ranking for them.",
                stacklevel=2,
            )
            return np.full(group.size, np.inf)
        for shares in _shares(piece, group.size, given[id(piece.layer)]):
            largest = np.maximum(largest, shares)
    return largest


def expected_levels(shares: np.ndarray) -> np.ndarray:
    """Returns 1 / K for the K at which as many neurons are expected to be hit as are ahead of one.

    K S draws with probabilities s_j / S hit sum_j (1 - exp(-K s_j)) neurons on average; the r-th
    most sensitive stays from r - 1/2 of them on.

    Args:
        shares: the sensitivities s of a layer's neurons, shape (neurons,).
    """
    levels = np.where(np.isinf(shares), np.inf, 0.0)
    alive = np.flatnonzero((shares > 0) & np.isfinite(shares))
    order = alive[np.argsort(-shares[alive], kind="stable")]
    wanted = np.arange(len(order)) + 0.5
    low, high = np.full(len(order), -60.0), np.full(len(order), 60.0)  # of log K
    for _ in range(60):
        middle = (low + high) / 2
        hit = -np.expm1(-np.exp(middle)[:, None] * shares[order]).sum(axis=1)
        low, high = np.where(hit < wanted, middle, low), np.where(hit < wanted, high, middle)
    levels[order] = np.exp(-high)
    return levels


def _is_readable(piece: WeightSlice) -> bool:
    layer, layers = piece.layer, library_of(piece.layer).layers
    if type(layer) is layers.Dense:
        return True
    plain = type(layer) in (layers.Conv1D, layers.Conv2D)
    return (
        plain
        and layer.groups == 1
        and layer.padding in ("valid", "same")
        and layer.data_format == "channels_last"
    )


def _shares(piece: WeightSlice, size: int, given: list[np.ndarray]) -> Iterator[np.ndarray]:
    """Yields, for some samples at a time, each neuron's largest share in any output."""
    kernel = to_numpy(piece.weight)
    for inputs in given:
        for start in range(0, len(inputs), _CHUNK):
            some = inputs[start : start + _CHUNK]
            for a in (np.maximum(some, 0), np.maximum(-some, 0)):
                if not a.any():
                    continue
                for w in (np.maximum(kernel, 0), np.maximum(-kernel, 0)):
                    parts = _contributions(piece.layer, a, w)
                    whole = parts.sum(axis=1)[:, None]
                    mine = _by_neuron(parts, piece.index, size)
                    shares = np.divide(mine, whole, out=np.zeros_like(mine), where=whole > 0)
                    yield shares.max(axis=(0, 2), initial=0)


def _contributions(layer: Any, a: np.ndarray, w: np.ndarray) -> np.ndarray:
    """Returns what each input channel adds to each output: shape (patches, inputs, outputs)."""
    if w.ndim == 2:
        return a.reshape(-1, a.shape[-1], 1) * w
    # A depthwise convolution with a multiplier is a convolution that does not add up the inputs.
    products = keras.ops.depthwise_conv(
        a, w, layer.strides, layer.padding, "channels_last", layer.dilation_rate
    )
    return keras.ops.convert_to_numpy(products).reshape(-1, *w.shape[-2:])


def _by_neuron(parts: np.ndarray, index: np.ndarray, size: int) -> np.ndarray:
    """Adds up the channels that belong to one neuron: shape (patches, size, outputs)."""
    sums = np.zeros((len(parts), size, parts.shape[2]), parts.dtype)
    order = np.argsort(index, kind="stable")[np.count_nonzero(index < 0) :]
    if len(order):
        owners, starts = np.unique(index[order], return_index=True)
        sums[:, owners] = np.add.reduceat(parts[:, order], starts, axis=1)
    return sums
