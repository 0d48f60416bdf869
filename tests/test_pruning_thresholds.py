from dataclasses import dataclass

import keras
import numpy as np
import pytest
from keras import layers

import keras_gss as gss
from keras_gss.pruning import Threshold
from keras_gss.pruning.pieces import survey


def path_of(variable):
    return "/".join(variable.path.split("/")[-2:])


def set_values(model, **values):
    """Sets weights by "layer_variable"; the others become one."""
    for variable in model.weights:
        name = path_of(variable).replace("/", "_")
        variable.assign(values.pop(name, np.ones(variable.shape)))
    assert not values


def masks_of(model, threshold, granularity="element"):
    """The threshold's masks as {weight path: list}."""
    masks = threshold.masks(model, granularity)
    by_id = {id(variable): path_of(variable) for variable in model.weights}
    return {by_id[key]: mask.astype(int).tolist() for key, mask in masks.items()}


def chain():
    """2-3-2 whose middle neurons have root-mean-square weights 4, 1 and 0.1."""
    model = keras.Sequential(
        [
            keras.Input((2,)),
            layers.Dense(3, name="a"),
            layers.BatchNormalization(name="n"),
            layers.Dense(2, name="b"),
        ]
    )
    set_values(
        model,
        a_kernel=np.array([[4.0, -1.0, 0.1], [-4.0, 1.0, 0.1]]),
        b_kernel=np.array([[4.0, -4.0], [1.0, 1.0], [-0.1, 0.1]]),
    )
    return model


def test_std_threshold_per_tensor_by_hand():
    model = keras.Sequential([keras.Input((2,)), layers.Dense(2, name="a")])
    # std of (3, -1, 1, 1) about its mean 1 is sqrt(2); std of (4, 0) is 2.
    set_values(model, a_kernel=np.array([[3.0, -1.0], [1.0, 1.0]]), a_bias=np.array([4.0, 0.0]))
    ratio = 1.01 / np.sqrt(2)
    assert masks_of(model, gss.StdThreshold(ratio)) == {
        "a/kernel": [[1, 0], [0, 0]],
        "a/bias": [1, 0],
    }
    ratio = 0.99 / np.sqrt(2)
    assert masks_of(model, gss.StdThreshold(ratio, biases=False)) == {"a/kernel": [[1, 1], [1, 1]]}


def test_a_weight_at_the_limit_stays():
    model = keras.Sequential([keras.Input((2,)), layers.Dense(1, name="a", use_bias=False)])
    set_values(model, a_kernel=np.array([[0.5], [0.25]]))
    assert masks_of(model, gss.AbsoluteThreshold(0.5)) == {"a/kernel": [[1], [0]]}
    assert masks_of(model, gss.AbsoluteThreshold(0)) == {"a/kernel": [[1], [1]]}


def test_normalisation_and_embeddings_are_compared_only_when_asked():
    inputs = keras.Input((3,), dtype="int32")
    x = layers.Embedding(5, 4, name="e")(inputs)
    x = layers.Flatten()(layers.BatchNormalization(name="n")(x))
    model = keras.Model(inputs, layers.Dense(1, name="d")(x))
    set_values(model, n_gamma=np.array([0.1, 1.0, 1.0, 1.0]))
    assert set(masks_of(model, gss.AbsoluteThreshold(0.5))) == {"d/kernel", "d/bias"}
    masks = masks_of(model, gss.AbsoluteThreshold(0.5, also=("gamma", "embeddings")))
    assert set(masks) == {"d/kernel", "d/bias", "n/gamma", "e/embeddings"}
    assert masks["n/gamma"] == [0, 1, 1, 1]


def test_neurons_go_whole_with_their_companions():
    # All in- and outgoing weights: 2x(4, -4), (-1, 1), 2x1, 3x0.1, -0.1; the mean is 0.1833.
    values = np.array([4, -4, 4, -4, -1, 1, 1, 1, 0.1, 0.1, -0.1, 0.1])
    limit = 0.5 * values.std()
    assert 1.0 < limit < 4.0
    masks = masks_of(chain(), gss.StdThreshold(0.5), "neuron")
    assert masks == {
        "a/kernel": [[1, 0, 0], [1, 0, 0]],
        "a/bias": [1, 0, 0],
        "n/gamma": [1, 0, 0],
        "n/beta": [1, 0, 0],
        "n/moving_mean": [1, 0, 0],
        "b/kernel": [[1, 1], [0, 0], [0, 0]],
    }
    ratio = 0.99 / values.std()
    masks = masks_of(chain(), gss.StdThreshold(ratio), "neuron")
    assert masks["a/bias"] == [1, 1, 0]


