"""The zeros of one model, for another with the same layers: rewinding, and lottery tickets."""

import zlib
from dataclasses import dataclass, field

import keras
import numpy as np

from keras_gss._keras import check_model, without_wrappers
from keras_gss.pruning.masks import FixedZeros, own_constraint
from keras_gss.pruning.pieces import Masks
from keras_gss.pruning.weights import weights_of


@dataclass(frozen=True, eq=False, repr=False)
class ZerosOf:
    """Zeroes what is fixed at zero in a pruned model, whatever the weights are now.

    `prune(before, ZerosOf(pruned))` gives the weights that are left the values that they had in
    `before`: with the dense model this is weight rewinding (Renda, Frankle, Carbin, ICLR 2020),
    with the model at its initialisation a lottery ticket (Frankle, Carbin, ICLR 2019). It is a
    target for `compress` as well.

    Args:
        model: what `prune` returned, trained since or not.

    Raises:
        TypeError, ValueError: `model` has no graph, is unbuilt, or holds no fixed zeros; in use,
            the other model has other layers or shapes.

    Example:
    >>> import keras, numpy as np, keras_gss as gss
    >>> dense = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, use_bias=False)])
    >>> trained = keras.models.clone_model(dense)
    >>> trained.set_weights([np.array([[0.1], [2.0]])])
    >>> pruned = gss.prune(trained, gss.AbsoluteThreshold(1.0))
    >>> rewound = gss.prune(dense, gss.ZerosOf(pruned))
    >>> kernel, before = rewound.get_weights()[0], dense.get_weights()[0]
    >>> float(kernel[0, 0]), bool(kernel[1, 0] == before[1, 0])
    (0.0, True)
    """

    model: keras.Model
    _of: dict[str, np.ndarray] = field(init=False)

    def __post_init__(self) -> None:
        check_model(self.model, "ZerosOf")
        object.__setattr__(self, "_of", _masks_of(self.model))
        if not self._of:
            raise ValueError(
                f"`ZerosOf`: no weight of '{self.model.name}' is fixed at zero. Give it a model "
                "that `keras_gss.prune` returned, or one loaded from its file."
            )

    def __repr__(self) -> str:
        crc = 0
        for path, mask in sorted(self._of.items()):
            crc = zlib.crc32(np.packbits(mask).tobytes(), zlib.crc32(path.encode(), crc))
        return f"ZerosOf(<{sum(int((~mask).sum()) for mask in self._of.values())} zeros {crc:08x}>)"

    def masks(self, model: keras.Model, granularity: str) -> Masks:
        """Returns `{id(variable): mask}`, True where a weight stays; `granularity` is unused."""
        theirs = {weight.path: weight.variable for weight in weights_of(model)}
        shapes = {path: tuple(variable.shape) for path, variable in theirs.items()}
        if wrong := [path for path, mask in self._of.items() if shapes.get(path) != mask.shape]:
            raise ValueError(
                f"`{self!r}` is of a model with other layers than '{model.name}': there is no "
                f"'{wrong[0]}' of shape {self._of[wrong[0]].shape} in it."
            )
        return {id(theirs[path]): mask for path, mask in self._of.items()}


def _masks_of(model: keras.Model) -> dict[str, np.ndarray]:
    """Returns the masks of the fixed zeros by the weights' paths."""
    owned = [(w.path, own_constraint(w.variable)) for w in weights_of(without_wrappers(model))]
    return {path: zeros.mask for path, zeros in owned if isinstance(zeros, FixedZeros)}
