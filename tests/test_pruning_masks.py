import json

import keras
import numpy as np
import pytest

from keras_gss.pruning import FixedZeros, KeepZeros
from keras_gss.pruning.masks import Mask, fixed_zeros

MASK = np.array([[True, False, True], [False, True, True], [True, True, False], [False] * 3])
DATA = np.random.default_rng(0).normal(size=(24, 4)).astype("float32")
LABELS = np.random.default_rng(1).normal(size=(24, 2)).astype("float32")


def masked_model(dtype=None, constraint=None):
    """4-3-2 with zeros in a kernel and both biases."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((4,)),
            keras.layers.Dense(
                3,
                activation="tanh",
                kernel_constraint=FixedZeros(MASK, constraint),
                bias_constraint=FixedZeros(np.array([True, False, True])),
                bias_initializer="ones",
                dtype=dtype,
            ),
            keras.layers.Dense(
                2, bias_constraint=FixedZeros(np.array([False, True]), constraint), dtype=dtype
            ),
        ]
    )
    apply_zeros(model)
    return model


def apply_zeros(model):
    for variable, zeros in fixed_zeros(model):
        variable.assign(zeros(variable))


def largest_masked(model):
    """The largest magnitude where there should be zeros; NaN counts as infinite."""
    found = [
        np.abs(np.nan_to_num(keras.ops.convert_to_numpy(v).astype("float64"), nan=np.inf))[~z.mask]
        for v, z in fixed_zeros(model)
    ]
    assert len(found) == 3
    return max(values.max() for values in found)


@pytest.mark.parametrize("shape", [(), (0,), (5,), (0, 3), (4, 3), (1, 4), (3, 3, 4, 5), (2, 3, 4)])
def test_masks_are_kept_as_small_as_they_can_be(shape):
    rng = np.random.default_rng(len(shape))
    for share in (0.0, 0.3, 0.7, 1.0):
        any_mask = rng.random(shape) < share
        vectors = [rng.random(size) < share for size in shape]
        product = np.ones((), bool)
        for vector in vectors:
            product = np.multiply.outer(product, vector)
        for array in (any_mask, product, product | any_mask):
            mask = Mask.of(array)
            assert mask.shape == shape and mask.array.dtype == bool
            np.testing.assert_array_equal(mask.array, array)
        assert bool(Mask.of(product).vectors) == (len(shape) > 1)
        held = FixedZeros(Mask.of(product), FixedZeros(any_mask)).mask
        np.testing.assert_array_equal(held, product & any_mask)


class RecordZeros(keras.callbacks.Callback):
    """Largest masked magnitude at the end of every epoch and in validation."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def on_epoch_end(self, epoch, logs=None):
        self.seen.append(largest_masked(self.model))

    def on_test_begin(self, logs=None):
        self.seen.append(largest_masked(self.model))


def test_masked_weights_become_zero_whatever_they_were():
    zeros = FixedZeros(np.array([True, False, False, False]))
    result = zeros(keras.ops.array([2.0, np.nan, -np.inf, 3.0]))
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(result), [2.0, 0.0, 0.0, 0.0])


def test_the_inner_constraint_sees_masked_weights_and_cannot_refill_them():
    seen = []

    def add_one(w):
        seen.append(keras.ops.convert_to_numpy(w))
        return w + 1.0

    result = FixedZeros(np.array([True, False]), add_one)(keras.ops.array([2.0, 5.0]))
    np.testing.assert_array_equal(seen[0], [2.0, 0.0])
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(result), [3.0, 0.0])


def test_two_fixed_zeros_become_one_with_the_zeros_of_both():
    first = FixedZeros(np.array([True, True, False]), "non_neg")
    both = FixedZeros(np.array([False, True, True]), first)
    assert both.mask.tolist() == [False, True, False]
    assert isinstance(both.constraint, keras.constraints.NonNeg)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_dtype_is_kept(dtype):
    result = FixedZeros(np.array([True, False]))(keras.ops.ones(2, dtype))
    expected = keras.ops.ones(2, dtype).dtype  # JAX truncates float64 unless told otherwise
    assert result.dtype == expected
    assert keras.ops.convert_to_numpy(result).tolist() == [1.0, 0.0]


