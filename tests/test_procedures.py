"""The training procedures: what each computes, and all of them through `compress`."""

import json
import shutil
import warnings

import keras
import numpy as np
import pytest
from test_compress import blobs, small_model, without_seconds

import keras_gss as gss
from keras_gss import datasets, report, zoo
from keras_gss._keras import Callback, track_state
from keras_gss._probe import random_inputs
from keras_gss.compress.phases import choose_speed

ON_TENSORFLOW = keras.backend.backend() == "tensorflow"


@pytest.fixture(autouse=True)
def _no_latencies(monkeypatch):
    monkeypatch.setattr(report, "latency", lambda before, after, batch: (1.0, 1.0))


def run(procedure, **changes):
    arguments = {
        "model": small_model(),
        "train": blobs(),
        "validation": blobs(100, seed=1),
        "target": gss.MacsBudget(0.4),
        "epochs": 3,
        "finetune_epochs": 1,
        "batch_size": 20,
        "learning_rate": 1e-2,
        "jit_compile": False,
        "steps_per_execution": 1,
        "verbose": False,
    }
    return gss.compress(procedure=procedure, **{**arguments, **changes})


def before_the_last_epoch(finished, directory):
    """Makes a directory of what one held when its run was about to train the last epoch."""
    directory.mkdir()
    shutil.copy(finished / "settings.json", directory / "settings.json")
    shutil.copy(finished / "train.npz.previous", directory / "train.npz")
    return directory


