"""Binding a cross-layer penalty to the kernels of a built model, and taking it off again.

Keras 3 asks the regularizer of every trainable variable for a scalar whenever it computes a loss.
`attach` puts a `_Bound` on each kernel that takes part: it returns the value of the user's own
regularizer and adds the whole penalty if its kernel is, at that moment, the first trainable one
of them. So the penalty counts once, also under shared layers and replicas, and freezing a layer
never drops it. A model of tf_keras gets the penalty as one loss of its own.
"""

from typing import Any

import keras
from keras import ops

from keras_gss import _keras
from keras_gss._checks import reject
from keras_gss.graph import NeuronGroups
from keras_gss.regularizers import declared as declarations
from keras_gss.regularizers.cross_layer import CrossLayerRegularizer
from keras_gss.regularizers.penalty import as_cross_layer
from keras_gss.regularizers.plan import declaring_slices, plan_of
from keras_gss.regularizers.terms import Term


def attach(model: keras.Model, regularizer: keras.Regularizer | None = None) -> NeuronGroups:
    """Binds a cross-layer penalty to a built model: from now on its losses hold the penalty.

    Regularizers that the layers already have stay in force. Works before and after `compile`;
    training and test functions that were traced before are traced anew. A penalty passed here is
    also declared on the layers that make the penalised neurons, so that saved files keep it. A
    model loaded from such a file (or cloned) raises when it is trained or evaluated, until
    `attach(model)` or the callback `GroupSparsity` binds it again. Train the model itself: one that
    shares some of its layers counts the penalty only if it holds the first trainable kernel of the
    penalised groups.

    With `refresh_every=k` every loss counts as a step, those of `evaluate` too; `GroupSparsity`
    leaves these out.

    Args:
        model: a built Sequential or functional model.
        regularizer: the penalty for all removable neurons of the model; one on one kernel is taken
            as `EachKernel(regularizer)`. None binds the cross-layer penalties that its layers
            declare as their `kernel_regularizer`.

    Returns:
        The penalised groups.

    Raises:
        TypeError: if `regularizer` is no Keras regularizer.
        ValueError: if a penalty is attached already, if layers declare another one than the one
            passed or contradict each other, or if there is no neuron to penalise.

    Example:
    >>> import keras, keras_gss as gss
    >>> model = keras.Sequential(
    ...     [keras.Input((4,)), keras.layers.Dense(3), keras.layers.Dense(2)])
    >>> [group.size for group in gss.attach(model, gss.GSSStructure(1e-6))]
    [3]
    >>> gss.detach(model)
    """
    return Attachment(model, regularizer).groups


def detach(model: keras.Model, declared: bool = False) -> None:
    """Undoes `attach`: variables and layers get back the regularizers they had.

    Does nothing if no penalty is attached.

    Args:
        model: a model, with a penalty attached or not.
        declared: also take off the cross-layer penalties that the layers themselves declare, so
            that the model trains, saves and loads without them.

    Raises:
        ValueError: if `model` is no Keras model.

    Example:
    >>> import keras, keras_gss as gss
    >>> model = keras.Sequential([
    ...     keras.Input((4,)),
    ...     keras.layers.Dense(3, kernel_regularizer=gss.GSSStructure(1e-6)),
    ...     keras.layers.Dense(2)])
    >>> gss.detach(model, declared=True)
    >>> model.losses
    []
    """
    if not _keras.is_model(model):
        raise reject("model", "a Keras model", model)
    attachment = attachment_of(model)
    if attachment is not None:
        attachment.remove()
    if declared:
        declarations.drop_all(model)
        _keras.forget_functions(model)


def attachment_of(model: keras.Model) -> "Attachment | None":
    """Returns what is attached to a model, or None."""
    if _keras.is_tf_keras(model):
        found = (getattr(v, _keras.SILENCED_BY, None) for v in model.weights)
        return next((each for each in found if isinstance(each, Attachment)), None)
    bound = (v.regularizer for v in model.weights if isinstance(v.regularizer, _Bound))
    return next((regularizer.attachment for regularizer in bound), None)


