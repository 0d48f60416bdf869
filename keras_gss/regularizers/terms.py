"""One bound penalty, and selection variables that it holds over several steps."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_gss import _keras
from keras_gss.graph import NeuronGroup
from keras_gss.regularizers.cross_layer import CrossLayerRegularizer, GSSStructure


class Term:
    """One penalty, the groups it is about, and the kernels that those consist of.

    Args:
        model: the model that owns the groups.
        regularizer: the penalty.
        groups: the groups.

    Attributes:
        kernels: the variables of all slices, once each.
        held: the selections held over several steps, or None.
    """

    def __init__(
        self,
        model: keras.Model,
        regularizer: CrossLayerRegularizer,
        groups: Sequence[NeuronGroup],
    ) -> None:
        weighs_macs = getattr(regularizer, "weights", None) == "macs"
        macs = [group.macs for group in groups] if weighs_macs else None
        self._regularizer = regularizer
        self._groups = groups
        self._multipliers = regularizer.multipliers(groups, macs)
        slices = [s for group in groups for s in (*group.incoming, *group.outgoing)]
        self.kernels = list({id(s.weight): s.weight for s in slices}.values())
        self._layers = {id(s.weight): s.layer for s in slices}
        self.held: HeldSelection | None = None

    def hold(self, model: keras.Model) -> None:
        """Gives the model the state that a penalty with `refresh_every` > 1 needs."""
        if getattr(self._regularizer, "refresh_every", 1) > 1:
            self.held = HeldSelection(model, self._regularizer, self._groups)

    def owner(self) -> Any:
        """Returns the first kernel that is trainable at this moment, or None."""
        trainable = (k for k in self.kernels if k.trainable and self._layers[id(k)].trainable)
        return next(trainable, None)

    def penalty(self, multiplier: Any) -> Any:
        """Returns the penalty in closed form; `multiplier` is None or a schedule's variable."""
        factor = self._factor(multiplier)
        return self._regularizer.penalty(self._groups, factor, self._multipliers)

    def loss(self, multiplier: Any) -> Any:
        """Returns what a loss holds of the penalty at this step, and counts the step."""
        with _keras.after_the_rest():
            if self.held is None:
                return self.penalty(multiplier)
            factor = self._factor(multiplier)
            held = self.held.next()
            return self._regularizer.held_penalty(self._groups, held, factor, self._multipliers)

    def _factor(self, multiplier: Any) -> Any:
        # A plain float where it can be: a penalty of factor 0 then leaves no trace in the graph.
        factor = self._regularizer.factor
        return factor if multiplier is None or factor == 0 else factor * multiplier.value


class HeldSelection:
    """The selection variables of a penalty, refreshed every k-th time that a loss is computed.

    They, the value they give, and the count of steps are state of the model that the traced step
    itself updates: so the refresh falls on the same steps under `steps_per_execution`,
    `jit_compile` and replicas, and in a training loop of one's own.

    Args:
        model: the model in training.
        regularizer: the penalty, with `refresh_every` = k.
        groups: the groups it is about.

    Attributes:
        variables: the state: the number of steps, then what `GSSStructure.to_hold` returns.
    """

    def __init__(
        self, model: keras.Model, regularizer: GSSStructure, groups: Sequence[NeuronGroup]
    ) -> None:
        self._regularizer = regularizer
        self._groups = groups
        self._step = _keras.track_state(model, np.int32(0), "gss_step")
        self._held = [
            _keras.track_state(model, ops.convert_to_numpy(each), "gss_selection")
            for each in regularizer.to_hold(groups)
        ]
        self.variables = [self._step, *self._held]

    def next(self) -> list[Any]:
        """Returns what `held_penalty` is given at this step, fresh or held, and counts the step."""
        step = ops.convert_to_tensor(self._step)
        values = ops.cond(
            ops.equal(step, 0),
            lambda: self._regularizer.to_hold(self._groups),
            lambda: [ops.convert_to_tensor(held) for held in self._held],
        )
        # Assigned on both branches: under tf.distribute nothing can be assigned inside a cond.
        for held, value in zip(self._held, values, strict=True):
            held.assign(value)
        self._step.assign(ops.mod(step + 1, self._regularizer.refresh_every))
        return values
