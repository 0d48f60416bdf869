"""Loads a slim model from both its files, as one who never heard of keras_gss.

    python reload.py FOLDER [LIBRARY]     # keras or tf_keras

Prints the relative difference from the outputs that `io.npz` holds, by kind of file, as JSON.
"""

import importlib
import json
import os
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

sys.setrecursionlimit(10_000)  # tf_keras follows a graph by recursion, to its full depth


def main(folder, library="keras"):
    """Loads, predicts and compares."""
    library = importlib.import_module(library)
    if library.__name__ == "tf_keras":  # which does not find the layers of its own applications
        from tf_keras.src.applications import convnext, inception_resnet_v2

        library.saving.get_custom_objects().update(
            LayerScale=convnext.LayerScale,
            CustomScaleLayer=inception_resnet_v2.CustomScaleLayer,
        )
    with np.load(folder / "io.npz") as io:
        x, y = io["x"], io["y"]
    received = {"keras": library.models.load_model(folder / "small.keras")(x, training=False)}
    if (folder / "small").exists():
        import tensorflow as tf

        loaded = tf.saved_model.load(str(folder / "small"))
        received["saved_model"] = loaded.serve(tf.constant(x, tf.as_dtype(y.dtype)))
    assert not any(name.startswith("keras_gss") for name in sys.modules)
    print(
        json.dumps(
            {
                kind: float(np.abs(np.asarray(out) - y).max() / np.abs(y).max())
                for kind, out in received.items()
            }
        )
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
