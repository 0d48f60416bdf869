"""What came out of a run of `compress`."""

from dataclasses import dataclass
from typing import Any

import keras

from keras_gss.report import Report


@dataclass(frozen=True, eq=False)
class Result:
    """What `compress` made, and how it went.

    Attributes:
        model: the small model, an ordinary Keras model.
        pruned: the finetuned model before slimming, its zeros fixed.
        trained: the model after the training under the penalty, before the threshold.
        report: the model given and the small one side by side.
        threshold: the threshold applied.
        search: one dict per ratio tried for an `AccuracyDrop`: ratio, accuracy, live_macs; for a
            `Latency`, what was measured, see `Latency.search`.
        history: one dict per epoch of every phase: phase, epoch, seconds, and the logs of `fit`.
        accuracies: on the validation data: "start" (the model given, after the pretraining if
            there was one), "trained", "dense" (the better of these two), "thresholded" and
            "finetuned". With test data also "test_dense"; "test_last_epoch", the figure to rely
            on; and "test_best_epoch", the highest of all finetuning epochs, which the paper
            reports and which picks the epoch on the test data.
        settings: what the run was asked for.
    """

    model: keras.Model
    pruned: keras.Model
    trained: keras.Model
    report: Report
    threshold: Any
    search: tuple[dict[str, Any], ...]
    history: tuple[dict[str, Any], ...]
    accuracies: dict[str, float]
    settings: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """Returns everything but the models as plain values, for `json.dump`."""
        return {
            "settings": self.settings,
            "threshold": repr(self.threshold),
            "accuracies": self.accuracies,
            "report": self.report.to_dict(),
            "search": list(self.search),
            "history": list(self.history),
        }
