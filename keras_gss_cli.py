"""The command line's arguments and help.

It stands outside of the package because importing the package imports Keras, which takes seconds:
help and wrong usage should not wait for it. What the commands do is in `keras_gss.cli`.
"""

import argparse
import logging
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

MODELS = ("lenet-300-100", "lenet-5", "resnet-56", "digits-mlp", "digits-cnn")
DATASETS = ("mnist", "fashion_mnist", "cifar10", "digits")
_GROUPED = ("group-lasso", "group-hoyer-square", "exclusive-lasso", "cges", "sparse-group-lasso")
_GROUPED += ("group-l1-trim", "shsq-gl12")
REGULARIZERS = ("gss-structure", "gss-element", "deep-gss121")
REGULARIZERS += ("l1", "hoyer", "hoyer-square", "transformed-l1", "l1-trim")
REGULARIZERS += (*_GROUPED, *("cross-" + name for name in _GROUPED))
METHODS = (*REGULARIZERS, "spred", "admm", "group-greg", "group-pruner", "bayes-l1trim", "softnet")
METHODS += ("snip", "pfpnet", "magnitude", "gradual-magnitude", "random")
FORMATS = ("tf_saved_model", "keras", "litert", "onnx")
INPUTS = ("keep", "narrow", "select")

ENDINGS = (".keras", ".h5", ".hdf5")

_MODEL_HELP = "a .keras or .h5 file of Keras 3 or tf_keras, a folder that tf_keras' model.save "
_MODEL_HELP += f"wrote, or one of {', '.join(MODELS)} (untrained)"
_INPUTS_HELP = "what becomes of input features that nothing reads: the model still takes all of "
_INPUTS_HELP += "them, takes the used ones only, or selects them itself (slower than keeping them)"

_OUTPUT_HELP = "a .keras, .tflite or .onnx file, or a folder for a SavedModel"


