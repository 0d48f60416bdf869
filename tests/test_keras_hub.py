"""Backbones of KerasHub: what is planted dead goes, the rest stays, and no output changes."""

import sys
from pathlib import Path

import pytest

pytest.importorskip("keras_hub", reason="KerasHub is not installed: pip install keras_gss[hub]")
sys.path.append(str(Path(__file__).parents[1] / "examples"))
import keras_hub_backbones as hub
import numpy as np

import keras_gss as gss


@pytest.mark.parametrize("name", hub.BACKBONES)
def test_slim_cuts_what_is_planted_and_changes_nothing_else(name):
    row = hub.check(name)
    assert row["removable"] <= row["groups"]
    assert row["difference"] <= 2e-5


@pytest.mark.parametrize(
    ("name", "size"),
    [("Bert", 12), ("GPT2", 12), ("Mistral", 12), ("Gemma", 6), ("ViT", 12), ("Whisper", 12)],
)
def test_feed_forward_widths_are_groups(name, size):
    groups = [group for group in gss.find_groups(hub.build(name)) if group.removable]
    assert [group.size for group in groups] == [size] * ({"ViT": 1, "Whisper": 4}.get(name, 2))


def test_the_width_of_a_feed_forward_network_by_hand():
    model = hub.build("Bert")
    block = model.get_layer("transformer_layer_0")
    kernel = block._feedforward_output_dense.kernel
    value = np.ones(kernel.shape)
    value[[1, 4, 5]] = 0
    kernel.assign(value)
    small, _ = hub.slim(model)
    new = small.get_layer("transformer_layer_0")
    assert new.intermediate_dim == 9
    np.testing.assert_array_equal(
        new._feedforward_intermediate_dense.kernel,
        np.delete(block._feedforward_intermediate_dense.kernel, [1, 4, 5], axis=1),
    )
    np.testing.assert_array_equal(
        new._self_attention_layer.query_dense.kernel, block._self_attention_layer.query_dense.kernel
    )


def test_reasons_tell_what_stays():
    skipped = gss.find_groups(hub.build("GPT2")).skipped
    assert "can lose neurons of its feed-forward network" in skipped["transformer_layer_0"]
    assert skipped["token_embedding"].startswith("ReversibleEmbedding has no rule")


def test_a_block_that_its_config_does_not_build_stays_whole_as_a_copy():
    model = hub.build("Llama")
    reason = gss.find_groups(model).skipped["transformer_layer_0"]
    assert "is not built by its own `get_config`" in reason
    with pytest.warns(UserWarning, match=r"'transformer_layer_0' and 1 more \(LlamaTransformer"):
        small = gss.slim(model)
    assert small.get_layer("transformer_layer_0") is not model.get_layer("transformer_layer_0")