def assert_same_end(one, other):
    assert without_seconds(one.history) == without_seconds(other.history)
    for a, b in zip(one.trained.get_weights(), other.trained.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


# The hook in `compress`


class Waning(gss.Procedure):
    """Multiplies the weights after each epoch by what a variable holds, which falls meanwhile."""

    def begin(self, model):
        self.steps = []
        self.share = track_state(model, 1.0, "share")
        return model

    def callbacks(self):
        return [_Wane(self)]

    def state(self):
        return [self.share]

    def end(self, model):
        self.steps.append("end")
        return model


class _Wane(Callback):
    def __init__(self, procedure):
        super().__init__()
        self.procedure = procedure

    def on_epoch_end(self, epoch, logs=None):
        share = self.procedure.share
        share.assign(share * 0.8)
        factor = float(keras.ops.convert_to_numpy(share))
        self.procedure.steps.append(round(factor, 4))
        self.model.set_weights([factor * weight for weight in self.model.get_weights()])


def test_hooks_are_called_around_the_training_and_its_state_is_saved(tmp_path):
    procedure, short = Waning(), {"epochs": 3, "finetune_epochs": 0}
    whole = run(procedure, directory=tmp_path / "whole", **short)
    assert procedure.steps == [0.8, 0.64, 0.512, "end"]
    assert [entry["phase"] for entry in whole.history] == ["train"] * 3
    assert "gss_penalty" not in whole.history[0]
    assert whole.settings["procedure"] == {"class_name": "Waning", "config": {}}
    resumed, killed = Waning(), before_the_last_epoch(tmp_path / "whole", tmp_path / "killed")
    assert_same_end(run(resumed, directory=killed, **short), whole)
    assert resumed.steps == [0.512, "end"]
    again = Waning()
    assert_same_end(run(again, directory=tmp_path / "whole", **short), whole)
    assert again.steps == ["end"]
    with pytest.raises(ValueError, match="`directory` holds a run with .*procedure={"):
        run(None, directory=killed, regularizer=gss.GSSStructure(1e-3), **short)


def test_a_penalty_may_be_given_with_it_unless_it_brings_its_own():
    both = run(Waning(), regularizer=gss.GSSStructure(1e-3), epochs=1, finetune_epochs=0)
    assert both.history[0]["gss_penalty"] > 0

    class Jealous(gss.Procedure):
        takes_penalty = False

    with pytest.raises(ValueError, match=r"Jealous\(\) brings a penalty of its own"):
        run(Jealous(), regularizer=gss.GSSStructure(1e-3))
    with pytest.raises(TypeError, match="`procedure` must be a Procedure"):
        run("spred")


# What every procedure keeps to


PROCEDURES = {
    "Spred": (lambda: gss.Spred(1e-3), {"alpha": 1e-3}),
    "ADMM": (
        lambda: gss.ADMM(0.5, rho=0.01, update_every=2),
        {
            "sparsity": 0.5,
            "rho": 0.01,
            "update_every": 2,
            "granularity": "element",
            "inputs": False,
        },
    ),
    "ADMM of neurons": (
        lambda: gss.ADMM(0.5, granularity="neuron", inputs=True),
        {
            "sparsity": 0.5,
            "rho": 1e-4,
            "update_every": 1,
            "granularity": "neuron",
            "inputs": True,
        },
    ),
    "GroupGReg": (lambda: gss.GroupGReg(), {"factor": 5e-4, "delta": 1e-4, "inputs": False}),
    "GroupPruner": (lambda: gss.GroupPruner(inputs=True), {"factor": 5e-4, "inputs": True}),
    "ProximalSteps": (lambda: gss.ProximalSteps(2e-3), {"strength": 2e-3, "inputs": False}),
    "BayesL1Trim": (
        lambda: gss.BayesL1Trim(1e-3, h=0.5),
        {"factor": 1e-3, "h": 0.5, "deviation": 0.01, "kl": 1e-5, "inputs": False},
    ),
}
every = pytest.mark.parametrize("label", PROCEDURES)


def built(label):
    return PROCEDURES[label][0]()


@every
def test_configs_make_equal_procedures_again(label):
    procedure, config = built(label), PROCEDURES[label][1]
    assert procedure.get_config() == config == json.loads(json.dumps(config))
    again = type(procedure)(**config)
    assert again.get_config() == config
    assert repr(again) == repr(procedure) == repr(built(label))
    assert eval(f"gss.{procedure!r}").get_config() == config


def regularised():
    model = small_model()
    return keras.Sequential(
        [
            keras.Input((6,)),
            keras.layers.Dense(16, "relu", kernel_regularizer="l2", name="a"),
            *model.layers[1:],
        ]
    )


@every
def test_begin_and_end_change_no_output_and_leave_nothing_behind(label):
    model, x = regularised(), blobs(20)[0]
    before, losses = model.predict(x, verbose=0), float(sum(model.losses))
    held = [len(model.variables), [type(layer) for layer in model.layers], repr(model.get_config())]
    procedure = built(label)
    trained = procedure.begin(model)
    np.testing.assert_allclose(trained.predict(x, verbose=0), before, rtol=0, atol=1e-6)
    assert float(sum(trained.losses)) >= losses * (1 - 1e-6)  # its own stays in force
    trained.compile(keras.optimizers.SGD(0.1), "mse")
    trained.fit(x, before + 1, verbose=0, callbacks=procedure.callbacks())
    after = trained.predict(x, verbose=0)
    assert np.abs(after - before).max() > 1e-2
    model = procedure.end(trained)
    np.testing.assert_allclose(model.predict(x, verbose=0), after, rtol=0, atol=1e-6)
    now = [len(model.variables), [type(layer) for layer in model.layers], repr(model.get_config())]
    assert now == held
    (kernel,) = (layer.kernel for layer in model.layers if layer.name == "a")
    expected = 0.01 * np.square(keras.ops.convert_to_numpy(kernel)).sum()
    np.testing.assert_allclose(float(sum(model.losses)), expected, rtol=1e-5)


@pytest.fixture(scope="module")
def digits():
    """Data, and a model trained on them for a while."""
    data, model = datasets.load("digits", validation=300), zoo.build("digits-mlp")
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adam", loss)
    model.fit(*data.train, batch_size=50, epochs=5, shuffle=False, verbose=0)
    return {"model": model, "train": data.train, "validation": data.validation}


@every
def test_compress_trains_with_it_and_resumes_exactly(label, digits, tmp_path):
    arguments = {**digits, "batch_size": 50, "epochs": 2, "finetune_epochs": 0}
    whole = run(built(label), directory=tmp_path / "whole", **arguments)
    assert whole.accuracies["trained"] > 0.85
    assert whole.report.live_macs[1] <= 0.4 * whole.report.live_macs[0]
    if label in ("Spred", "ADMM", "GroupGReg", "BayesL1Trim"):  # the others' code is theirs
        killed = before_the_last_epoch(tmp_path / "whole", tmp_path / "killed")
        assert_same_end(run(built(label), directory=killed, **arguments), whole)


# What each computes


def lasso(x, y, factor, steps=5000):
    """Minimises mean (x w - y)^2 + factor |w|_1 by proximal gradient steps, in float64."""
    w, step = np.zeros(x.shape[1]), len(x) / (2 * np.linalg.norm(x, 2) ** 2)
    for _ in range(steps):
        v = w - step * 2 * x.T @ (x @ w - y) / len(x)
        w = np.sign(v) * np.maximum(np.abs(v) - step * factor, 0)
    return w


def test_spred_ends_at_the_lasso_solution():
    random = np.random.default_rng(0)
    x = random.normal(size=(20, 6))
    y = x @ [1.5, -1, 0.6, 0, 0, 0] + 0.3 * random.normal(size=20)
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(1, use_bias=False)])
    model.set_weights([np.linalg.lstsq(x, y, rcond=None)[0][:, None]])
    spred = gss.Spred(alpha=0.15)
    trained = spred.begin(model)
    trained.compile(keras.optimizers.SGD(0.05, momentum=0.9), "mse", steps_per_execution=100)
    steps = np.tile(x, (1500, 1)), np.tile(y[:, None], (1500, 1))
    trained.fit(*steps, batch_size=20, shuffle=False, verbose=0)
    expected = lasso(x, y, 0.3)
    assert (np.abs(expected) < 1e-9).sum() == 3
    found = spred.end(trained).get_weights()[0][:, 0]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)


