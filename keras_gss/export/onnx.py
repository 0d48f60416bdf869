"""Models as `.onnx` files, compared in ONNX Runtime."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras

from keras_gss.export import saved_model
from keras_gss.export.packages import require_packages

SUFFIX = ".onnx"
FLOAT64 = False
_XLA = "_XlaMustCompile"


def require() -> None:
    """Raises `ImportError` or `RuntimeError` if ONNX files cannot be written or run here."""
    require_packages("onnx", "tensorflow", "tf2onnx", "onnxruntime")


def write(model: keras.Model, path: Path) -> None:
    """Writes a model for batches of any size."""
    import tensorflow as tf
    import tf2onnx

    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        saved_model.write(model, Path(folder))
        _inline(Path(folder) / "saved_model.pb")
        loaded = tf.saved_model.load(folder)
        serve = loaded.signatures[saved_model.SIGNATURE]
        specs = list(serve.structured_input_signature[1].values())
        function = tf.function(
            lambda *inputs: serve(**{s.name: x for s, x in zip(specs, inputs, strict=True)}),
            input_signature=specs,
        )
        tf2onnx.convert.from_function(
            function, specs, output_path=str(path), custom_op_handlers={"Erfc": (_erfc, [])}
        )


def load(path: Path, model: keras.Model) -> Callable[[Any], Any]:
    """Returns the inference call of a file that was written from `model`."""
    import onnxruntime
    from onnxruntime.capi import onnxruntime_pybind11_state as errors

    try:
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    except (errors.Fail, errors.InvalidGraph, errors.NotImplemented) as error:
        raise RuntimeError(
            f"'{model.name}' cannot be written in the format 'onnx', because ONNX Runtime does "
            f"not take what became of it: {error} Choose another format. Nothing was kept."
        ) from error
    names = [output.name for output in session.get_outputs()]

    def call(inputs: Any) -> Any:
        outputs = session.run(names, saved_model.named_inputs(model, inputs))
        return saved_model.structured_outputs(model, dict(zip(names, outputs, strict=True)))

    return call


def _inline(path: Path) -> None:
    """Lets tf2onnx see into functions that Keras marks for XLA: convolutions in groups."""
    from tensorflow.core.protobuf import saved_model_pb2

    content = saved_model_pb2.SavedModel.FromString(path.read_bytes())
    library = content.meta_graphs[0].graph_def.library
    for function in library.function:
        for marked in (function, *function.node_def):
            if _XLA in marked.attr:
                del marked.attr[_XLA]
    path.write_bytes(content.SerializeToString())


def _erfc(graph: Any, node: Any, name: str, _: list[Any]) -> None:
    """Writes erfc(x), of the exact GELU, as 1 - erf(x), which ONNX has."""
    import numpy as np
    from tf2onnx.utils import map_onnx_to_numpy_type

    (x,) = node.input
    dtype = map_onnx_to_numpy_type(graph.get_dtype(x))
    outputs, shapes, dtypes = node.output, node.output_shapes, node.output_dtypes
    graph.remove_node(name)
    one = graph.make_const(f"{name}/one", np.ones((), dtype)).output[0]
    erf = graph.make_node("Erf", [x]).output[0]
    graph.make_node("Sub", [one, erf], outputs=outputs, shapes=shapes, dtypes=dtypes, name=name)
