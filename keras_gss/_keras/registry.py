"""Making this library's serialisable classes known to tf_keras, once a process has both."""

import warnings
from types import ModuleType

import keras

_known: set[int] = set()


def register_with(tf_keras: ModuleType) -> None:
    """Registers the penalties and constraints that Keras 3 knows as `keras_gss>...` with tf_keras.

    It also keeps tf_keras from warning that these are not of its own base classes. Asked again it
    does nothing, unless Keras 3 knows more classes by now.
    """
    objects = keras.saving.get_custom_objects()
    if len(objects) in _known:
        return
    _known.add(len(objects))
    bases = (keras.Regularizer, keras.constraints.Constraint)
    for name, kind in objects.items():
        package, _, own = name.partition(">")
        if package == "keras_gss" and isinstance(kind, type) and issubclass(kind, bases):
            tf_keras.saving.register_keras_serializable(package, own)(kind)
            # HDF5 files of wrapped layers name the class alone, and tf_keras has an L1 of its own.
            if not hasattr(tf_keras.regularizers, own):
                tf_keras.saving.get_custom_objects().setdefault(own, kind)
    warnings.filterwarnings("ignore", message=r"[\s\S]*instance of type <class 'keras_gss\.")
