"""The examples on source code: what their data are, and a smoke run of each network."""

import importlib.util
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

FOLDER = Path(__file__).parents[1] / "examples" / "sequences"
sys.path.insert(0, str(FOLDER))
_spec = importlib.util.spec_from_file_location("sequences", FOLDER / "__main__.py")
sequences = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(sequences)

pytestmark = pytest.mark.xdist_group("sequences")  # one process reads the source code

GROUPS = {
    "lstm": {"embedding": 32, "lstm": 64, "mlp": 64},
    "transformer": {
        "attention1:heads": 6,
        "attention1:keys": 8,
        "attention1:values": 8,
        "mlp1": 96,
        "attention2:heads": 6,
        "attention2:keys": 8,
        "attention2:values": 8,
        "mlp2": 96,
    },
}


def test_what_each_character_is_part_of(tmp_path):
    path = tmp_path / "module.py"
    path.write_text(
        'def ä(x):  # why\n    """Not,\n    code."""\n    return len(x) + 0.5 if x else f""\n'
    )
    text, labels = sequences.source_code.labelled(path)
    assert "".join(map(chr, text[:8])) == "def ?(x)"
    letter = dict(enumerate(".#'0+kbdn"))
    assert "".join(letter[label] for label in labels) == (
        "kkk.d+n++..#####....." + "'" * 20 + ".....kkkkkk.bbb+n+.+.000.kk.n.kkkk.'''."
    )


def test_a_fifth_of_the_modules_is_held_out():
    parts = [sequences.source_code.part_of(f"module{n}.py") for n in range(1000)]
    assert 80 < parts.count("test") < 120
    assert 80 < parts.count("validation") < 120
    assert parts.count("train") > 760


def test_windows_are_those_of_the_modules_of_their_part():
    parts = sequences.source_code.load({"train": 3, "test": 2}, length=50)
    again = sequences.source_code.load({"test": 2}, length=50, seed=1)
    assert parts["train"][0].shape == parts["train"][1].shape == (3, 50)
    assert (parts["test"][0] != again["test"][0]).any()
    paths = sequences.source_code.modules("test")
    text = "".join(path.read_text("utf-8") for path in paths).encode("ascii", "replace")
    for window in parts["test"][0]:
        assert bytes(window.astype(np.uint8)) in text


@pytest.mark.parametrize("network", list(GROUPS))
def test_a_smoke_run(network, tmp_path, capsys):
    arguments = [network, "--quick", "--directory", str(tmp_path)]
    sequences.main(arguments)
    (row,) = sequences.read(tmp_path / "results.jsonl")
    assert {name: before for name, (before, _) in row["groups"].items()} == GROUPS[network]
    before, after = row["macs"]
    assert 0.5 * sequences.SETTINGS[network]["macs"] < after / before
    assert after / before <= sequences.SETTINGS[network]["macs"]
    assert row["slim_against_masked"] < 1e-5
    assert row["saved_model"]["difference"] < 1e-5
    assert row["saved_model"]["changed"] == 0
    small = keras.saving.load_model(tmp_path / f"{network}-0" / "model.keras")
    assert small.count_params() == row["parameters"][1]
    sequences.main(arguments)
    assert len(sequences.read(tmp_path / "results.jsonl")) == 1
    with pytest.raises(SystemExit, match="no results but those of --quick"):
        sequences.main(["table", "--directory", str(tmp_path)])
