"""What is run for each table and figure: the frozen settings, and nothing else.

The paper's recipe is 250 epochs under the penalty and 50 of finetuning. LeNet-300-100's factors
were chosen on held-out training images (`python examples/reproduce TARGET --search 0.5 1 2` tries
multiples of a factor without reading the test images), LeNet-5's are guesses where no search is
named; none is changed after the test images were read. "ours" adds what the paper does without:
pixels dropped in training and another weight decay (LeNet-300-100, chosen on held-out images);
images shifted in training, and neurons cut in rounds (LeNet-5, for which only the "searched" rows
are chosen so: `LEVERS`, `LEVERS_5`).
"""

from dataclasses import dataclass, replace
from typing import Any

QUICK = {"dataset": "digits", "validation": 200.0, "quick": True, "cost": 0.3}
QUICK_EPOCHS = {"pretrain_epochs": 1, "epochs": 2, "finetune_epochs": 1}
QUICK_MODELS = {
    "lenet-300-100": "digits-mlp",
    "lenet-5": "digits-cnn",
    "resnet-56": "digits-cnn",
}
SEARCH = {"role": "search", "validation": 5000.0}


@dataclass(frozen=True, kw_only=True)
class Run:
    """One row of a table or point of a figure, with one seed.

    Attributes:
        target: the table or figure.
        row: what the row is called.
        model, dataset: a named model and a named dataset.
        method: a penalty's name, see `keras_gss.regularizers.named`.
        factor: its strength, the paper's lambda.
        inputs: whether input features are groups too.
        p, q, weights: of "gss-structure".
        unit: what the cost is counted in, "weights" (non-zero, no biases) or "macs" (live).
        cost: how much of it may remain; 1 or less is a share of what the dense network has.
        ratio: instead of a cost, the ratio of the threshold to the tensor's standard deviation.
        granularity: what the threshold zeroes, "element" or "neuron".
        by: instead of such ratios, one order for all layers: "magnitude", or "loss" (SNIP's).
        rewinds: whether finetuning begins with the weights from before the penalty.
        dropout: the share of the pixels that is dropped in training.
        shift: the most pixels by which an image is shifted in training, up or down, left or right.
        flips: whether every second image is mirrored in training.
        size: the pixels on a side to which images are averaged, where they have more.
        images: how many of the training images are used; None: all.
        weight_decay: of pretraining and finetuning.
        pretrain_epochs, epochs, finetune_epochs: without penalty, under it, with zeros fixed.
        warm_up: epochs in which the penalty grows, or falls, to its factor.
        begins: how many times the factor it is before.
        proximal: the strength of proximal steps between the epochs under the penalty.
        distillation: how much of finetuning's labels comes from the network before the cut.
        rounds: costs, or shares of what is there, to which whole neurons are cut on the way, each
            after an equal part of the epochs under the penalty; the last part ends in the cut to
            `cost`.
        finetune: settings that finetuning has otherwise, pairs of a name and a value.
        validation: how many training images are held out. Once all is frozen nothing is chosen by
            them, so they are few.
        seed: of weights, order, dropout and shifts.
        role: "final", or "search", in which the test images are not read.
        quick: whether this is a smoke run, of which no table is made.
    """

    target: str
    row: str
    model: str = "lenet-300-100"
    dataset: str = "fashion_mnist"
    method: str
    factor: float
    inputs: bool = True
    p: int = 2
    q: int = 2
    weights: Any = "uniform"
    unit: str = "weights"
    cost: float | None = None
    ratio: float | None = None
    granularity: str = "element"
    dropout: float = 0.0
    shift: int = 0
    flips: bool = False
    size: int | None = None
    images: int | None = None
    weight_decay: float = 1e-4
    pretrain_epochs: int = 40
    epochs: int = 250
    finetune_epochs: int = 50
    warm_up: int = 0
    begins: float = 0.0
    proximal: float = 0.0
    by: str = ""
    rewinds: bool = False
    distillation: float = 0.0
    rounds: tuple[float, ...] = ()
    finetune: tuple[tuple[str, Any], ...] = ()
    validation: float = 500.0
    seed: int = 1
    role: str = "final"
    quick: bool = False

    def smoke(self) -> "Run":
        """Returns the smoke run of the same row."""
        changes: dict[str, Any] = {**QUICK, **QUICK_EPOCHS, "model": QUICK_MODELS[self.model]}
        if self.size:
            changes |= {"size": None, "images": None, "weights": "uniform"}
        return replace(self, **changes, ratio=None)