def only_penalties(procedure, model, epochs, rate=0.1):
    """Trains on zeros, where nothing but the penalty moves a kernel: one step for each epoch."""
    trained = procedure.begin(model)
    trained.compile(keras.optimizers.SGD(rate), "mse")
    x, y = np.zeros((4, *model.input_shape[1:])), np.zeros((4, model.output_shape[-1]))
    trained.fit(x, y, batch_size=4, epochs=epochs, verbose=0, callbacks=procedure.callbacks())
    return [keras.ops.convert_to_numpy(layer.kernel) for layer in trained.layers]


def kernels_of(model):
    return [np.float64(weight) for weight in model.get_weights()[::2]]


def grown(gamma, n):
    return gamma + 0.3 * (n.max() - n) / (n.max() - n.min() + 1e-8)


def scaled(gamma, n):
    return 0.2 * 16 ** ((n.max() - n) / (n.max() - n.min()))


@pytest.mark.parametrize(
    ("procedure", "first", "following"),
    [
        (gss.GroupGReg(0.2, delta=0.3), lambda n: np.full_like(n, 0.2), grown),
        (gss.GroupPruner(0.2), lambda n: scaled(None, n), scaled),
    ],
    ids=["GroupGReg", "GroupPruner"],
)
def test_decay_of_neurons_follows_its_recurrence(procedure, first, following):
    model = small_model()
    a, b, c = kernels_of(model)

    def norms():
        return [
            np.sqrt(np.square(a).sum(0) + np.square(b).sum(1)),
            np.sqrt(np.square(b).sum(0) + np.square(c).sum(1)),
        ]

    gammas = [first(n) for n in norms()]
    for _ in range(3):
        one, two = gammas
        a = a - 0.1 * one * a
        b = b - 0.1 * (one[:, None] + two) * b
        c = c - 0.1 * two[:, None] * c
        gammas = [following(gamma, n) for gamma, n in zip(gammas, norms(), strict=True)]
    found = only_penalties(procedure, model, epochs=3)
    for got, wanted in zip(found, (a, b, c), strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-7)
    for got, wanted in zip(procedure.gammas, gammas, strict=True):
        np.testing.assert_allclose(keras.ops.convert_to_numpy(got), wanted, rtol=1e-5)


