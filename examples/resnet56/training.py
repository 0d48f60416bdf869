"""One epoch of training: `model.fit` on any backend, or one jitted scan over all steps on JAX.

Both take the samples of an epoch in the same order, and both keep all state as lists of NumPy
arrays (`State`), so that a phase that was broken off goes on from a file.
"""

import functools
from dataclasses import dataclass

import cifar
import keras
import numpy as np

from keras_gss.pruning import FixedZeros

EVALUATION_BATCH = 1000
TEMPERATURE = 4.0  # of distillation


class SGD(keras.optimizers.SGD):
    """Momentum 0.9, the gradient of l2/2 |w|^2 added for kernels, as PyTorch's `weight_decay`."""

    def __init__(self, learning_rate=0.1, l2=0.0, **options):
        super().__init__(learning_rate, momentum=0.9, **options)
        self.l2 = l2

    def update_step(self, gradient, variable, learning_rate):
        """Adds the weight decay, then steps."""
        if self.l2 and variable.name == "kernel":
            gradient = gradient + self.l2 * keras.ops.convert_to_tensor(variable)
        super().update_step(gradient, variable, learning_rate)


@dataclass
class State:
    """What training changes: arrays in the order of the model's and the optimizer's variables."""

    trainable: list
    others: list
    optimizer: list

    @classmethod
    def of(cls, model, optimizer):
        """Reads the values of a model; the optimizer begins anew."""
        optimizer.build(model.trainable_variables)
        return cls(
            _values(model.trainable_variables),
            _values(model.non_trainable_variables),
            [np.zeros(v.shape, v.dtype) for v in optimizer.variables],
        )

    def numpy(self):
        """Returns the same in host memory."""
        lists = (self.trainable, self.others, self.optimizer)
        return State(*([np.array(value) for value in values] for values in lists))

    def assign(self, model):
        """Writes the values into a model of the same variables."""
        for variables, values in (
            (model.trainable_variables, self.trainable),
            (model.non_trainable_variables, self.others),
        ):
            for variable, value in zip(variables, values, strict=True):
                variable.assign(np.asarray(value))


def _values(variables):
    return [keras.ops.convert_to_numpy(v) for v in variables]