class Attachment:
    """The penalties attached to one model, and how to take them off again.

    Args:
        model: as in `attach`.
        regularizer: as in `attach`.
        lasting: whether a penalty passed is also declared on the layers, and so saved.

    Attributes:
        groups: the penalised groups.
        lasting: as passed; True for a penalty that the layers declare themselves.
        multiplier: None, or the variable that multiplies every factor (see `schedule`).

    Raises:
        TypeError, ValueError: as `attach`.
    """

    def __init__(
        self,
        model: keras.Model,
        regularizer: keras.Regularizer | None = None,
        lasting: bool = True,
    ) -> None:
        _keras.check_model(model, "attach")
        regularizer = None if regularizer is None else as_cross_layer(regularizer)
        if attachment_of(model) is not None:
            raise ValueError(
                f"'{model.name}' has a penalty attached already. Call "
                "`keras_gss.detach(model)` first, or use it as it is with `GroupSparsity()`."
            )
        self.groups, plan = plan_of(model, regularizer)
        self.lasting = lasting or regularizer is None
        self.multiplier: keras.Variable | None = None
        self._model = model
        self._changes: list[tuple[Any, str, Any, Any]] = []
        self._loss: Any = None
        self._terms = [Term(model, penalty, groups) for penalty, groups in plan]
        for term in self._terms:
            term.hold(model)
        if regularizer is not None and lasting:
            self._declare(regularizer)
        kernels = {id(kernel): kernel for term in self._terms for kernel in term.kernels}
        self._put_on(list(kernels.values()))
        _keras.forget_functions(model)

    def schedule(self, on: bool) -> None:
        """Makes room for a schedule or drops it: `multiplier` becomes a variable (1.0), or None."""
        if on == (self.multiplier is not None):
            return
        if self.multiplier is None:
            self.multiplier = _keras.track_state(self._model, 1.0, "gss_multiplier")
        else:
            _keras.untrack_state(self._model, self.multiplier)
            self.multiplier = None
        _keras.forget_functions(self._model)

    def multiply(self, value: float) -> None:
        """Sets what every factor is multiplied by; there has to be room for a schedule."""
        if self.multiplier is None:
            raise RuntimeError("Call `schedule(on=True)` before `multiply`.")
        self.multiplier.assign(value)

    def penalty(self) -> Any:
        """Returns the present value of the penalties in closed form, a scalar tensor."""
        return _sum([term.penalty(self.multiplier) for term in self._terms])

    def loss(self) -> Any:
        """Returns all that a loss holds of the penalties at this moment."""
        terms = [term for term in self._terms if term.owner() is not None]
        return _sum([term.loss(self.multiplier) for term in terms])

    def loss_of(self, kernel: Any) -> list[Any]:
        """Returns the penalties that `kernel` has to add to the loss at this moment."""
        owned = [term for term in self._terms if term.owner() is kernel]
        return [term.loss(self.multiplier) for term in owned]

    def held_state(self) -> list[keras.Variable]:
        """Returns the variables of the selections that are held over several steps."""
        return [v for term in self._terms if term.held for v in term.held.variables]

    def state(self) -> list[keras.Variable]:
        """Returns all variables that exist only while the penalties are attached."""
        return [*([] if self.multiplier is None else [self.multiplier]), *self.held_state()]

    def remove(self) -> None:
        """Undoes everything; what someone else has set since then stays."""
        for owner, name, before, after in reversed(self._changes):
            if getattr(owner, name) is after:
                setattr(owner, name, before)
        if self._loss is not None:
            _keras.remove_loss(self._model, self._loss)
        self.schedule(on=False)
        for variable in self.held_state():
            _keras.untrack_state(self._model, variable)
        _keras.forget_functions(self._model)

    def _put_on(self, kernels: list[Any]) -> None:
        if _keras.is_tf_keras(self._model):
            for kernel in kernels:
                self._set(kernel, _keras.SILENCED_BY, self)
            self._loss = _keras.add_loss(self._model, self.loss)
            return
        for kernel in kernels:
            own = declarations.own_part(kernel.regularizer)
            self._set(kernel, "regularizer", _Bound(self, kernel, own))

    def _declare(self, regularizer: CrossLayerRegularizer) -> None:
        declared = set()
        for group in self.groups:
            for piece in declaring_slices(group):
                place = declarations.attribute(piece)
                if place is not None and id(piece.weight) not in declared:
                    declared.add(id(piece.weight))
                    own = getattr(*place)
                    self._set(*place, declarations.joined(own, regularizer))

    def _set(self, owner: Any, name: str, after: Any) -> None:
        self._changes.append((owner, name, getattr(owner, name, None), after))
        setattr(owner, name, after)


class _Bound(keras.Regularizer):
    """The regularizer of a participating kernel while a penalty is attached."""

    def __init__(self, attachment: Attachment, kernel: Any, own: Any) -> None:
        self.attachment = attachment
        self._kernel = kernel
        self._own = own

    def __call__(self, x: Any) -> Any:
        own = [] if self._own is None else [self._own(x)]
        return _sum(own + self.attachment.loss_of(self._kernel))


def _sum(values: list[Any]) -> Any:
    """Adds scalars up in the dtype of Keras' losses, whatever the dtypes of the weights."""
    dtype = keras.config.floatx()
    return sum((ops.cast(value, dtype) for value in values), start=ops.zeros((), dtype))