def test_group_pruner_has_one_strength_for_equal_norms():
    np.testing.assert_array_equal(gss.GroupPruner(0.5).first(np.ones(3)), np.full(3, 0.5))


def test_a_recurrent_weight_of_one_unit_decays_once():
    layers = [keras.layers.SimpleRNN(3, name="rnn"), keras.layers.Dense(2)]
    model = keras.Sequential([keras.Input((4, 2)), *layers])
    before = np.float64(layers[0].cell.recurrent_kernel)
    procedure = gss.GroupGReg(0.5, delta=0.0)
    trained = procedure.begin(model)
    trained.compile(keras.optimizers.SGD(0.1), "mse")
    trained.fit(np.zeros((4, 4, 2)), np.zeros((4, 2)), batch_size=4, verbose=0)
    decay = np.where(np.eye(3) == 1, 0.5, 1.0)
    after = keras.ops.convert_to_numpy(layers[0].cell.recurrent_kernel)
    np.testing.assert_allclose(after, (1 - 0.1 * decay) * before, rtol=1e-5)


def largest(w, kept):
    return w * (np.abs(w) >= np.sort(np.abs(w), axis=None)[-kept])


def test_proximal_steps_shorten_what_a_neuron_tells_itself_once():
    layers = [keras.layers.SimpleRNN(5, name="rnn"), keras.layers.Dense(2, use_bias=False)]
    model = keras.Sequential([keras.Input((4, 3)), *layers])
    sizes = np.array([3.0, 2.0, 1.0, 0.3, 0.1])
    shapes = [(3, 5), (5, 5), (5,), (5, 2)]
    model.set_weights([np.ones(shape) * (sizes if 2 not in shape else 1) for shape in shapes])
    proximal = gss.ProximalSteps(0.5)
    proximal.begin(model)
    proximal.update(0)
    kernel, recurrent, bias, outgoing = model.get_weights()
    scales = outgoing[:, 0].astype(np.float64)
    assert 0 < np.count_nonzero(scales == 0) < 5 and scales.max() < 1
    expected = np.outer(scales, scales)
    np.fill_diagonal(expected, scales)
    np.testing.assert_allclose(recurrent / sizes, expected, rtol=1e-5)
    np.testing.assert_allclose(kernel / sizes, np.tile(scales, (3, 1)), rtol=1e-5)
    assert (bias == np.float32(sizes)).all()


def test_proximal_steps_minimise_each_groups_part_in_turn():
    """In float64: no other lengths give a smaller value, group by group, and zeros are exact."""
    model = small_model()
    before, strength = [v.copy() for v in model.get_weights()], 0.05
    proximal = gss.ProximalSteps(strength)
    proximal.begin(model)
    del proximal._groups[1:]
    proximal.update(0)

    def rows(weights):
        incoming, _, outgoing = weights[:3]
        return np.concatenate([incoming.T, outgoing], axis=1).astype(np.float64)

    v, x = rows(before), rows(model.get_weights())

    def value(lengths):
        scaled = v * (lengths / np.linalg.norm(v, axis=1))[:, None]
        return strength * lengths.sum() ** 2 + ((scaled - v) ** 2).sum() / 2

    best = np.linalg.norm(x, axis=1)
    np.testing.assert_allclose(x, v * (best / np.linalg.norm(v, axis=1))[:, None], atol=1e-6)
    assert 0 < np.count_nonzero(best == 0) < len(best)
    random = np.random.default_rng(0)
    for size in (1e-1, 1e-2, 1e-3):
        for _ in range(50):
            assert value(best) <= value(np.abs(best + size * random.normal(size=best.shape)))
    for untouched in (1, 3, 4, 5):
        np.testing.assert_array_equal(model.get_weights()[untouched], before[untouched])


