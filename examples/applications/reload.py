"""Loads a slim model from both its files, as one who never heard of keras_gss: `reload.py FOLDER`.

Prints the relative difference from the outputs that `io.npz` holds, by kind of file, as JSON.
"""

import json
import os
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np


def main(folder):
    """Loads, predicts and compares."""
    with np.load(folder / "io.npz") as io:
        x, y = io["x"], io["y"]
    received = {"keras": keras.models.load_model(folder / "small.keras")(x, training=False)}
    if (folder / "small").exists():
        import tensorflow as tf

        loaded = tf.saved_model.load(str(folder / "small"))
        received["saved_model"] = loaded.serve(tf.constant(x, tf.as_dtype(y.dtype)))
    assert not any(name.startswith("keras_gss") for name in sys.modules)
    print(
        json.dumps(
            {
                kind: float(np.abs(keras.ops.convert_to_numpy(out) - y).max() / np.abs(y).max())
                for kind, out in received.items()
            }
        )
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
