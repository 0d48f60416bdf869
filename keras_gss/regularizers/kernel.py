"""Penalties on one kernel: ordinary Keras regularizers."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from keras_gss import _checks, norms


class _KernelRegularizer(keras.Regularizer):
    """Factor and axes, which the penalties on one kernel have in common."""

    def __init__(
        self, factor: float, inner: int | Sequence[int] = (0,), middle: int | Sequence[int] = (1,)
    ) -> None:
        self.factor = _checks.check_factor("factor", factor)
        self.inner = _checks.check_axes("inner", inner)
        self.middle = _checks.check_axes("middle", middle)
        if set(self.inner) & set(self.middle):
            raise _checks.reject("middle", f"free of the axes of inner={self.inner}", middle)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor, plain values."""
        return {"factor": self.factor, "inner": list(self.inner), "middle": list(self.middle)}


@keras.saving.register_keras_serializable("keras_gss")
class GSS121(_KernelRegularizer):
    """GSS121 of one kernel, eq. 1: factor * sum_g sqrt( sum_{g' in g} ||w_{g,g'}||_1^2 ).

    Args:
        factor: strength, finite and >= 0.
        inner: axes within a subgroup.
        middle: axes that index the subgroups of a group. The axes in neither index the groups.

    Raises:
        ValueError: an argument out of its range, named in the message; at the first call also axes
            that the kernel does not have.

    Example:
    >>> float(GSS121(0.1, inner=0, middle=1)(ops.array([[3.0, 0.0], [0.0, -4.0]])))
    0.5
    """

    def __call__(self, x: Any) -> Any:
        """Returns the penalty of a kernel, a scalar tensor, at least in float32."""
        norms.split_axes(x.shape, self.inner, self.middle)
        return (
            self.factor * norms.gss121(x, self.inner, self.middle) if self.factor else ops.zeros(())
        )


@keras.saving.register_keras_serializable("keras_gss")
class GSS212(_KernelRegularizer):
    """GSS212 of one kernel: factor * sqrt( sum_g ( sum_{g' in g} ||w_{g,g'}||_2 )^2 ).

    Args:
        factor: strength, finite and >= 0.
        inner: axes within a subgroup.
        middle: axes that index the subgroups of a group. The axes in neither index the groups.
        squared: True leaves the outer root away.

    Raises:
        ValueError: an argument out of its range, named in the message; at the first call also axes
            that the kernel does not have.

    Example:
    >>> float(GSS212(0.5, inner=0, middle=1, squared=True)(ops.array([[3.0, 0.0], [4.0, -2.0]])))
    24.5
    """

    def __init__(
        self,
        factor: float,
        inner: int | Sequence[int] = (0,),
        middle: int | Sequence[int] = (1,),
        squared: bool = False,
    ) -> None:
        super().__init__(factor, inner, middle)
        self.squared = _checks.check_flag("squared", squared)

    def __call__(self, x: Any) -> Any:
        """Returns the penalty of a kernel, a scalar tensor, at least in float32."""
        norms.split_axes(x.shape, self.inner, self.middle)
        if not self.factor:
            return ops.zeros(())
        return self.factor * norms.gss212(x, self.inner, self.middle, self.squared)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor, plain values."""
        return {**super().get_config(), "squared": self.squared}
