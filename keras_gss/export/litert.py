"""Models as `.tflite` files, which LiteRT runs with its built-in operations alone."""

import re
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_gss._probe import computing_in, float_dtypes
from keras_gss.export import saved_model
from keras_gss.export.packages import require_packages

SUFFIX = ".tflite"
FLOAT64 = False


def require() -> None:
    """Raises `ImportError` or `RuntimeError` if LiteRT files cannot be written or read here."""
    require_packages("litert", "tensorflow", "ai_edge_litert.interpreter")


def write(model: keras.Model, path: Path) -> None:
    """Writes a model in float32, for batches of any size if LiteRT can do that with it."""
    if float_dtypes(model) - {"float32"}:
        model = computing_in(model, "float32")
    from tensorflow.lite.python.convert_phase import ConverterError

    try:
        content = _convert(model, path.parent)
    except ConverterError as error:
        # Recurrent layers carry a state whose size the batch decides: LiteRT wants to know it.
        if "static" not in str(error):
            raise _lacks(model, error) from error
        try:
            content = _convert(model, path.parent, batch=1)
        except ConverterError as other:
            raise _lacks(model, other) from other
        warnings.warn(
            f"'{model.name}' is written for one sample at a time, because LiteRT has to know the "
            "size of what a recurrent layer carries along. The format 'onnx' takes any batch.",
            stacklevel=4,
        )
    path.write_bytes(content)


def load(path: Path, model: keras.Model) -> Callable[[Any], Any]:
    """Returns the inference call of a file that was written from `model`."""
    from ai_edge_litert.interpreter import Interpreter

    runner = Interpreter(model_path=str(path)).get_signature_runner(saved_model.SIGNATURE)
    details = runner.get_input_details()
    one_by_one = any(each["shape_signature"][0] == 1 for each in details.values())

    def run(named: dict[str, Any]) -> dict[str, Any]:
        return runner(**{k: np.asarray(x, details[k]["dtype"]) for k, x in named.items()})

    def call(inputs: Any) -> Any:
        named = saved_model.named_inputs(model, inputs)
        if not one_by_one:
            return saved_model.structured_outputs(model, run(named))
        samples = range(len(next(iter(named.values()))))
        parts = [run({name: x[i : i + 1] for name, x in named.items()}) for i in samples]
        whole = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        return saved_model.structured_outputs(model, whole)

    return call


def _convert(model: keras.Model, beside: Path, batch: int | None = None) -> bytes:
    import tensorflow as tf

    with tempfile.TemporaryDirectory(dir=beside) as folder:
        saved_model.write(model, Path(folder), batch)
        return tf.lite.TFLiteConverter.from_saved_model(folder).convert()


def _lacks(model: keras.Model, error: Exception) -> RuntimeError:
    found = re.findall(r"(?:TF Select|Custom) ops: (.*)", str(error))
    what = ", ".join(found) or str(error).splitlines()[0]
    return RuntimeError(
        f"'{model.name}' cannot be written in the format 'litert', because LiteRT lacks some of "
        f"its operations: {what}. Choose another format. Nothing was kept."
    )