def order(seed, epoch, samples, batch):
    """Returns the samples of each step of an epoch, shape (steps, batch)."""
    permutation = np.random.default_rng([*seed, epoch]).permutation(samples)
    return permutation[: samples // batch * batch].reshape(-1, batch)


def normalised(images):
    """Returns uint8 images as floats of mean 0 and deviation 1 per channel."""
    return (images.astype("float32") / np.float32(255) - cifar.MEAN) / cifar.DEVIATION


def cross_entropy(labels, logits, smoothing):
    """Returns the mean cross-entropy of labels smoothed towards 1/10 each."""
    targets = keras.ops.one_hot(labels, 10) * (1 - smoothing) + smoothing / 10
    logits = keras.ops.cast(logits, "float32")
    return -keras.ops.mean(keras.ops.sum(targets * keras.ops.log_softmax(logits), axis=-1))


class FitTrainer:
    """Trains by `model.fit`, one call an epoch, on any backend."""

    def __init__(self, network, smoothing, l2, distil=0.0):
        self.smoothing, self.l2 = smoothing, l2
        self._distil = distil
        self._model = self._optimizer = None

    def optimizer(self):
        """Returns a new optimizer."""
        return SGD(l2=self.l2)

    def epoch(self, model, state, data, steps, rates, seed, teacher=None, strength=1.0):
        """Trains one epoch from `state`; returns the new state and the mean loss.

        Args:
            model: what is trained; its penalties and fixed zeros apply.
            state: a `State`.
            data: uint8 images and labels.
            steps: the samples of each step, as `order` returns them.
            rates: the learning rate of each step.
            seed: tuple of integers that decides crops and flips.
            teacher: refused, as is distillation.
            strength: of the model's penalty; any but 1 is refused.
        """
        if self._distil or strength != 1:
            raise SystemExit("--distil and --warm-up need --loop scan (KERAS_BACKEND=jax)")
        if self._model is not model:
            self._model, self._optimizer = model, self.optimizer()
            smoothing = self.smoothing
            model.compile(
                self._optimizer,
                lambda labels, logits: cross_entropy(labels[:, 0], logits, smoothing),
                jit_compile=False,
            )
            self._optimizer.build(model.trainable_variables)
        state.assign(model)
        for variable, value in zip(self._optimizer.variables, state.optimizer, strict=True):
            variable.assign(value)
        rate = keras.callbacks.LambdaCallback(
            on_train_batch_begin=lambda step, logs: setattr(
                self._optimizer, "learning_rate", rates[step]
            )
        )
        batches = _Batches(data, steps, seed)
        history = model.fit(batches, shuffle=False, verbose=0, callbacks=[rate])
        trained = State(
            _values(model.trainable_variables),
            _values(model.non_trainable_variables),
            _values(self._optimizer.variables),
        )
        return trained, history.history["loss"][0]

    def logits(self, model, state, images):
        """Returns the outputs for uint8 images."""
        state.assign(model)
        return model.predict(normalised(images), batch_size=EVALUATION_BATCH, verbose=0)


class _Batches(keras.utils.PyDataset):
    def __init__(self, data, steps, seed):
        super().__init__()
        self._data, self._steps, self._seed = data, steps, seed

    def __len__(self):
        return len(self._steps)

    def __getitem__(self, step):
        random = np.random.default_rng([*self._seed, step])
        chosen = self._steps[step]
        images = np.pad(normalised(self._data[0][chosen]), ((0, 0), (4, 4), (4, 4), (0, 0)))
        out = np.empty((len(chosen), 32, 32, 3), np.float32)
        for image, crop, (top, left), flip in zip(
            images,
            out,
            random.integers(0, 9, (len(chosen), 2)),
            random.integers(0, 2, len(chosen)),
            strict=True,
        ):
            crop[:] = image[top : top + 32, left : left + 32][:, :: -1 if flip else 1]
        return out, self._data[1][chosen][:, None]


class ScanTrainer:
    """Trains by one jitted `lax.scan` an epoch, on JAX's first device; all else stays on the CPU.

    One function is compiled for training without and one for training under a penalty, whatever
    zeros are fixed: masks are arguments. Evaluation is in float32 without TF32.
    """

    def __init__(self, network, smoothing, l2, distil=0.0):
        """`network` is the model, unpruned; it may compute in mixed precision."""
        import jax

        self._jax = jax
        self._device = jax.devices()[0]
        self._network = network
        self._smoothing, self.l2, self._distil = smoothing, l2, distil
        self._functions, self._data = {}, {}

    def optimizer(self):
        """Returns a new optimizer."""
        return SGD(l2=self.l2)

    def epoch(self, model, state, data, steps, rates, seed, teacher=None, strength=1.0):
        """As `FitTrainer.epoch`; refuses nothing.

        `teacher` is the `State` of the network to learn from, or None; the model's penalty is
        multiplied by `strength`.
        """
        jax = self._jax
        penalised = bool(model.losses)
        key = ("train", id(model) if penalised else None, teacher is not None, self.l2)
        if key not in self._functions:
            self._functions[key] = jax.jit(
                self._train_function(model if penalised else self._network, teacher is not None),
                donate_argnums=0,
            )
        masks = [
            v.constraint.mask if isinstance(v.constraint, FixedZeros) else np.True_
            for v in model.trainable_variables
        ]
        masks = [np.broadcast_to(m, v.shape) for m, v in zip(masks, state.trainable, strict=True)]
        images, labels = self._resident(data)
        frozen = None if teacher is None else (teacher.trainable, teacher.others)
        random = functools.reduce(jax.random.fold_in, seed[1:], jax.random.key(seed[0]))
        values = (state.trainable, state.others, state.optimizer)
        rest = (masks, frozen, steps, np.asarray(rates, np.float32), random, np.float32(strength))
        values, rest = self._put((values, rest))
        trained, loss = self._functions[key](values, *rest, images, labels)
        return State(*trained), float(loss)

    def logits(self, model, state, images):
        """As `FitTrainer.logits`."""
        jax = self._jax
        key = ("logits", tuple(tuple(v.shape) for v in model.weights))
        if key not in self._functions:

            def function(trainable, others, images):
                def batch(_, x):
                    return _, model.stateless_call(trainable, others, normalised(x), False)[0]

                return jax.lax.scan(batch, 0, images)[1]

            self._functions[key] = jax.jit(function)
        (whole,) = self._resident((images,), batch=EVALUATION_BATCH)
        values = self._put((state.trainable, state.others))
        with jax.default_matmul_precision("highest"):
            out = self._functions[key](*values, whole)
        return np.asarray(out).reshape(-1, 10)[: len(images)]

    def _put(self, arrays):
        return self._jax.device_put(arrays, self._device)

    def _resident(self, arrays, batch=None):
        key = id(arrays[0]), batch
        if key not in self._data:
            own = arrays
            if batch:
                own = [np.concatenate([a, a[: -len(a) % min(batch, len(a))]]) for a in arrays]
                own = [a.reshape(-1, min(batch, len(a)), *a.shape[1:]) for a in own]
            self._data[key] = arrays, self._put(own)
        return self._data[key][1]

    def _train_function(self, model, distils):
        jax, jnp = self._jax, self._jax.numpy
        optimizer = self.optimizer()
        optimizer.build(model.trainable_variables)
        rate_at = next(
            i for i, v in enumerate(optimizer.variables) if v is optimizer._learning_rate
        )

        def crop(key, image):
            offset, flip = jax.random.split(key)
            top, left = jax.random.randint(offset, (2,), 0, 9)
            image = jax.lax.dynamic_slice(image, (top, left, 0), (32, 32, 3))
            return jnp.where(jax.random.bernoulli(flip), image[:, ::-1], image)

        def loss_of(trainable, others, x, y, teacher, strength):
            logits, others, losses = model.stateless_call(
                trainable, others, x, training=True, return_losses=True
            )
            loss = cross_entropy(y, logits, self._smoothing)
            if distils:
                goal, _ = self._network.stateless_call(*teacher, x, training=False)
                goal, own = (z.astype("float32") / TEMPERATURE for z in (goal, logits))
                goal = jax.nn.softmax(goal)
                gap = jnp.log(goal) - jax.nn.log_softmax(own)
                distance = (goal * gap).sum(-1).mean() * TEMPERATURE**2
                loss = (1 - self._distil) * loss + self._distil * distance
            return loss + strength * sum(losses), others

        def function(values, masks, teacher, steps, rates, random, strength, images, labels):
            def step(values, each):
                trainable, others, state = values
                chosen, rate, number = each
                keys = jax.random.split(jax.random.fold_in(random, number), len(chosen))
                x = jnp.pad(normalised(images[chosen]), ((0, 0), (4, 4), (4, 4), (0, 0)))
                x = jax.vmap(crop)(keys, x)
                (loss, others), gradients = jax.value_and_grad(loss_of, has_aux=True)(
                    trainable, others, x, labels[chosen], teacher, strength
                )
                state = [rate if i == rate_at else v for i, v in enumerate(state)]
                trainable, state = optimizer.stateless_apply(state, gradients, trainable)
                trainable = [jnp.where(m, v, 0.0) for m, v in zip(masks, trainable, strict=True)]
                return (trainable, others, state), loss

            numbers = jnp.arange(len(steps))
            values, losses = jax.lax.scan(step, values, (steps, rates, numbers))
            return values, losses.mean()

        return function