def _rows(target: str, common: dict[str, Any], rows: dict[str, dict[str, Any]]) -> list[Run]:
    return [Run(target=target, row=name, **{**common, **own}) for name, own in rows.items()]


OURS: dict[str, Any] = {"dropout": 0.1, "weight_decay": 3e-4}
NEURONS: dict[str, Any] = {"factor": 1e-6, **OURS, "granularity": "neuron"}
SHIFTED: dict[str, Any] = {"shift": 2}
LONGER: dict[str, Any] = {"finetune": (("weight_decay", 0.0),), "finetune_epochs": 100}
# A guess at 2,500 weights, for which larger shifts and weight decay seemed too much.
FEW: dict[str, Any] = {"finetune": (("shift", 1), ("weight_decay", 0.0)), "finetune_epochs": 100}
SEARCHED: dict[str, Any] = {"shift": 1, "warm_up": 100}  # the best of LEVERS, below
# The best of LEVERS_5, below.
SEARCHED_5: dict[str, Any] = {"factor": 2e-5, "shift": 1, "epochs": 100, **LONGER}
ROUNDS: dict[str, Any] = {"rounds": (600000.0, 300000.0)}
LENET_5: dict[str, Any] = {"model": "lenet-5", "dataset": "mnist", "pretrain_epochs": 20}
ELEMENT: dict[str, Any] = {"method": "gss-element", "unit": "weights"}
STRUCTURE: dict[str, Any] = {"method": "gss-structure", "unit": "macs"}
DEEP: dict[str, Any] = {"method": "deep-gss121"}