@pytest.mark.parametrize("every", [1, 2])
def test_admm_draws_weights_to_the_largest_of_each_kernel(every):
    model = small_model()
    admm = gss.ADMM({"a": 0.75, "b": 0.5}, rho=2.0, update_every=every)
    kept, expected = {0: 24, 1: 64, 2: 24}, kernels_of(model)
    found = only_penalties(admm, model, epochs=4)
    for k, w in enumerate(expected):
        z, u = largest(w, kept[k]), np.zeros_like(w)
        for epoch in range(4):
            w = w - 0.1 * 2.0 * (w - z + u)
            if (epoch + 1) % every == 0:
                z = largest(w + u, kept[k])
                u = u + w - z
        np.testing.assert_allclose(found[k], w, rtol=1e-5, atol=1e-6)
        target, dual = (keras.ops.convert_to_numpy(v[k]) for v in (admm._targets, admm._duals))
        np.testing.assert_allclose(target, z - u, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(dual, u, rtol=1e-5, atol=1e-6)


def test_admm_draws_neurons_to_the_strongest_of_each_group():
    model = small_model()
    a, b, c = kernels_of(model)
    admm = gss.ADMM(0.75, rho=2.0, granularity="neuron")
    admm.begin(model)
    one = np.square(a).sum(0) + np.square(b).sum(1)
    two = np.square(b).sum(0) + np.square(c).sum(1)
    kept_one, kept_two = one >= np.sort(one)[-4], two >= np.sort(two)[-2]
    wanted = [a * kept_one, b * kept_one[:, None] * kept_two, c * kept_two[:, None]]
    found = {target.shape: keras.ops.convert_to_numpy(target) for target in admm._targets}
    for each in wanted:
        np.testing.assert_allclose(found[each.shape], each, rtol=1e-6)


def test_trimmed_means_of_the_largest_neurons_are_left_free():
    model = small_model()
    a, b, _ = kernels_of(model)
    norms = np.sqrt(np.square(a).sum(0) + np.square(b).sum(1))
    free = norms >= np.sort(norms)[-4]
    found = only_penalties(gss.BayesL1Trim(0.5, h=4, kl=0.0), model, epochs=1)[0]
    np.testing.assert_array_equal(found[:, free], np.float32(a)[:, free])
    np.testing.assert_allclose(found[:, ~free], (a - 0.1 * 0.5 * a / norms)[:, ~free], rtol=1e-5)


def test_posteriors_have_the_deviation_asked_for_and_draw_to_the_priors():
    model = keras.Sequential([keras.Input((300,)), *map(keras.layers.Dense, (300, 2))])
    means = keras.ops.convert_to_numpy(model.layers[0].kernel)
    bayes = gss.BayesL1Trim(0.0, h=0, deviation=0.3, kl=0.5)
    trained = bayes.begin(model)
    drawn = keras.ops.convert_to_numpy(
        keras.Model(model.inputs[0], model.layers[0].output)(np.eye(300), training=True)
    )
    assert abs(np.std(drawn - means) / 0.3 - 1) < 0.02
    assert abs(np.mean(drawn - means)) < 0.01
    assert float(sum(trained.losses)) == pytest.approx(0, abs=1e-3)  # the posterior is the prior
    deviation = model.layers[1].trainable_weights[-1]
    deviation.assign(np.full((300, 2), np.log(0.6)))
    divergence = 0.5 * 600 * (np.log(0.3 / 0.6) + 0.6**2 / (2 * 0.3**2) - 0.5)
    assert float(sum(trained.losses)) == pytest.approx(divergence, rel=1e-4)


@pytest.mark.skipif(not ON_TENSORFLOW, reason="on JAX the choice is Keras' own")
def test_noise_keeps_a_dense_net_from_xla():
    for procedure in (gss.Spred(0.1), gss.BayesL1Trim(0.1, h=1)):
        model = procedure.begin(small_model())
        dense = choose_speed(small_model(), 10).jit_compile
        assert choose_speed(model, 10).jit_compile is (dense and type(procedure) is gss.Spred)
        assert choose_speed(procedure.end(model), 10) == choose_speed(small_model(), 10)


@pytest.mark.skipif(not ON_TENSORFLOW, reason="on JAX the choice is Keras' own")
def test_the_log_says_when_the_procedure_trains_in_another_way(capsys):
    chosen = {"jit_compile": None, "epochs": 1, "finetune_epochs": 0, "verbose": True}
    run(gss.BayesL1Trim(0.1, h=1), **chosen)
    first, second, *_ = capsys.readouterr().out.splitlines()
    assert first.startswith("10 steps per epoch: compiled by XLA, 1 step per call, ")
    assert second == "phase train: not " + first.removeprefix("10 steps per epoch: ")
    run(gss.Spred(0.1), **chosen)
    assert "phase train:" not in capsys.readouterr().out


# What can be reparametrised


def sequential(shape, *layers):
    return keras.Sequential([keras.Input(shape), *layers, keras.layers.Dense(2)])


def attention():
    inputs = keras.Input((4, 6))
    x = keras.layers.MultiHeadAttention(2, 3)(inputs, inputs)
    return keras.Model(inputs, keras.layers.Dense(2)(keras.layers.Flatten()(x)))


L = keras.layers
KERNELS = {  # how many kernels are replaced by Spred, and by BayesL1Trim
    "convolutions": (
        lambda: sequential(
            (6, 6, 2),
            *(L.Conv2D(3, 3), L.DepthwiseConv2D(2), L.SeparableConv2D(3, 2)),
            *(L.Conv2DTranspose(3, 2), L.Flatten()),
        ),
        *(6, 6),
    ),
    "recurrent": (
        lambda: sequential(
            (4, 3), L.GRU(3, return_sequences=True), L.LSTM(3, return_sequences=True), L.Dense(4)
        ),
        *(6, 2),
    ),
    "embedding": (
        lambda: sequential((4,), L.Embedding(5, 3), L.EinsumDense("abc,cd->abd", (4, 3))),
        *(3, 3),
    ),
    "attention": (attention, 5, 5),
    "frozen": (lambda: sequential((4,), L.Dense(3, trainable=False), L.Dense(3)), 2, 2),
}


@pytest.mark.parametrize("name", KERNELS)
def test_kernels_of_all_kinds_are_replaced_and_given_back(name):
    build, factors, posteriors = KERNELS[name]
    model = build()
    x = random_inputs(model, batch=3)
    weights, outputs = model.get_weights(), keras.ops.convert_to_numpy(model(x))
    pairs = {gss.Spred(0.1): factors, gss.BayesL1Trim(0.1, h=1): posteriors}
    for procedure, number in pairs.items():
        with warnings.catch_warnings(record=True) as told:
            warnings.filterwarnings("always", message=".*as they are")
            trained = procedure.begin(model)
        assert len(trained.weights) == len(weights) + number
        assert ("in a recurrent loop" in str([each.message for each in told])) is (
            number == 2 != factors
        )
        trained.compile("sgd", "mse", run_eagerly=ON_TENSORFLOW)
        trained.train_on_batch(x, np.zeros_like(outputs))
        np.testing.assert_array_equal(
            procedure.end(trained).count_params(), sum(w.size for w in weights)
        )
        for before, after in zip(weights, model.get_weights(), strict=True):
            assert before.shape == after.shape and np.isfinite(after).all()
        model.set_weights(weights)
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(model(x)), outputs)


