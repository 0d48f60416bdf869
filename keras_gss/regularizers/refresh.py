"""Selection variables that are held over several steps (gss-math.md, section 3)."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_gss import _keras
from keras_gss.graph import NeuronGroup
from keras_gss.regularizers.cross_layer import GSSStructure


class HeldSelection:
    """The selection variables of a penalty, refreshed every k-th time that a loss is computed.

    They and the count of steps are state of the model that the traced step itself updates: so the
    refresh falls on the same steps under `steps_per_execution`, `jit_compile` and replicas, and
    in a training loop of one's own.

    Args:
        model: the model in training.
        regularizer: the penalty, with `refresh_every` = k.
        groups: the groups it is about.

    Attributes:
        variables: the state: the number of steps, then one selection per group.
    """

    def __init__(
        self, model: keras.Model, regularizer: GSSStructure, groups: Sequence[NeuronGroup]
    ) -> None:
        self._regularizer = regularizer
        self._groups = groups
        self._step = _keras.track_state(model, np.int32(0), "gss_step")
        self._held = [
            _keras.track_state(model, ops.convert_to_numpy(each), "gss_selection")
            for each in regularizer.selection(groups)
        ]
        self.variables = [self._step, *self._held]

    def next(self) -> list[Any]:
        """Returns the selection of this step, fresh or held, and counts the step.

        Returns:
            For each group a tensor of shape (group.size,) that passes no gradient on.
        """
        step = ops.convert_to_tensor(self._step)
        selection = ops.cond(
            ops.equal(step, 0),
            lambda: self._regularizer.selection(self._groups),
            lambda: [ops.convert_to_tensor(held) for held in self._held],
        )
        # Assigned on both branches: under tf.distribute nothing can be assigned inside a cond.
        for held, fresh in zip(self._held, selection, strict=True):
            held.assign(fresh)
        self._step.assign(ops.mod(step + 1, self._regularizer.refresh_every))
        return selection