TABLE2 = _rows(
    "table2",
    {**ELEMENT, "factor": 1e-5},
    {
        "GSS-element": {"cost": 3700},
        "GSS-element, smaller": {"cost": 2500, "factor": 2e-5},
        "GSS-element, ours": {"cost": 3700, **OURS},
        "DeepGSS121": {"cost": 3700, **DEEP, "factor": 1e-4, **OURS},
    },
)
TABLE3 = _rows(
    "table3",
    {**LENET_5, **ELEMENT, "factor": 1e-5},
    {
        "GSS-element": {"cost": 2900},
        "GSS-element, smaller": {"cost": 2500},
        "GSS-element, ours": {"cost": 2500, "factor": 2e-5, **SHIFTED},
        "GSS-element, ours, longer": {"cost": 2500, "factor": 2e-5, **SHIFTED, **FEW},
        "GSS-element, ours, smaller": {"cost": 1500, "factor": 2e-5, **SHIFTED, **FEW},
        "GSS-element, ours, searched": {"cost": 2500, **SEARCHED, **FEW},
        "GSS-element, ours, searched, smaller": {"cost": 1500, **SEARCHED, **FEW},
        "DeepGSS121": {"cost": 2500, **DEEP, "factor": 1e-4},
    },
)
TABLE4 = _rows(
    "table4",
    {**STRUCTURE, "factor": 2e-6},
    {
        "GSS-structure": {"cost": 32600},
        "GSS-structure, ours": {"cost": 32600, **OURS},
        "GSS-structure, ours, smaller": {"cost": 29000, "factor": 4e-6, **OURS},
        "GSS-structure, ours, smallest": {"cost": 20000, "factor": 8e-6, **OURS},
        "GSS-structure, ours, neurons": {"cost": 29000, **NEURONS},
        "GSS-structure, ours, neurons, smaller": {"cost": 20000, **NEURONS},
        "DeepGSS121": {"cost": 32600, **DEEP, "factor": 1.4e-4, **OURS},
    },
)
TABLE5 = _rows(
    "table5",
    {**LENET_5, **STRUCTURE, "factor": 6e-5, "granularity": "neuron"},
    {
        "GSS-structure": {"cost": 168100},
        "GSS-structure, smaller": {"cost": 150000},
        "GSS-structure, ours": {"cost": 150000, **SHIFTED, **ROUNDS},
        "GSS-structure, ours, smaller": {"cost": 100000, **SHIFTED, **ROUNDS},
        "GSS-structure, ours, searched, smaller": {"cost": 100000, **SEARCHED_5},
        "DeepGSS121": {"cost": 150000, **DEEP, "factor": 1e-4},
    },
)
# Each lever alone, on a shorter schedule than Table 4's, whose network it is.
ABLATION = _rows(
    "ablation",
    {
        **{**STRUCTURE, "factor": 2e-6, "cost": 29000, "granularity": "neuron"},
        **{"pretrain_epochs": 20, "epochs": 60, "finetune_epochs": 30},
    },
    {
        "cut by neurons": {},
        "cut by single weights, as in the paper": {"granularity": "element"},
        "a tenth of the pixels dropped": {"dropout": 0.1},
        "weight decay 3e-4": {"weight_decay": 3e-4},
        "both of these": OURS,
        "(p, q) = (1, 2)": {"p": 1, "factor": 1.15e-6},
        "(p, q) = (2, 1)": {"q": 1, "factor": 3.4e-9},
        "groups weighed by MACs": {"weights": "macs"},
        "the factor grows for 30 epochs": {"warm_up": 30},
        "the factor falls for 30 epochs": {"warm_up": 30, "begins": 3.0},
        "proximal steps of 1e-6": {"proximal": 1e-6},
        "proximal steps of 1e-5": {"proximal": 1e-5},
        "one order for all layers, by magnitude": {"by": "magnitude"},
        "one order for all layers, by effect on the loss": {"by": "loss"},
        "weights rewound": {"rewinds": True},
        "cut in rounds": {"rounds": (100000.0, 50000.0)},
        "distillation": {"distillation": 0.5},
        "finetuned twice as long": {"finetune_epochs": 60},
    },
)
# The same for Table 3's network, on its schedule and without reading the test images.
LEVERS = _rows(
    "levers",
    {
        **{**LENET_5, **ELEMENT, **FEW, **SEARCH},
        **{"factor": 1e-5, "cost": 2500, "shift": 1},
    },
    {
        "factor 1e-5, images shifted by 1": {},
        "factor 5e-6": {"factor": 5e-6},
        "factor 2e-5": {"factor": 2e-5},
        "factor 4e-5": {"factor": 4e-5},
        "images not shifted": {"shift": 0},
        "images shifted by 2": {"shift": 2},
        "the factor grows for 100 epochs": {"warm_up": 100},
        "the factor falls for 100 epochs": {"warm_up": 100, "begins": 3.0},
        "finetuned twice as long": {"finetune_epochs": 200},
    },
)
# The same for Table 2's network.
LEVERS_2 = _rows(
    "levers-table2",
    {**ELEMENT, "factor": 2e-5, "cost": 2500, **SEARCH},
    {
        "factor 2e-5": {},
        "the factor grows for 100 epochs": {"warm_up": 100},
        "factor 4e-5, grows for 100 epochs": {"factor": 4e-5, "warm_up": 100},
        "one order for all layers, by magnitude": {"by": "magnitude"},
        "one order for all layers, by effect on the loss": {"by": "loss"},
        "weights rewound": {"rewinds": True},
        "distillation": {"distillation": 0.5},
        "finetuned twice as long": {"finetune_epochs": 100},
    },
)
# The same for Table 5's network at its aim, under the penalty for less long.
LEVERS_5 = _rows(
    "levers-table5",
    {
        **{**LENET_5, **STRUCTURE, "factor": 2e-5, "cost": 100000, "granularity": "neuron"},
        **{"shift": 1, "epochs": 100, **LONGER, **SEARCH},
    },
    {
        "factor 2e-5": {},
        "the factor grows for 50 epochs": {"warm_up": 50},
        "one order for all layers, by magnitude": {"by": "magnitude"},
        "one order for all layers, by effect on the loss": {"by": "loss"},
        "weights rewound": {"rewinds": True},
    },
)
# ResNet-56 on images of 16x16, cut to a quarter of its MACs, on a schedule for two CPU cores.
STREAMS = ("conv", "stage2_block1_2", "stage3_block1_2")  # what the residual blocks add to
RESNET_56 = _rows(
    "levers-resnet-56",
    {
        **{**STRUCTURE, "factor": 3e-5, "cost": 7842976, "granularity": "neuron", "inputs": False},
        **{"model": "resnet-56", "dataset": "cifar10", "size": 16, "images": 25000},
        **{"shift": 2, "flips": True, "weights": dict.fromkeys(STREAMS, 0.1)},
        **{"pretrain_epochs": 24, "epochs": 10, "finetune_epochs": 10, **SEARCH},
        "validation": 10000.0,
    },
    {
        "factor 3e-5": {},
        "one order for all layers, by effect on the loss": {"by": "loss"},
        "one order for all layers, by magnitude": {"by": "magnitude"},
        "weights rewound": {"rewinds": True},
        "the factor grows for 5 epochs": {"warm_up": 5},
        "cut in two rounds": {"rounds": (15685952.0,)},
        "distillation": {"distillation": 0.5},
        "groups weighed by MACs": {"weights": "macs", "factor": 1.1e-5},
        "(p, q) = (2, 1)": {"q": 1, "factor": 5.5e-7},
        "(p, q) = (1, 2)": {"p": 1, "factor": 1.7e-5},
        "finetuned twice as long": {"finetune_epochs": 20},
    },
)
DATASETS = ("fashion_mnist", "mnist")
FORMS = {"GSS-element": {**ELEMENT, "ratio": 1.0}, "GSS-structure": {**STRUCTURE, "ratio": 0.3}}
FIGURE1 = [  # rows of Tables 2 and 4 run once more, to draw their weights
    replace(TABLE2[0], target="figure1"),
    replace(TABLE4[0], target="figure1"),
]
FIGURE4 = _rows(
    "figure4",
    {},
    {
        f"{form}, {dataset}, {factor:g}": {**own, "dataset": dataset, "factor": factor}
        for form, own in FORMS.items()
        for dataset in DATASETS
        for factor in (1e-6, 3e-6, 1e-5, 3e-5, 1e-4)
    },
)
# At each factor the penalty of the untrained network is 1.
PQ_FACTORS = {(2, 2): 8e-6, (1, 2): 4.6e-6, (2, 1): 1.35e-8, (1, 1): 2e-7}
FIGURE5 = _rows(
    "figure5",
    {**STRUCTURE, "dataset": "mnist"},
    {
        f"({p}, {q}), {cost:,} MACs": {"p": p, "q": q, "factor": factor, "cost": cost}
        for (p, q), factor in PQ_FACTORS.items()
        for cost in (40000, 30000, 20000, 14000, 10000)
    },
)
FIGURE6 = _rows(
    "figure6",
    {**ELEMENT, "factor": 1e-5, "ratio": 1.0},
    {dataset: {"dataset": dataset} for dataset in DATASETS},
)
RUNS = {"table2": TABLE2, "table3": TABLE3, "table4": TABLE4, "table5": TABLE5}
RUNS |= {"ablation": ABLATION, "levers": LEVERS}
RUNS |= {"levers-table2": LEVERS_2, "levers-table5": LEVERS_5, "levers-resnet-56": RESNET_56}
RUNS |= {"figure1": FIGURE1, "figure4": FIGURE4, "figure5": FIGURE5, "figure6": FIGURE6}
SEEDS = dict.fromkeys(("table2", "table4", "ablation", "levers"), (1, 2, 3))  # the others: one