def test_what_cannot_be_replaced_is_named():
    model = sequential((4,), L.Dense(3, kernel_constraint="non_neg", name="bound"))
    with pytest.warns(UserWarning, match=r"Spred trains these as they are: .*bound/kernel \(has a"):
        trained = gss.Spred(0.1).begin(model)
    assert len(trained.weights) == 5
    bound = keras.Sequential([keras.Input((4,)), L.Dense(3, kernel_constraint="non_neg")])
    with pytest.raises(ValueError, match="`Spred` finds no trainable kernel"):
        gss.Spred(0.1).begin(bound)


class Stubborn(keras.layers.Dense):
    def build(self, shape):
        super().build(shape)
        vars(self)["mine"] = self.kernel

    def call(self, inputs):
        return keras.ops.matmul(inputs, vars(self)["mine"])


def test_a_layer_that_reads_its_kernel_otherwise_is_found_out():
    model = sequential((4,), Stubborn(3))
    before = [type(model.layers[0]), *model.get_weights()]
    with pytest.raises(ValueError, match="`Spred` cannot replace the kernels"):
        gss.Spred(0.1).begin(model)
    assert type(model.layers[0]) is before[0]
    for one, other in zip(before[1:], model.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6)


# Wrong arguments and models


@pytest.mark.parametrize(
    ("build", "name"),
    [
        (lambda: gss.Spred(-1), "alpha"),
        (lambda: gss.ADMM(1.0), "sparsity"),
        (lambda: gss.ADMM({"a": -0.1}), r"sparsity\['a'\]"),
        (lambda: gss.ADMM(0.5, rho=float("nan")), "rho"),
        (lambda: gss.ADMM(0.5, update_every=0), "update_every"),
        (lambda: gss.ADMM(0.5, granularity="channel"), "granularity"),
        (lambda: gss.GroupGReg(delta=-1), "delta"),
        (lambda: gss.GroupGReg("strong"), "factor"),
        (lambda: gss.GroupPruner(inputs=1), "inputs"),
        (lambda: gss.ProximalSteps(-1), "strength"),
        (lambda: gss.BayesL1Trim(1e-3, h=-1), "h"),
        (lambda: gss.BayesL1Trim(1e-3, h=1, deviation=0), "deviation"),
        (lambda: gss.BayesL1Trim(1e-3, h=1, kl=-1), "kl"),
        (lambda: gss.ADMM({"z": 0.5}).begin(small_model()), "sparsity"),
    ],
)
def test_wrong_arguments_are_refused_by_name(build, name):
    with pytest.raises(ValueError, match=f"`{name}` must be"):
        build()