def test_root_mean_square_is_over_in_and_outgoing_weights():
    model = chain()
    # Neuron 2: incoming (0, 0), outgoing (2, 0): root mean square 1.
    set_values(
        model,
        a_kernel=np.array([[4.0, 2.0, 0.0], [4.0, 2.0, 0.0]]),
        b_kernel=np.array([[4.0, 4.0], [2.0, 2.0], [2.0, 0.0]]),
    )
    assert masks_of(model, gss.AbsoluteThreshold(0.99), "neuron")["a/bias"] == [1, 1, 1]
    assert masks_of(model, gss.AbsoluteThreshold(1.01), "neuron")["a/bias"] == [1, 1, 0]


def test_input_features_are_compared_only_when_asked():
    model = keras.Sequential([keras.Input((2,)), layers.Dense(3, name="a")])
    set_values(model, a_kernel=np.array([[1.0, 1.0, 1.0], [0.1, 0.1, 0.1]]))
    assert masks_of(model, gss.AbsoluteThreshold(0.5), "neuron") == {}
    masks = masks_of(model, gss.AbsoluteThreshold(0.5, inputs=True), "neuron")
    assert masks == {"a/kernel": [[1, 1, 1], [0, 0, 0]]}


def test_a_flattened_channel_takes_all_its_rows():
    model = keras.Sequential(
        [
            keras.Input((2, 2, 1)),
            layers.Conv2D(2, 1, name="c", use_bias=False),
            layers.Flatten(),
            layers.Dense(1, name="d", use_bias=False),
        ]
    )
    set_values(model, c_kernel=np.array([[[[1.0, 0.1]]]]), d_kernel=np.tile([[1.0], [0.1]], (4, 1)))
    masks = masks_of(model, gss.AbsoluteThreshold(0.5), "neuron")
    assert masks == {"c/kernel": [[[[1, 0]]]], "d/kernel": [[1], [0]] * 4}


def test_a_residual_neuron_takes_the_slices_of_every_branch():
    inputs = keras.Input((2,))
    x = layers.Dense(2, name="a", use_bias=False)(inputs)
    y = layers.Dense(2, name="b", use_bias=False)(x)
    model = keras.Model(inputs, layers.Dense(1, name="c", use_bias=False)(layers.add([x, y])))
    # Neuron 1 owns column 1 of a, column 1 and row 1 of b, row 1 of c: all 0.1 but b[1, 1] = 1.
    set_values(
        model,
        a_kernel=np.array([[1.0, 0.1], [1.0, 0.1]]),
        b_kernel=np.array([[1.0, 0.1], [0.1, 1.0]]),
        c_kernel=np.array([[1.0], [0.1]]),
    )
    masks = masks_of(model, gss.AbsoluteThreshold(0.6), "neuron")
    assert masks == {
        "a/kernel": [[1, 0], [1, 0]],
        "b/kernel": [[1, 0], [0, 0]],
        "c/kernel": [[1], [0]],
    }


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "mixed_float16", "float64"])
def test_other_dtypes_are_compared_as_they_are(dtype):
    model = keras.Sequential(
        [keras.Input((2,)), layers.Dense(1, use_bias=False, dtype=dtype, name="a")]
    )
    set_values(model, a_kernel=np.array([[0.5], [0.125]]))
    assert masks_of(model, gss.AbsoluteThreshold(0.25)) == {"a/kernel": [[1], [0]]}


def test_keep_strongest_leaves_the_largest_weights_and_a_path_through():
    model = chain()
    masks = masks_of(model, gss.AbsoluteThreshold(100.0, keep_strongest=True))
    assert masks["a/kernel"] == [[1, 0, 0], [0, 0, 0]]
    assert masks["b/kernel"] == [[1, 0], [0, 0], [0, 0]]
    assert masks["a/bias"] == [0, 0, 0]
    masks = masks_of(model, gss.AbsoluteThreshold(100.0, keep_strongest=True), "neuron")
    assert masks["a/bias"] == [1, 0, 0]