@dataclass(frozen=True, kw_only=True)
class Panel:
    """Many methods on equal terms: what `keras_gss.compare_methods` is called with.

    Attributes:
        results: the file of its lines, in the folder of results.
        methods, targets: of the panel of Figure 3; empty where it has none.
        seeds: of the final runs.
        protocol: the model, the dataset, the unit, the schedule and so on.
    """

    results: str
    methods: tuple[str, ...] = ()
    targets: tuple[float, ...] = ()
    seeds: tuple[int, ...] = (1, 2, 3)
    protocol: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Rivals:
    """A table's rival rows: so many methods in a panel, at the cost that the paper prints."""

    panel: str
    methods: tuple[str, ...]
    target: float


SHORT = {"pretrain_epochs": 12, "epochs": 12, "finetune_epochs": 6, "validation": 6000.0}
SHORTER = {"pretrain_epochs": 3, "epochs": 4, "finetune_epochs": 3, "validation": 6000.0}
LENET_300: dict[str, Any] = {"model": "lenet-300-100", "inputs": True, "budget": 5, **SHORT}
LENET_5_SHORT: dict[str, Any] = {
    **{"model": "lenet-5", "dataset": "mnist", "budget": 2, "beyond": 2},
    **SHORTER,
}
# Single weights need far stronger penalties than neurons do where a hundredth of them may remain.
BY_WEIGHTS = {"unit": "params", "granularity": "element", "budget": 3, "beyond": 4}
BY_MACS = {"unit": "macs", "granularity": "neuron"}
ON_WEIGHTS = ("gss-element", "l1", "hoyer-square", "transformed-l1", "spred")
ON_NEURONS = ("gss-structure", "group-lasso", "group-hoyer-square", "group-greg", "group-pruner")
PANELS = {
    "element-fashion_mnist": Panel(
        results="element-fashion_mnist.jsonl",
        methods=ON_WEIGHTS,
        targets=(0.1, 0.03, 0.0139, 0.0094),
        protocol={**LENET_300, "dataset": "fashion_mnist", **BY_WEIGHTS},
    ),
    "structure-fashion_mnist": Panel(
        results="../comparison/results.jsonl",  # all methods, see there
        methods=ON_NEURONS,
        targets=(0.24, 0.12, 0.06, 0.03),
        protocol={**LENET_300, "dataset": "fashion_mnist", **BY_MACS},
    ),
    "structure-mnist": Panel(
        results="structure-mnist.jsonl",
        methods=ON_NEURONS,
        targets=(0.24, 0.12, 0.06, 0.03),
        protocol={**LENET_300, "dataset": "mnist", **BY_MACS, "beyond": 2},
    ),
    "element-lenet-5": Panel(
        results="element-lenet-5.jsonl",
        seeds=(1,),
        protocol={**BY_WEIGHTS, **LENET_5_SHORT, "beyond": 4},
    ),
    "structure-lenet-5": Panel(
        results="structure-lenet-5.jsonl",
        seeds=(1,),
        protocol={**BY_MACS, **LENET_5_SHORT},
    ),
}
FIGURE3 = ("element-fashion_mnist", "structure-fashion_mnist", "structure-mnist")
RIVALS = {
    "table2": Rivals(
        panel="element-fashion_mnist",
        methods=(*ON_WEIGHTS, "hoyer", "exclusive-lasso", "admm", "snip", "deep-gss121"),
        target=0.0139,
    ),
    "table3": Rivals(
        panel="element-lenet-5",
        methods=(*ON_WEIGHTS, "hoyer", "admm", "snip", "deep-gss121"),
        target=0.0067,
    ),
    "table4": Rivals(
        panel="structure-fashion_mnist",
        methods=(*ON_NEURONS, "cges", "bayes-l1trim", "deep-gss121"),
        target=0.12,
    ),
    "table5": Rivals(
        panel="structure-lenet-5",
        methods=(*ON_NEURONS, "bayes-l1trim", "pfpnet", "softnet", "shsq-gl12", "deep-gss121"),
        target=0.0733,
    ),
}
TABLES = (*RIVALS, "ablation")
# The test images are not read for these.
HELD_OUT = ("levers", "levers-table2", "levers-table5", "levers-resnet-56")