@pytest.mark.parametrize(
    "label",
    [
        "ADMM of neurons",
        "GroupGReg",
        "GroupPruner",
        "ProximalSteps",
        "BayesL1Trim",
    ],
)
def test_nothing_removable_is_told_before_any_work(label, tmp_path):
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(3)])
    procedure = type(built(label))(**{**PROCEDURES[label][1], "inputs": False})
    with pytest.raises(ValueError, match="finds n"):
        run(procedure, model=model, pretrain_epochs=1, directory=tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.skipif(not ON_TENSORFLOW, reason="tf_keras runs on TensorFlow")
@pytest.mark.parametrize("label", ["ADMM of neurons", "ProximalSteps"])
def test_tf_keras_models_too_where_no_kernel_is_replaced(label, tmp_path):
    model = gss.to_tf_keras(small_model())
    short = {"model": model, "epochs": 2, "finetune_epochs": 0}
    whole = run(built(label), directory=tmp_path / "whole", **short)
    killed = before_the_last_epoch(tmp_path / "whole", tmp_path / "killed")
    assert_same_end(run(built(label), directory=killed, **short), whole)
    a, b, c = kernels_of(model)
    expected = np.square(a).sum() + 2 * np.square(b).sum() + np.square(c).sum()
    procedure = gss.GroupGReg(0.5, delta=0.0)
    trained = procedure.begin(model)
    assert float(sum(trained.losses)) == pytest.approx(0.25 * expected, rel=1e-5)
    assert procedure.end(trained).losses == []
    for label in ("Spred", "BayesL1Trim"):
        with pytest.raises(TypeError, match=f"`{label}` works on Keras 3 models"):
            run(built(label), model=model)