@pytest.mark.parametrize("shape", [(), (1,), (3, 5), (2, 3, 4, 7)])
def test_config_is_small_plain_json_and_round_trips(shape):
    mask = np.random.default_rng(0).random(shape) < 0.5
    zeros = FixedZeros(mask, keras.constraints.MaxNorm(2.0))
    config = json.loads(json.dumps(keras.saving.serialize_keras_object(zeros)))
    again = keras.saving.deserialize_keras_object(config)
    np.testing.assert_array_equal(again.mask, mask)
    assert again.constraint.max_value == 2.0
    assert again.get_config() == zeros.get_config()


def test_a_million_weights_at_one_percent_take_a_few_kilobytes():
    mask = np.zeros((1000, 1000), bool)
    mask[::100, :] = True
    assert len(json.dumps(FixedZeros(mask).get_config())) < 5000


def test_wrong_masks_are_refused_by_name():
    with pytest.raises(ValueError, match="`mask` must be a boolean array"):
        FixedZeros(np.array([0.0, 1.0]))
    with pytest.raises(ValueError, match=r"mask of shape \(2,\).*shape is\s+\(3,\)"):
        FixedZeros(np.array([True, False]))(keras.ops.ones(3))
    config = FixedZeros(np.ones(64, bool)).get_config()
    for damage in ({"mask": "no base64!"}, {"mask": "AAAA"}, {"shape": [65, 9]}):
        with pytest.raises(ValueError, match="config is damaged"):
            FixedZeros.from_config({**config, **damage})


@pytest.mark.parametrize(
    "optimizer",
    [
        keras.optimizers.SGD(0.1, momentum=0.9, nesterov=True),
        keras.optimizers.Adam(0.1, amsgrad=True),
        keras.optimizers.AdamW(0.1, weight_decay=0.1),
        keras.optimizers.RMSprop(0.1, momentum=0.9, global_clipnorm=1.0),
        keras.optimizers.Adam(0.1, gradient_accumulation_steps=2),
        keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam(0.1)),
    ],
    ids=lambda optimizer: type(optimizer).__name__,
)
def test_zeros_hold_after_every_step(optimizer):
    model = masked_model()
    before = keras.ops.convert_to_numpy(model.layers[0].kernel)
    model.compile(optimizer.from_config(optimizer.get_config()), "mse", jit_compile=False)
    for step in range(5):
        batch = slice(4 * step, 4 * step + 4)
        model.train_on_batch(DATA[batch], LABELS[batch])
        assert largest_masked(model) == 0.0
    moved = keras.ops.convert_to_numpy(model.layers[0].kernel) != before
    np.testing.assert_array_equal(moved, MASK)


@pytest.mark.parametrize(
    ("dtype", "jit_compile"), [("mixed_float16", True), ("float16", False), ("float64", False)]
)
def test_zeros_hold_in_every_dtype_compiled_or_not(dtype, jit_compile):
    model = masked_model(dtype)
    model.compile("adam", "mse", jit_compile=jit_compile, steps_per_execution=3)
    record = RecordZeros()
    model.fit(DATA, LABELS, batch_size=4, epochs=2, verbose=0, callbacks=[record])
    assert record.seen == [0.0, 0.0]


def test_zeros_and_the_users_constraint_survive_saving_and_further_training(tmp_path):
    model = masked_model(constraint=keras.constraints.MaxNorm(0.5, axis=0))
    model.compile(keras.optimizers.Adam(0.1), "mse")
    model.fit(DATA, LABELS, batch_size=4, verbose=0)
    model.save(tmp_path / "pruned.keras")
    loaded = keras.saving.load_model(tmp_path / "pruned.keras")
    for before, after in zip(model.get_weights(), loaded.get_weights(), strict=True):
        np.testing.assert_array_equal(after, before)
    loaded.fit(DATA, LABELS, batch_size=4, epochs=2, verbose=0)
    assert largest_masked(loaded) == 0.0
    norms = np.linalg.norm(keras.ops.convert_to_numpy(loaded.layers[0].kernel), axis=0)
    assert np.all(norms <= 0.5 + 1e-6)
    assert np.any(norms > 0.49)


