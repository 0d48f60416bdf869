"""Training procedures: the methods of other authors that are more than a penalty."""

from keras_gss.procedures.base import Procedure

__all__ = ["Procedure"]
