"""The methods that can be compared: how each is built, its default strength and its source."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import keras
import numpy as np

from keras_gss._keras import rebuild
from keras_gss.procedures import (
    ADMM,
    BayesL1Trim,
    GradualPruning,
    GroupGReg,
    GroupPruner,
    Procedure,
    SoftPruning,
    Spred,
)
from keras_gss.pruning import (
    PFP,
    SNIP,
    MagnitudeThreshold,
    RandomThreshold,
    Ranking,
)
from keras_gss.pruning.budgets import Budget
from keras_gss.regularizers.binding import Attachment
from keras_gss.regularizers.named import PENALTIES, named_penalty

# What a penalty amounts to when training under it begins, in units of the loss, if not searched
# for: at 0.5 GSSStructure's factor is 2e-6 on LeNet-300-100, where the paper has it.
AT_FIRST = 0.5
Granularity = Literal["neuron", "element"]
PFP_SAMPLES = 256
SNIP_SAMPLES = 100


@dataclass(frozen=True, eq=False)
class Task:
    """What a method is to do.

    Attributes:
        model: the model that it begins with, pretrained unless the method prunes at initialisation.
        train: inputs and labels.
        budget: the kind of target.
        fraction: what may remain, in the budget's unit.
        granularity: "neuron" or "element".
        inputs: whether input features are dealt with like neurons.
        epochs: epochs of the phase in which penalties and procedures act.
        seed: of what is drawn.
    """

    model: keras.Model
    train: tuple[Any, np.ndarray]
    budget: type[Budget]
    fraction: float
    granularity: Granularity
    inputs: bool
    epochs: int
    seed: int

    def target(self, by: Ranking | None = None) -> Budget:
        """Returns the budget; no method may empty a layer."""
        options: dict[str, Any] = {"inputs": self.inputs, "keep_strongest": True}
        if by is None:
            return self.budget(self.fraction, **options)
        return self.budget(self.fraction, by=replace(by, **options))

    def kept(self) -> float:
        """Returns the share of members that the target leaves, if all layers lose alike."""
        by_layer = self.target(MagnitudeThreshold(per_layer=True))
        settled: Any = by_layer.resolve(self.model, self.granularity)
        return settled.fraction

    def batch(self, samples: int) -> tuple[Any, np.ndarray]:
        """Returns the first samples of the training data."""
        return keras.tree.map_structure(lambda array: array[:samples], self.train)


@dataclass(frozen=True, eq=False)
class Recipe:
    """What `compress` is called with for one run of a method."""

    target: Budget
    regularizer: keras.Regularizer | None = None
    procedure: Procedure | None = None


@dataclass(frozen=True, eq=False)
class Method:
    """A method by name.

    Attributes:
        name: in lower case.
        source: who proposed it.
        build: makes the recipe for a task and a strength (which is to be ignored if `strength` is
            None).
        strength: the default: of a penalty, what it amounts to when training under it begins; of a
            procedure, the argument its authors set; None if there is none.
        training: "none" if it only ranks what is there; "shared" if one training serves whatever
            is to remain; "aimed" if the training depends on that.
        scratch: whether it prunes an untrained model, to be trained as long as the others in all.
        granularity: the only one that it knows; None if it knows both.
    """

    name: str
    source: str
    build: Callable[[Task, float], Recipe]
    strength: float | None = None
    training: Literal["none", "shared", "aimed"] = "shared"
    scratch: bool = False
    granularity: Granularity | None = None


def _scaled(task: Task, strength: float, make: Callable[[float], Any]) -> float:
    """Returns the factor at which a penalty amounts to `strength` on the model of a task."""
    return strength / float(Attachment(rebuild(task.model), make(1.0)).penalty())


def _penalty(name: str, source: str) -> Method:
    aimed = name.endswith("trim")

    def build(task: Task, strength: float) -> Recipe:
        free = task.kept() if aimed else 0.0

        def make(factor: float) -> keras.Regularizer:
            return named_penalty(name, factor, task.inputs, free)

        return Recipe(task.target(), regularizer=make(_scaled(task, strength, make)))

    training: Any = "aimed" if aimed else "shared"
    return Method(name, source, build, strength=AT_FIRST, training=training)


def _spred(task: Task, strength: float) -> Recipe:
    # alpha (|U|^2 + |V|^2) is 2 alpha |W| at U = sgn(W) sqrt|W|, V = sqrt|W|.
    factor = _scaled(task, strength, lambda factor: named_penalty("l1", factor, task.inputs))
    return Recipe(task.target(), procedure=Spred(factor / 2))


def _admm(task: Task, strength: float) -> Recipe:
    by = MagnitudeThreshold(per_layer=True)
    procedure = ADMM(
        1 - task.kept(), strength, granularity=task.granularity, inputs=_neuron_inputs(task)
    )
    return Recipe(task.target(by), procedure=procedure)


def _bayes(task: Task, strength: float) -> Recipe:
    free = task.kept()
    factor = _scaled(
        task,
        strength,
        lambda factor: named_penalty("cross-group-l1-trim", factor, task.inputs, free),
    )
    return Recipe(task.target(), procedure=BayesL1Trim(factor, free, inputs=task.inputs))


def _greg(task: Task, strength: float) -> Recipe:
    # The authors' 5e-4 and 1e-4 are scaled together.
    return Recipe(task.target(), procedure=GroupGReg(strength, strength / 5, inputs=task.inputs))


def _group_pruner(task: Task, strength: float) -> Recipe:
    return Recipe(task.target(), procedure=GroupPruner(strength, inputs=task.inputs))


def _softnet(task: Task, strength: float) -> Recipe:
    target = task.target(MagnitudeThreshold(per_layer=True))
    return Recipe(target, procedure=SoftPruning(target, task.granularity))


def _gradual(task: Task, strength: float) -> Recipe:
    target = task.target(MagnitudeThreshold())
    procedure = GradualPruning(target, max(task.epochs, 1), task.granularity)
    return Recipe(target, procedure=procedure)


def _neuron_inputs(task: Task) -> bool:
    return task.inputs and task.granularity == "neuron"


def _ranking(make: Callable[[Task], Ranking]) -> Callable[[Task, float], Recipe]:
    return lambda task, strength: Recipe(task.target(make(task)))


_SOURCES = {
    "gss-structure": "the paper, structured GSS212",
    "gss-element": "the paper, element-wise GSS212",
    "deep-gss121": "the paper, eq. 2-3",
    "l1": "Tibshirani 1996",
    "hoyer": "Yang et al. 2020",
    "hoyer-square": "Yang et al. 2020",
    "transformed-l1": "Ma et al. 2019",
    "l1-trim": "Yun et al. 2019",
    "group-lasso": "Yuan & Lin 2006; Wen et al. 2016",
    "group-hoyer-square": "Yang et al. 2020",
    "exclusive-lasso": "Zhou et al. 2010",
    "cges": "Yoon & Hwang 2017",
    "sparse-group-lasso": "Simon et al. 2013",
    "group-l1-trim": "Yun et al. 2019",
    "shsq-gl12": "an interpretation",
}
_METHODS = (
    *(_penalty(name, _SOURCES[name.removeprefix("cross-")]) for name in PENALTIES),
    Method("spred", "Ziyin & Wang 2023", _spred, strength=AT_FIRST),
    Method("admm", "Zhang et al. 2018", _admm, strength=1e-4, training="aimed"),
    Method("group-greg", "Wang et al. 2021", _greg, strength=5e-4),
    Method("group-pruner", "Fang et al. 2023", _group_pruner, strength=5e-4),
    Method("bayes-l1trim", "Yun et al. 2019", _bayes, strength=AT_FIRST, training="aimed"),
    Method("softnet", "He et al. 2018", _softnet, training="aimed"),
    Method(
        "snip",
        "Lee et al. 2019",
        _ranking(lambda task: SNIP(*task.batch(SNIP_SAMPLES))),
        training="none",
        scratch=True,
    ),
    Method(
        "pfpnet",
        "Liebenwein et al. 2020",
        _ranking(lambda task: PFP(task.batch(PFP_SAMPLES)[0])),
        training="none",
        granularity="neuron",
    ),
    Method(
        "magnitude",
        "Han et al. 2015",
        _ranking(lambda task: MagnitudeThreshold()),
        training="none",
    ),
    Method("gradual-magnitude", "Zhu & Gupta 2017", _gradual, training="aimed"),
    Method(
        "random",
        "a yardstick",
        _ranking(lambda task: RandomThreshold(seed=task.seed)),
        training="none",
    ),
)
METHODS: dict[str, Method] = {method.name: method for method in _METHODS}
