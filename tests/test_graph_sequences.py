"""Random sequence models with random zeros: `slim` never changes what they compute.

More cases than run here: `python tests/test_graph_sequences.py FIRST_SEED HOW_MANY`.
"""

import sys
import tempfile
from pathlib import Path

import conftest  # noqa: F401  sets the environment before TensorFlow is imported
import keras
import numpy as np
import pytest
from keras import layers
from planted import check_slim, draw


class Blocks:
    """One random block after another on a tensor of five places."""

    def __init__(self, seed):
        self.random = np.random.default_rng(seed)

    def width(self, low=2, high=6):
        return int(self.random.integers(low, high))

    def choice(self, *values):
        return values[self.random.integers(len(values))]

    def maybe_added(self, y, z):
        return y + z if y.shape == z.shape and self.random.random() < 0.6 else z

    def attention(self, y):
        # Keras on JAX has no values of another width than the keys'
        keys, jax = self.width(), keras.backend.backend() == "jax"
        values = keys if jax else self.choice(keys, self.width())
        options = {"use_bias": self.choice(False, True, True)}
        options["output_shape"] = self.choice(None, 5)
        other = self.choice(y, layers.Dense(self.width(), "relu")(y))
        heads = self.width(1, 4)
        attend = layers.MultiHeadAttention(heads, keys, value_dim=values, **options)
        return self.maybe_added(y, attend(y, other, self.choice(y, other)))

    def grouped_attention(self, y):
        heads = self.width(1, 4)
        queries = heads * self.width(1, 3)
        bias = self.choice(False, True)
        attend = layers.GroupQueryAttention(self.width(), queries, heads, use_bias=bias)
        return self.maybe_added(y, attend(y, y))

    def recurrent(self, y):
        kind = self.choice(layers.SimpleRNN, layers.LSTM, layers.GRU)
        options = {"return_sequences": True, "use_bias": self.choice(False, True, True)}
        if kind is layers.GRU:
            options["reset_after"] = self.choice(False, True)
        layer = kind(self.width(), **options)
        if self.choice(False, True):
            mode = self.choice("concat", "sum", "mul", "ave")
            layer = layers.Bidirectional(layer, merge_mode=mode)
        return layer(y)

    def einsum(self, y):
        bias = self.choice(None, "de", "e", "d")
        shape = (5, 2, self.width())
        y = layers.EinsumDense("abc,cde->abde", shape, self.choice(None, "relu"), bias)(y)
        shape = (5, self.width())
        return layers.EinsumDense("abde,def->abf", shape, bias_axes=self.choice(None, "f"))(y)

    def groups(self, y):
        y = layers.Dense(6, "relu")(y)
        if self.choice(False, True):
            return layers.GroupNormalization(self.choice(1, 2, 3, 6))(y)
        return layers.Conv1D(4, 3, groups=2, padding=self.choice("same", "causal"))(y)

    def steps(self, y):
        dense = layers.Dense(self.width(), "relu", use_bias=self.choice(False, True))
        return layers.TimeDistributed(dense)(y)

    def model(self):
        x = keras.Input((5, 4))
        y = layers.Dense(self.width(3, 8), self.choice("relu", None))(x)
        kinds = (self.attention, self.grouped_attention, self.recurrent, self.einsum)
        for _ in range(self.width(1, 4)):
            y = self.choice(*kinds, self.groups, self.steps)(y)
        return keras.Model(x, layers.Dense(3)(y))

    def zero(self, model):
        """Zeroes weights here and there, and whole slices along any axis."""
        for variable in model.weights:
            value = keras.ops.convert_to_numpy(variable).copy()
            scattered = self.choice(0.0, 0.0, 0.2, 0.6)
            value[self.random.random(value.shape) < scattered] = 0.0
            for axis, size in enumerate(value.shape):
                if self.choice(False, True):
                    np.moveaxis(value, axis, 0)[self.random.random(size) < 0.35] = 0.0
            variable.assign(value)


def check(seed: int, folder: Path) -> bool:
    """Checks the case of one seed; returns whether anything was cut."""
    blocks = Blocks(seed)
    model = blocks.model()
    draw(model, seed)
    blocks.zero(model)
    return check_slim(model, folder)[0].count_params() < model.count_params()


@pytest.mark.parametrize("seed", range(8))
def test_zeros_anywhere_never_change_the_outputs(seed, tmp_path):
    check(seed, tmp_path)


if __name__ == "__main__":
    first, count = map(int, sys.argv[1:])
    with tempfile.TemporaryDirectory() as temporary:
        cut = sum(check(seed, Path(temporary)) for seed in range(first, first + count))
    print(f"{count} cases, something was cut in {cut}, none failed")