def test_keep_strongest_joins_layers_that_the_threshold_would_disconnect():
    model = chain()
    # Alone, a keeps only what makes neuron 0 and b only what reads neuron 1.
    set_values(
        model,
        a_kernel=np.array([[9.0, 0.5, 0.1], [9.0, 0.4, 0.1]]),
        b_kernel=np.array([[0.3, 0.2], [9.0, 9.0], [0.1, 0.1]]),
    )
    masks = masks_of(model, gss.AbsoluteThreshold(1.0, keep_strongest=True))
    # Neuron 1 is the strongest by the weaker of its ends (0.5 and 9, against 9 and 0.3).
    assert masks["a/kernel"] == [[1, 1, 0], [1, 0, 0]]
    assert masks["b/kernel"] == [[0, 0], [1, 1], [0, 0]]
    with pytest.raises(ValueError, match="nothing of the neurons of 'a'"):
        gss.prune(model, gss.AbsoluteThreshold(1.0))


def wide():
    """6-12-10-2: groups of twelve and of ten neurons, of the strengths 1 to 12 and 1 to 10."""
    names = {"a": 12, "b": 10, "c": 2}
    stack = [layers.Dense(units, name=name) for name, units in names.items()]
    model = keras.Sequential([keras.Input((6,)), *stack])
    set_values(model, a_kernel=np.tile(np.arange(1.0, 13), (6, 1)))
    first, second = np.arange(1.0, 13)[:, None], np.arange(1.0, 11)
    model.get_layer("b").kernel.assign(first * second)
    return model