def test_a_clone_keeps_its_zeros():
    clone = keras.models.clone_model(masked_model())
    apply_zeros(clone)
    clone.compile(keras.optimizers.SGD(0.1, momentum=0.9), "mse")
    clone.fit(DATA, LABELS, batch_size=4, verbose=0)
    assert largest_masked(clone) == 0.0


def averaging(**options):
    return keras.optimizers.Adam(0.05, use_ema=True, ema_momentum=0.5, **options)


def largest_masked_average(model):
    optimizer = getattr(model.optimizer, "inner_optimizer", model.optimizer)
    pairs = zip(
        optimizer._trainable_variables, optimizer._model_variables_moving_average, strict=True
    )
    return max(
        np.abs(keras.ops.convert_to_numpy(average)[~variable.constraint.mask]).max()
        for variable, average in pairs
        if isinstance(variable.constraint, FixedZeros)
    )


def test_without_keep_zeros_the_averages_refill_the_zeros():
    model = masked_model()
    model.compile(averaging(), "mse")
    model.fit(DATA, LABELS, batch_size=4, verbose=0)
    assert largest_masked(model) > 1e-4


@pytest.mark.parametrize(
    ("frequency", "wrap"),
    [(None, lambda o: o), (2, lambda o: o), (None, keras.optimizers.LossScaleOptimizer)],
)
def test_keep_zeros_under_averages(frequency, wrap):
    model = masked_model()
    optimizer = wrap(averaging(ema_overwrite_frequency=frequency))
    model.compile(optimizer, "mse", jit_compile=False)
    record = RecordZeros()
    model.fit(DATA, LABELS, batch_size=4, epochs=2, verbose=0, callbacks=[record, KeepZeros()])
    assert record.seen == [0.0, 0.0]
    assert largest_masked(model) == 0.0
    assert largest_masked_average(model) == 0.0


def test_keep_zeros_leaves_the_other_weights_as_averages():
    models = [masked_model(), masked_model()]
    for model, callbacks in zip(models, ([], [KeepZeros()]), strict=True):
        model.compile(keras.optimizers.SGD(0.05, use_ema=True, ema_momentum=0.5), "mse")
        model.fit(DATA, LABELS, batch_size=4, shuffle=False, verbose=0, callbacks=callbacks)
    free, kept = (model.get_weights() for model in models)
    np.testing.assert_allclose(kept[0], np.where(MASK, free[0], 0.0), rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(kept[-2], free[-2], rtol=1e-5, atol=1e-7)


def test_keep_zeros_works_on_a_model_that_was_trained_without_it():
    model = masked_model()
    model.compile(averaging(), "mse")
    model.fit(DATA, LABELS, batch_size=4, verbose=0)
    record = RecordZeros()
    model.fit(DATA, LABELS, batch_size=4, epochs=2, verbose=0, callbacks=[record, KeepZeros()])
    assert record.seen == [0.0, 0.0]
    assert largest_masked(model) == 0.0
    assert largest_masked_average(model) == 0.0
    assert "_update_model_variables_moving_average" not in vars(model.optimizer)


@pytest.mark.parametrize("first", [True, False])
def test_keep_zeros_holds_in_swapped_weights_and_checkpoints(tmp_path, first):
    model = masked_model()
    model.compile(averaging(), "mse", metrics=["mae"])
    path = tmp_path / "checkpoint-{epoch}.keras"
    record = RecordZeros()
    others = [
        keras.callbacks.SwapEMAWeights(swap_on_epoch=True),
        keras.callbacks.ModelCheckpoint(path),
        record,
    ]
    model.fit(
        DATA,
        LABELS,
        batch_size=4,
        epochs=2,
        verbose=0,
        validation_data=(DATA, LABELS),
        callbacks=[KeepZeros(), *others] if first else [*others, KeepZeros()],
    )
    assert record.seen == [0.0] * 4
    assert largest_masked(model) == 0.0
    for epoch in (1, 2):
        saved = keras.saving.load_model(tmp_path / f"checkpoint-{epoch}.keras")
        assert largest_masked(saved) == 0.0


def test_keep_zeros_does_nothing_where_nothing_is_averaged_or_fixed():
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    model.compile("sgd", "mse")
    model.fit(DATA, LABELS, verbose=0, callbacks=[KeepZeros()])
    assert np.all(model.get_weights()[0] != 0)