class _Help(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Shows examples as they were laid out, and defaults where there are any."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return super()._get_help_string(action) if action.default else action.help


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line.

    Args:
        arguments: what follows the program's name; `sys.argv[1:]` by default.

    Returns:
        0 if the command did its work, 1 if the work failed, with one line on stderr. Wrong usage
        exits with 2 before any work.
    """
    parsed = build_parser().parse_args(arguments)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    from keras_gss import cli

    parsed.command_line = ["keras-gss", *(sys.argv[1:] if arguments is None else arguments)]
    try:
        getattr(cli, parsed.command)(parsed)
    except (ImportError, OSError, RuntimeError, TypeError, ValueError) as error:
        if parsed.debug:
            raise
        print(f"keras-gss {parsed.command}: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"keras-gss {parsed.command}: interrupted", file=sys.stderr)
        return 130
    return 0


def build_parser() -> argparse.ArgumentParser:
    """Returns the parser of the whole command line."""
    parser = argparse.ArgumentParser(
        prog="keras-gss",
        formatter_class=_Help,
        description="Make a Keras model small: train it under a penalty on its neurons, cut what\n"
        "the penalty emptied, and write an ordinary model that computes the same.",
        epilog="start with:\n  keras-gss demo\n\nthen, with your own model and data:\n"
        "  keras-gss inspect model.keras\n"
        "  keras-gss compress model.keras --data data.npz --factor 1e-5 --output small.keras",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _demo(_command(commands, "demo", "the whole way on built-in data, in a minute or two", _DEMO))
    _inspect(_command(commands, "inspect", "what a model is made of and what can be cut", _INSPECT))
    _compress(_command(commands, "compress", "train, threshold, finetune and cut", _COMPRESS))
    _slim(_command(commands, "slim", "cut what is already dead in a trained model", _SLIM))
    _export(_command(commands, "export", "write a model for another runtime", _EXPORT))
    _compare(_command(commands, "compare", "many methods under one protocol", _COMPARE))
    return parser


def _command(commands, name: str, summary: str, teaching: str) -> argparse.ArgumentParser:
    description, _, example = teaching.partition("example:")
    parser = commands.add_parser(
        name,
        help=summary,
        description=description.strip(),
        epilog=f"example:{example}".rstrip(),
        formatter_class=_Help,
    )
    parser.add_argument("--debug", action="store_true", help="show the traceback of a failure")
    return parser


_DEMO = """
Trains a small network on scikit-learn's 1,797 handwritten digits under the penalty, cuts it,
prints what became of every layer, writes a SavedModel, loads it again and compares.

example:
  keras-gss demo --output small-digits
"""


def _demo(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--model", choices=("digits-cnn", "digits-mlp"), default="digits-cnn", help="which network"
    )
    parser.add_argument(
        "--output", type=Path, default=Path("keras-gss-demo"), help="the SavedModel's folder"
    )
    parser.add_argument("--seed", type=_integer(0), default=0, help="of weights and batch order")


_INSPECT = """
Prints the neuron groups of a model (which neurons stand or fall together, in which weights they
live, and why some cannot be cut) and what each layer costs.

example:
  keras-gss inspect lenet-5
"""


def _inspect(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", type=_model, help=_MODEL_HELP)


_COMPRESS = """
Trains under the penalty, chooses a threshold on a part held out from the training data, finetunes
what is left with the zeros fixed, and cuts it. The test data are read last, for the report only.

example:
  keras-gss compress lenet-300-100 --data fashion_mnist --factor 2e-6 --macs 32600 \\
      --directory run --output small --results run.json
"""


def _compress(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("model", type=_model, help=_MODEL_HELP)
    add(
        "--data",
        type=_data,
        required=True,
        help=f"one of {', '.join(DATASETS)}, or an .npz file with x_train, y_train and, for the "
        "report, x_test, y_test",
    )
    add("--validation", type=_number(0), default=0.1, help="held out: a fraction or a number")
    penalty = parser.add_argument_group("penalty")
    penalty.add_argument("--factor", type=_number(0), required=True, help="its strength, lambda")
    penalty.add_argument(
        "--regularizer",
        choices=REGULARIZERS,
        default="gss-structure",
        metavar="NAME",
        help=f"which penalty, one of {', '.join(REGULARIZERS)}; cross-: its groups are neurons, "
        "across layers, instead of rows and columns",
    )
    penalty.add_argument(
        "--free", type=_number(0), default=0.1, help="of the trimmed penalties, the share left free"
    )
    penalty.add_argument("--p", type=int, choices=(1, 2), default=2, help="of gss-structure")
    penalty.add_argument("--q", type=int, choices=(1, 2), default=2, help="of gss-structure")
    penalty.add_argument(
        "--weights",
        type=_weights,
        default="uniform",
        help="of gss-structure: 'uniform', 'macs' (groups count by what their neurons cost), or "
        "numbers for groups, as in image=4,fc1=0.5 (`keras-gss inspect` names them)",
    )
    penalty.add_argument(
        "--penalise-inputs", action="store_true", help="the input features are groups too"
    )
    target = parser.add_argument_group(
        "target", "one of these; without any, --accuracy-drop 0.01"
    ).add_mutually_exclusive_group()
    target.add_argument(
        "--accuracy-drop", type=_number(0), help="validation accuracy that may be lost, 0.01 = 1 %%"
    )
    target.add_argument(
        "--macs", type=_number(0), help="live MACs that may remain: a fraction, or a number above 1"
    )
    target.add_argument(
        "--params", type=_number(0), help="parameters that may remain: a fraction, or a number"
    )
    target.add_argument(
        "--latency", type=_number(0), help="fraction of the time per call that may remain"
    )
    target.add_argument("--ratio", type=_number(0), help="threshold in standard deviations")
    target.add_argument("--threshold", type=_number(0), help="threshold as an absolute value")
    add(
        "--latency-runtime",
        choices=("litert", "onnx", "tf_saved_model"),
        default="litert",
        help="where --latency is measured",
    )
    add("--latency-batch", type=_integer(1), default=1, help="samples per call of --latency")
    add(
        "--granularity",
        choices=("neuron", "element"),
        default="neuron",
        help="what the threshold zeroes: whole neurons, or single weights",
    )
    add(
        "--round-to",
        type=_integer(1),
        default=1,
        metavar="N",
        help="leave multiples of so many neurons, where there are enough: with 8, LiteRT and "
        "others compute a little faster for a few more MACs",
    )
    training = parser.add_argument_group("training")
    training.add_argument("--pretrain-epochs", type=_integer(0), default=0, help="without penalty")
    training.add_argument("--epochs", type=_integer(0), default=250, help="under the penalty")
    training.add_argument(
        "--finetune-epochs", type=_integer(0), default=50, help="with the zeros fixed"
    )
    training.add_argument("--batch-size", type=_integer(1), default=100, help="samples per step")
    training.add_argument("--learning-rate", type=_number(0), default=1e-3, help="Adam's")
    training.add_argument(
        "--weight-decay", type=_number(0), default=1e-4, help="L2, in pretraining and finetuning"
    )
    training.add_argument(
        "--distillation",
        type=_number(0),
        default=0.0,
        help="0 to 1: share of the dense model's outputs in the labels of the finetuning",
    )
    training.add_argument(
        "--warm-up",
        type=_integer(0),
        default=0,
        metavar="EPOCHS",
        help="epochs in which the penalty grows to its factor; default: none",
    )
    training.add_argument("--seed", type=_integer(0), default=0, help="of weights and batch order")
    training.add_argument(
        "--directory", type=Path, help="checkpoints; the same command resumes what it finds there"
    )
    training.add_argument(
        "--jit",
        action=argparse.BooleanOptionalAction,
        help="whether XLA compiles the step; default: by what the model is made of",
    )
    training.add_argument(
        "--steps-per-execution",
        type=_integer(1),
        metavar="N",
        help="steps per call of the compiled function, lowered to a divisor of an epoch's steps; "
        "default: up to 50",
    )
    add("--inputs", choices=INPUTS, default="keep", help=_INPUTS_HELP)
    add("--output", type=Path, help=f"the small model: {_OUTPUT_HELP}")
    add("--overwrite", action="store_true", help="replace an earlier --output")
    add("--results", type=Path, help="a JSON file: settings, versions, every phase's figures")


_SLIM = """
Cuts the neurons that a model does not need: those nobody reads, and those that emit a constant.
The result is compared with the original on random inputs before it is written.

example:
  keras-gss slim pruned.keras small.keras
"""


def _slim(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", type=_model, help=_MODEL_HELP)
    parser.add_argument("output", type=Path, help=_OUTPUT_HELP)
    parser.add_argument("--inputs", choices=INPUTS, default="keep", help=_INPUTS_HELP)
    parser.add_argument("--overwrite", action="store_true", help="replace an earlier output")


_EXPORT = """
Writes a model, loads it again, compares the outputs, and only then puts it in place.

example:
  keras-gss export small.keras serving/ --format tf_saved_model
"""


def _export(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", type=_model, help=_MODEL_HELP)
    parser.add_argument("output", type=Path, help=_OUTPUT_HELP)
    parser.add_argument(
        "--format", choices=FORMATS, help="which kind; by default what the ending of output says"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an earlier output")


_COMPARE = """
Runs any set of methods through the same protocol: same data, same pretrained weights, same epochs,
as many strengths tried for each on a part held out from the training data, same cost, same
counting. Prints a Markdown table. The same command goes on where it was killed.

example:
  keras-gss compare --model lenet-300-100 --dataset fashion_mnist --methods all \\
      --target-macs 0.12 0.06 --penalise-inputs --directory runs/compared --output table.md
"""


def _compare(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--model", help=f"one of {', '.join(MODELS)}, or a .keras or .h5 file")
    add("--dataset", choices=DATASETS, help="named data")
    add("--directory", type=Path, required=True, help="results.jsonl, and what resumes the runs")
    add(
        "--methods",
        type=_methods,
        default="all",
        help=f"all, or some with commas between, of {', '.join(METHODS)}",
    )
    target = parser.add_mutually_exclusive_group()
    target.add_argument(
        "--target-macs",
        type=_fraction,
        nargs="+",
        metavar="FRACTION",
        help="live MACs that may remain; several make the points of a curve",
    )
    target.add_argument(
        "--target-params",
        type=_fraction,
        nargs="+",
        metavar="FRACTION",
        help="non-zero parameters that may remain",
    )
    add(
        "--granularity",
        choices=("neuron", "element"),
        default="neuron",
        help="what thresholds zero: whole neurons, or single weights",
    )
    add("--penalise-inputs", action="store_true", help="input features are dealt with like neurons")
    search = parser.add_argument_group("search and seeds")
    search.add_argument(
        "--budget", type=_integer(1), default=5, help="strengths that each method tries"
    )
    search.add_argument(
        "--beyond",
        type=_integer(0),
        default=0,
        metavar="N",
        help="up to N more, where the best one was the strongest or the weakest tried",
    )
    search.add_argument("--search-seed", type=_integer(0), default=0, help="with which it does")
    search.add_argument(
        "--seeds", type=_integer(0), nargs="+", default=[1, 2, 3], help="of the final runs"
    )
    training = parser.add_argument_group("training")
    training.add_argument("--validation", type=_number(0), default=0.1, help="held out")
    training.add_argument("--pretrain-epochs", type=_integer(0), default=30, help="once per seed")
    training.add_argument("--epochs", type=_integer(0), default=30, help="in which a method acts")
    training.add_argument(
        "--finetune-epochs", type=_integer(0), default=15, help="with the zeros fixed"
    )
    training.add_argument("--batch-size", type=_integer(1), default=100, help="samples per step")
    training.add_argument("--learning-rate", type=_number(0), default=1e-3, help="Adam's")
    training.add_argument("--weight-decay", type=_number(0), default=1e-4, help="L2, as compress")
    training.add_argument(
        "--quick", action="store_true", help="a smoke run of few epochs, of which no table is made"
    )
    add("--jobs", type=_integer(1), default=1, help="processes")
    add("--table-only", action="store_true", help="no runs: the table of what is there")
    add("--output", type=Path, help="a file for the table")
    add("--figure", type=Path, help="a picture of accuracy against cost (needs matplotlib)")


def _methods(text: str) -> str | list[str]:
    names = text.split(",")
    unknown = [name for name in names if name not in METHODS]
    if text != "all" and unknown:
        raise argparse.ArgumentTypeError(
            f"expected 'all' or some of {', '.join(METHODS)}, received {unknown[0]!r}"
        )
    return "all" if text == "all" else names


def _fraction(text: str) -> float:
    value = float(text)
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"expected a fraction above 0 up to 1, received {text}")
    return value


def _model(text: str) -> str:
    if text in MODELS or Path(text).is_dir():
        return text
    if text.endswith(ENDINGS):
        if Path(text).is_file():
            return text
        raise argparse.ArgumentTypeError(f"there is no file {text!r}")
    raise argparse.ArgumentTypeError(f"expected {_MODEL_HELP}, received {text!r}")


def _data(text: str) -> str:
    if text in DATASETS or (text.endswith(".npz") and Path(text).is_file()):
        return text
    if text.endswith(".npz"):
        raise argparse.ArgumentTypeError(f"there is no file {text!r}")
    names = ", ".join(DATASETS)
    raise argparse.ArgumentTypeError(f"expected one of {names} or an .npz file, received {text!r}")


def _weights(text: str) -> str | dict[str, float]:
    if text in ("uniform", "macs"):
        return text
    try:
        pairs = [pair.split("=") for pair in text.split(",")]
        return {name: float(weight) for name, weight in pairs}
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"expected 'uniform', 'macs' or NAME=NUMBER,..., received {text!r}"
        ) from None


def _number(minimum: float) -> Callable[[str], float]:
    def number(text: str) -> float:
        value = float(text)
        if not minimum <= value < float("inf"):
            raise argparse.ArgumentTypeError(f"expected a number >= {minimum}, received {text}")
        return value

    return number


def _integer(minimum: int) -> Callable[[str], int]:
    def integer(text: str) -> int:
        value = int(text)
        if value < minimum:
            raise argparse.ArgumentTypeError(f"expected an integer >= {minimum}, received {text}")
        return value

    return integer
