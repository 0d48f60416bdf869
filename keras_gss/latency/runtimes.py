"""The runtimes that latencies are measured in: how a model gets there, and one call of it."""

import importlib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import keras

from keras_gss.export import litert, onnx, saved_model

RUNTIMES: dict[str, ModuleType] = {"tf_saved_model": saved_model, "litert": litert, "onnx": onnx}


def prepare(
    runtime: str, model: keras.Model, inputs: Any, threads: int, folder: Path
) -> Callable[[], Any]:
    """Writes a model, loads it, and returns one call of it on inputs already in place.

    Args:
        runtime: one of `RUNTIMES`.
        model: a Sequential or functional model.
        inputs: NumPy arrays in the structure of the model's inputs.
        threads: how many the runtime may use; TensorFlow's own are left as they are.
        folder: where to write it.

    Raises:
        RuntimeError: the runtime lacks an operation of the model.
        ValueError: it takes one sample at a time, and `inputs` are several.
    """
    made = RUNTIMES[runtime]
    path = folder / f"model{made.SUFFIX}"
    made.write(model, path)
    return _CALLS[runtime](path, model, inputs, threads)


def _saved_model(path: Path, model: keras.Model, inputs: Any, threads: int) -> Callable[[], Any]:
    tf = importlib.import_module("tensorflow")
    loaded, inputs = tf.saved_model.load(str(path)), keras.tree.map_structure(tf.constant, inputs)
    return lambda: keras.tree.map_structure(lambda output: output.numpy(), loaded.serve(inputs))


def _litert(path: Path, model: keras.Model, inputs: Any, threads: int) -> Callable[[], Any]:
    runtime = importlib.import_module("ai_edge_litert.interpreter")
    # Signatures name the inputs, but who runs one holds on to memory that resizing has to move.
    named = runtime.Interpreter(model_path=str(path)).get_signature_runner(saved_model.SIGNATURE)
    details = named.get_input_details()
    interpreter = runtime.Interpreter(model_path=str(path), num_threads=threads)
    values = []
    for name, value in saved_model.named_inputs(model, inputs).items():
        detail = details[name]
        if detail["shape_signature"][0] not in (-1, len(value)):
            raise ValueError(
                f"`batch` must be 1 for '{model.name}', which LiteRT takes one sample at a time. "
                f"Received: batch={len(value)}"
            )
        interpreter.resize_tensor_input(detail["index"], value.shape)
        values.append((detail["index"], value.astype(detail["dtype"])))
    interpreter.allocate_tensors()
    outputs = [detail["index"] for detail in named.get_output_details().values()]

    def call() -> Any:
        for index, value in values:
            interpreter.set_tensor(index, value)
        interpreter.invoke()
        return [interpreter.get_tensor(index) for index in outputs]

    return call


def _onnx(path: Path, model: keras.Model, inputs: Any, threads: int) -> Callable[[], Any]:
    runtime = importlib.import_module("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads
    session = runtime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    named = saved_model.named_inputs(model, inputs)
    return lambda: session.run(None, named)


_CALLS = {"tf_saved_model": _saved_model, "litert": _litert, "onnx": _onnx}
