"""What is run for each table and figure: the frozen settings, and nothing else.

The paper's recipe is 250 epochs under the penalty and 50 of finetuning. Factors and costs were
chosen on held-out training images (`python examples/reproduce TARGET --search 0.5 1 2` tries
multiples of a factor without reading the test images) and are not changed after the test images
were read. "ours" adds what held-out images found better: pixels dropped in training, another
weight decay.
"""

from dataclasses import asdict, dataclass, replace
from typing import Any

QUICK = {"dataset": "digits", "validation": 200.0, "quick": True, "cost": 0.3}
QUICK_EPOCHS = {"pretrain_epochs": 2, "epochs": 2, "finetune_epochs": 1}
QUICK_MODELS = {"lenet-300-100": "digits-mlp", "lenet-5": "digits-cnn"}
SEARCH = {"role": "search", "validation": 5000.0}


@dataclass(frozen=True, kw_only=True)
class Run:
    """One row of a table or point of a figure, with one seed.

    Attributes:
        target: the table or figure.
        row: what the row is called.
        model, dataset: a named model and a named dataset.
        method: a penalty's name, see `keras_gss.regularizers.named`.
        factor: its strength, the paper's lambda; input features are groups too.
        p, q, weights: of "gss-structure".
        unit: what the cost is counted in, "weights" (non-zero, no biases) or "macs" (live).
        cost: how much of it may remain; 1 or less is a share of what the dense network has.
        ratio: instead of a cost, the ratio of the threshold to the tensor's standard deviation.
        granularity: what the threshold zeroes, "element" or "neuron".
        dropout: the share of the pixels that is dropped in training.
        weight_decay: of pretraining and finetuning.
        pretrain_epochs, epochs, finetune_epochs: without penalty, under it, with zeros fixed.
        validation: how many training images are held out. Once all is frozen nothing is chosen by
            them, so they are few.
        seed: of weights, order and dropout.
        role: "final", or "search", in which the test images are not read.
        quick: whether this is a smoke run, of which no table is made.
    """

    target: str
    row: str
    model: str = "lenet-300-100"
    dataset: str = "fashion_mnist"
    method: str
    factor: float
    p: int = 2
    q: int = 2
    weights: str = "uniform"
    unit: str = "weights"
    cost: float | None = None
    ratio: float | None = None
    granularity: str = "element"
    dropout: float = 0.0
    weight_decay: float = 1e-4
    pretrain_epochs: int = 40
    epochs: int = 250
    finetune_epochs: int = 50
    validation: float = 500.0
    seed: int = 1
    role: str = "final"
    quick: bool = False

    def smoke(self) -> "Run":
        """Returns the smoke run of the same row."""
        changes: dict[str, Any] = {**QUICK, **QUICK_EPOCHS, "model": QUICK_MODELS[self.model]}
        return replace(self, **changes, ratio=None)


def _rows(target: str, common: dict[str, Any], rows: dict[str, dict[str, Any]]) -> list[Run]:
    return [Run(target=target, row=name, **{**common, **own}) for name, own in rows.items()]


OURS: dict[str, Any] = {"dropout": 0.1, "weight_decay": 3e-4}
LENET_5: dict[str, Any] = {"model": "lenet-5", "dataset": "mnist", "pretrain_epochs": 20}
ELEMENT: dict[str, Any] = {"method": "gss-element", "unit": "weights"}
STRUCTURE: dict[str, Any] = {"method": "gss-structure", "unit": "macs"}
DEEP: dict[str, Any] = {"method": "deep-gss121"}

TABLE2 = _rows(
    "table2",
    {**ELEMENT, "factor": 1e-5},
    {
        "GSS-element": {"cost": 3700},
        "GSS-element, ours": {"cost": 3700, **OURS},
        "GSS-element, ours, smaller": {"cost": 2500, "factor": 2e-5, **OURS},
        "DeepGSS121": {"cost": 3700, **DEEP, "factor": 1e-4, **OURS},
    },
)
TABLE3 = _rows(
    "table3",
    {**LENET_5, **ELEMENT, "factor": 1e-5},
    {
        "GSS-element": {"cost": 2900},
        "GSS-element, smaller": {"cost": 2500},
        "GSS-element, smallest": {"cost": 1500, "factor": 2e-5},
        "DeepGSS121": {"cost": 2500, **DEEP, "factor": 1e-4},
    },
)
TABLE4 = _rows(
    "table4",
    {**STRUCTURE, "factor": 2e-6},
    {
        "GSS-structure": {"cost": 32600},
        "GSS-structure, ours": {"cost": 32600, **OURS},
        "GSS-structure, ours, smaller": {"cost": 29000, **OURS},
        "GSS-structure, ours, smallest": {"cost": 20000, "factor": 4e-6, **OURS},
        "DeepGSS121": {"cost": 32600, **DEEP, "factor": 3.5e-5, **OURS},
    },
)
TABLE5 = _rows(
    "table5",
    {**LENET_5, **STRUCTURE, "factor": 6e-5, "granularity": "neuron"},
    {
        "GSS-structure": {"cost": 168100},
        "GSS-structure, smaller": {"cost": 150000},
        "GSS-structure, costs weighed": {"cost": 150000, "weights": "macs"},
        "DeepGSS121": {"cost": 150000, **DEEP, "factor": 1e-4},
    },
)
RUNS = {"table2": TABLE2, "table3": TABLE3, "table4": TABLE4, "table5": TABLE5}
SEEDS = {"table2": (1, 2, 3), "table4": (1, 2, 3)}  # the others: one

# What a stage depends on: runs that agree in it share the network trained in it.
DENSE = (
    "model",
    "dataset",
    "validation",
    "role",
    "seed",
    "dropout",
    "weight_decay",
    "pretrain_epochs",
)
TRAINED = (*DENSE, "method", "factor", "p", "q", "weights", "epochs")


def part(run: Run, names: tuple[str, ...]) -> dict[str, Any]:
    """Returns some of a run's settings."""
    return {name: value for name, value in asdict(run).items() if name in names}