# What a stage depends on: runs that agree in it share the network trained in it.
DENSE = (
    "model",
    "dataset",
    "validation",
    "role",
    "seed",
    "dropout",
    "shift",
    "flips",
    "size",
    "images",
    "weight_decay",
    "pretrain_epochs",
)
TRAINED = (
    *(*DENSE, "method", "factor", "inputs", "p", "q", "weights", "epochs"),
    *("warm_up", "begins", "proximal", "rounds"),
)
FINISHED = (
    *("unit", "cost", "ratio", "granularity", "by", "rewinds", "distillation"),
    *("finetune_epochs", "finetune"),
)
FINAL = (*TRAINED, *FINISHED)

# Dense networks, as the paper has them: test accuracy in %.
ORIGINAL = {
    ("lenet-300-100", "mnist"): 97.91,
    ("lenet-300-100", "fashion_mnist"): 90.29,
    ("lenet-5", "mnist"): 99.32,
}
# By how many points ResNet-56 may fall behind its dense network, by how often fewer MACs.
RESNET_56_ASKED = {2.1: 0.0, 2.6: 0.2, 4.0: 0.5}
TITLES = {
    "table2": "Table 2: LeNet-300-100 on Fashion-MNIST, single weights",
    "table3": "Table 3: LeNet-5 on MNIST, single weights",
    "table4": "Table 4: LeNet-300-100 on Fashion-MNIST, whole neurons",
    "table5": "Table 5: LeNet-5 on MNIST, whole neurons",
    "ablation": "What each lever gives: Table 4's network at 29k MACs, on a shorter schedule",
    "levers": "What each lever gives: Table 3's network with 2.5k weights, on held-out images",
    "levers-table2": "What each lever gives: Table 2's network with 2.5k weights, held-out images",
    "levers-table5": "What each lever gives: Table 5's network with 100k MACs, held-out images",
    "levers-resnet-56": "What each lever gives: ResNet-56 at a quarter of its MACs, small images",
    "figure1": "Figures 1 and 2: which weights compete and which cooperate",
    "figure3": "Figure 3: accuracy against cost, five methods on equal terms",
    "figure4": "Figure 4: how much the factor matters",
    "figure5": "Figure 5: the four (p, q) forms of GSS-structure, LeNet-300-100 on MNIST",
    "figure6": "Figure 6: convergence under GSS-element, factor 1e-5",
    "cost": "Section 3.2: what the penalty costs per step",
}
# The README's table: what is trained and cut, and the row beside that of the paper's recipe.
SUMMARY = {
    "table2": ("LeNet-300-100, Fashion-MNIST, single weights", "GSS-element, smaller"),
    "table3": ("LeNet-5, MNIST, single weights", "GSS-element, ours, searched"),
    "table4": ("LeNet-300-100, Fashion-MNIST, neurons", "GSS-structure, ours, neurons"),
    "table5": ("LeNet-5, MNIST, neurons and channels", "GSS-structure, ours, searched, smaller"),
}
# What the paper claims, or what was asked for, followed by what our runs say of it.
CLAIMS = {
    "table2": "89.20 % with at most 3.7k weights was asked for: reached by the paper's own recipe, "
    "at the best epoch and at the last. The aim of 2.5k is missed by 0.6 points, under the factor "
    "that held-out images chose of four; on these, 100 epochs of finetuning without weight decay "
    "cost 0.3 points, and six other levers gained nothing (a table below). Dropped pixels and more "
    "weight decay, which helped whole neurons, cost 0.3 "
    "points or "
    "more here, and DeepGSS121, trained so too, is not ahead of GSS-element. On equal terms and a "
    "short schedule Hoyer-square is 0.8 points ahead of GSS-element, which the paper has first, "
    "and Hoyer 0.3; the others are level or behind.",
    "table3": "99.26 % with at most 2.5k weights was asked for, and the paper prints it for 2.9k: "
    "reached at the best epoch and at the last, by what did best of nine settings on held-out "
    'images (rows "searched", settings below): images shifted by one pixel, a factor that grows '
    "for 100 epochs, and a longer finetuning without weight decay; each of three seeds reaches it. "
    "At the aim of 1.5k weights their mean does at the best epoch, with 99.27 %, but two of the "
    "three do not, nor does the mean at the last. Before the search it was missed by 0.01 points. "
    "The paper's own recipe gave 0.13 points less than printed. The rows that are "
    "not searched have one seed each, trained on a GPU (JAX). Three seeds on 5 + 12 + 8 epochs: "
    "99.17 % with 2.5k weights, the recipe 99.10 % with 2.8k; DeepGSS121 98.3 % in two of them, "
    "while in the third one ratio of the threshold for every tensor leaves nine weights in "
    "CONV1 and destroys the network. Of nine "
    "methods on equal terms and a very short schedule (one seed) "
    "DeepGSS121 is first, and GSS-element, which the paper has first, sixth, 0.2 points behind and "
    "at the strongest penalty that was tried.",
    "table4": "89.51 % with at most 29k MACs was asked for, at the best epoch: reached with "
    "29.0k, at the last epoch too, by a threshold that takes whole neurons and input features (row "
    '"neurons"), where the paper\'s takes single weights and leaves all inputs. Its own recipe '
    "ends 0.2 points below what is printed, 0.1 to 0.3 in single seeds. Even 20k MACs reach it so, "
    "at the best epoch. "
    'FLOPs count live inputs only: `slim(inputs="keep")` still multiplies all 784 (39k MACs), '
    '`inputs="narrow"` does not. What each lever gives is in a table below.',
    "table5": "99.24 % with at most 150k MACs was asked for, and 100k was the aim: both reached at "
    "the best epoch, with 99k at most, 99.27 % in the mean of three seeds (99.26, 99.21, 99.33), "
    'by what did best on held-out images (row "searched", settings below): a third of the '
    "recipe's factor, 100 epochs under it, images shifted by one pixel, 100 epochs of finetuning "
    "without weight decay; at the last epoch 0.07 points are missing. Before the search, with one "
    "seed, shifts and cuts in rounds had reached it with 137k, and missed it by 0.4 points with "
    "97k. The dense network gains by the shifts as well: 99.5 %. The paper's own recipe gave 0.17 "
    "points less than printed. Under its factor 6e-5, which was not searched for, three or four "
    "channels of CONV1 are left long before the end: too strong for 250 epochs. With three seeds "
    "on 5 + 12 + 8 epochs the recipe gives "
    "almost what it gives on the full schedule, 99.02 %, while shifts and rounds need their time; "
    "DeepGSS121 is ahead of it there, 99.16 % with 141k MACs; on the full schedule its "
    "factor is too strong as well, and it ends at 98.93 % with 126k. "
    "Of ten methods on equal terms and a very short schedule (one seed) SoftNet, which the paper "
    "has behind GSS-structure, is ahead by 0.25 points, and four others by less.",
    "ablation": "A factor that grows for 30 epochs is the only lever that helps at the best epoch "
    "by more than its spread, by 0.2 points (0.3 at the last); weighing groups by MACs gives half "
    "of that. Dropped pixels and (p, q) = (1, 2) give 0.2 at the last epoch, which is the spread. "
    "Rewinding the weights costs 0.2 to 0.3 points, a falling factor 0.2 and distillation 0.2 at "
    "the best epoch. What the threshold compares, proximal steps, rounds, weight decay and a "
    "longer finetuning change nothing that three seeds could show.",
    "levers": "The factor between 5e-6 and 4e-5, shifts, and how the factor begins: one seed each, "
    "5,000 held-out images, so that 0.1 points are within the noise. The factor that grows was "
    'best, as in the ablation above, and was taken for the rows "searched" of Table 3 before the '
    "test images were read. Run on a GPU (JAX). Rankings, rewinding and distillation were not "
    "tried here, where the target is reached without them.",
    "levers-table2": "One seed, 5,000 held-out images, so that 0.4 points are noise; the dense "
    "network has 89.7 % of them. Nothing helps beyond that noise: one order for all layers by "
    "magnitude gains 0.2 points, a growing factor, which was best for Tables 3 and 4, loses 0.2, "
    "rewinding, distillation and the order by effect on the loss lose 0.4 to 0.5. So the aim of "
    "2.5k in Table 2 is left as missed.",
    "levers-table5": "One seed, 5,000 held-out images, so that 0.15 points are noise; the dense "
    "network has 99.4 % of them. A third of the recipe's factor, 100 epochs under it, images "
    "shifted by one pixel and 100 epochs of finetuning without weight decay leave 99.20 %. On top "
    "of these a growing factor costs 0.3 points, rewinding as much, and one order for all layers, "
    "by magnitude or by the effect on the loss, destroys the network: four neurons of FC1 are "
    'left, or one. The first row was taken for the row "searched" of Table 5 before the test '
    "images were read for it.",
    "levers-resnet-56": "ResNet-56 on CIFAR-10 averaged to 16x16, 25,000 images, a short schedule "
    "with Adam on two CPU cores: to see which lever is worth a GPU's time, not a result. 10,000 "
    "images are held out, so that half a point is noise; one seed. The dense network has 71.3 % "
    "after its 24 epochs, and the cut ones, trained for 20 more, up to 3.0 more. Finetuning for "
    "twice as long helps by 2.1 points, cutting in two rounds by one, weighing by MACs by half of "
    "one; (p, q) = (1, 2), a growing factor, (2, 1) and half-distilled labels cost 0.4 to 1.1. "
    "Rewinding costs 3.5 points, one order by the effect on the loss 2.3, by magnitude 4.8. "
    "Proximal steps were not tried here.",
    "figure1": "The paper explains that under GSS-element the weights of a neuron compete, and "
    "that under GSS-structure they cooperate while whole neurons compete: confirmed. The kernels "
    "between the strongest neurons are scattered zeros in the first network and a block of whole "
    "rows and columns in the second, but for specks of weights near zero.",
    "figure3": "The paper has GSS ahead of four rivals at every cost: contradicted, on a short "
    "schedule and one seed (three where there are error bars). On single weights Hoyer-square is "
    "ahead at every cost, by 0.1 to 0.8 points, and GSS-element second or third. On neurons "
    "GSS-structure is first at the largest cost on Fashion-MNIST and level with the first at the "
    "next, then behind GroupPruner by 0.3 and 0.4 points; on MNIST it is within 0.13 points of the "
    "first everywhere. Group Hoyer-square and Group-GReg fall behind at low costs.",
    "figure6": "Convergence is confirmed: from epoch 100 to 250 the loss falls by another 3 % "
    "(Fashion-MNIST) and 5 % (MNIST), and the penalty by 2 %, means of ten epochs each; single "
    "epochs vary by 5 %. 500 images are held out, "
    "hence the noise below.",
    "figure5": "The paper finds (1, 2) the most accurate of the four: contradicted, (2, 1) is at "
    "every cost, and the only one that still works at 10k. Over (2, 2) it is confirmed, by 0.1 to "
    "0.4 points down to 20k. Networks that the cut destroyed (below 20 %) lie under the picture. "
    "One seed; the factors make the penalties of the untrained network equal, which is one of many "
    "ways to compare.",
    "figure4": "The paper works with factors from 1e-6 to 1e-5: confirmed as the useful range, in "
    "which at most 1.6 points of the dense network's accuracy are lost and on MNIST some are won; "
    "at 1e-4 it is 0.8 (GSS-element, MNIST) to 4.7 (GSS-structure, Fashion-MNIST). Nothing breaks "
    "down on the way: a hundred times the factor "
    "leaves 3 to 7 times less. Of GSS-element's network the weights left are shown, of "
    "GSS-structure's the FLOPs. 40 + 100 + 20 epochs, one seed, one ratio of the threshold for "
    "every factor.",
    "cost": "The paper claims a cost linear in the number of weights: not contradicted, on little: "
    "at 1.4M and 3.8M weights, 2.7 times as many, a step takes 7 to 13 % longer, 3.0 (element) and "
    "3.9 times (structure) as much; below it is lost in the noise (3 % at most, and two figures "
    "under zero, which are not drawn). Group-GReg costs more at every size, 6 to 16 %.",
}