def test_round_to_brings_back_the_strongest_to_fill_a_multiple():
    model = wide()
    strengths = [p.strengths for p in survey(model, "neuron").pieces]
    assert [np.argsort(each).tolist() for each in strengths] == [[*range(12)], [*range(10)]]
    limit = strengths[0][7] - 1e-6  # five of the first and some of the second stay
    kept = [int((each >= limit).sum()) for each in strengths]
    assert kept[0] == 5 and kept[1] % 4
    masks = masks_of(model, gss.AbsoluteThreshold(limit, round_to=4), "neuron")
    assert masks["a/bias"] == [0] * 4 + [1] * 8
    width = -(-kept[1] // 4) * 4
    assert masks["b/bias"] == [0] * (10 - width) + [1] * width
    small = gss.slim(gss.prune(model, gss.AbsoluteThreshold(limit, round_to=4), "neuron"))
    assert [layer.units for layer in small.layers] == [8, width, 2]


def test_round_to_leaves_alone_what_cannot_fill_a_multiple():
    model = wide()
    first, second = (piece.strengths for piece in survey(model, "neuron").pieces)
    limit = min(first[1], second[1]) + 1e-6
    plain = masks_of(model, gss.AbsoluteThreshold(limit), "neuron")
    assert 8 < sum(plain["a/bias"]) < 12 or 8 < sum(plain["b/bias"]) < 10
    assert masks_of(model, gss.AbsoluteThreshold(limit, round_to=100), "neuron") == plain
    # Nobody reads three of the twelve: nine are alive, which fill no second eight.
    kernel = keras.ops.convert_to_numpy(model.get_layer("b").kernel).copy()
    kernel[:3] = 0
    model.get_layer("b").kernel.assign(kernel)
    limit = survey(model, "neuron").pieces[0].strengths[3] - 1e-6
    masks = gss.AbsoluteThreshold(limit, round_to=8).masks(model, "neuron")
    assert masks[id(model.get_layer("a").bias)].sum() == 9


@pytest.mark.parametrize(
    "threshold",
    [
        gss.StdThreshold(0.9, round_to=4),
        gss.MacsBudget(0.5, round_to=4),
        gss.MacsBudget(0.5, by=gss.MagnitudeThreshold(round_to=4)),
    ],
)
def test_every_rule_rounds(threshold):
    keras.utils.set_random_seed(1)
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(12, 3, padding="same", name="a")(inputs)
    x = layers.add([x, layers.Conv2D(12, 3, padding="same", name="b")(layers.ReLU()(x))])
    x = layers.Dense(16, "relu", name="c")(layers.Flatten()(layers.BatchNormalization()(x)))
    model = keras.Model(inputs, layers.Dense(3, name="d")(x))
    for name in "abc":
        kernel = model.get_layer(name).kernel
        kernel.assign(kernel * keras.random.uniform(kernel.shape[-1:], 0.1, 2.0))
    pruned = gss.prune(model, threshold, "neuron")
    small = gss.slim(pruned)
    widths = [small.get_layer("a").filters, small.get_layer("c").units]
    assert all(width % 4 == 0 for width in widths) and sum(widths) < 28
    if isinstance(threshold, gss.MacsBudget):
        assert gss.count(pruned).live_macs <= 0.5 * gss.count(model).live_macs


def test_round_to_is_for_neurons():
    with pytest.raises(ValueError, match="takes granularity='neuron'. Received: round_to=8"):
        gss.StdThreshold(0.5, round_to=8).masks(wide(), "element")
    with pytest.raises(ValueError, match="`round_to` must be an integer >= 1"):
        gss.MacsBudget(0.5, round_to=0)


@dataclass(frozen=True)
class KeepHalf(Threshold):
    share: float = 0.5

    def limit(self, values):
        return np.quantile(np.abs(values), self.share)


def test_a_new_threshold_is_one_class():
    model = keras.Sequential([keras.Input((4,)), layers.Dense(1, name="a", use_bias=False)])
    set_values(model, a_kernel=np.array([[1.0], [-4.0], [2.0], [3.0]]))
    assert masks_of(model, KeepHalf()) == {"a/kernel": [[0], [1], [0], [1]]}


class Scale(layers.Layer):
    def build(self, shape):
        self.table = self.add_weight(shape=(shape[-1], 2), name="table")

    def call(self, x):
        return x * keras.ops.sum(self.table, axis=1)


def test_weights_without_a_constraint_are_left_and_named():
    inputs = keras.Input((2,))
    model = keras.Model(inputs, layers.Dense(1, name="d")(Scale(name="scale")(inputs)))
    set_values(model, scale_table=np.full((2, 2), 0.1))
    with pytest.warns(UserWarning, match="stay dense.*scale/table"):
        masks = masks_of(model, gss.AbsoluteThreshold(0.5))
    assert set(masks) == {"d/kernel", "d/bias"}


@pytest.mark.parametrize("value", [-1, float("nan"), float("inf"), True, "0.3", None, [1]])
def test_wrong_numbers_are_refused_by_name(value):
    with pytest.raises(ValueError, match="`ratio` must be a finite number >= 0. Received: ratio="):
        gss.StdThreshold(value)
    with pytest.raises(ValueError, match="`value` must be a finite number >= 0"):
        gss.AbsoluteThreshold(value)


def test_wrong_flags_and_names_are_refused_by_name():
    with pytest.raises(ValueError, match="`biases` must be True or False"):
        gss.StdThreshold(0.3, biases="yes")
    with pytest.raises(ValueError, match="`keep_strongest` must be True or False"):
        gss.AbsoluteThreshold(0.3, keep_strongest=1)
    for also in ("gamma", (1,), None, 3):
        with pytest.raises(ValueError, match="`also` must be a tuple of names"):
            gss.StdThreshold(0.3, also=also)
    with pytest.raises(ValueError, match=r"Not found: \['gama'\]"):
        gss.StdThreshold(0.3, also=("gama",)).masks(chain(), "element")
    with pytest.raises(ValueError, match="`granularity` must be one of 'element', 'neuron'"):
        gss.StdThreshold(0.3).masks(chain(), "channel")


def test_repr_shows_what_was_given():
    assert repr(gss.StdThreshold(0.3)) == "StdThreshold(ratio=0.3)"
    threshold = gss.AbsoluteThreshold(1, biases=False)
    assert repr(threshold) == "AbsoluteThreshold(value=1.0, biases=False)"


def test_thresholds_refuse_an_unbuilt_model():
    model = keras.Sequential([keras.layers.Dense(2)])
    for threshold in (gss.StdThreshold(0.3), gss.MacsBudget(0.5)):
        with pytest.raises(ValueError, match="needs a built model"):
            threshold.masks(model, "element")
