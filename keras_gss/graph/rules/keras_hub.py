"""KerasHub's transformer blocks: the inner width of their feed-forward network is a group.

A block is one layer whose config holds one hidden width, which is normalised over, and heads whose
width follows from it: these stay. KerasHub is never imported; its layers are known by their names.
"""

from dataclasses import dataclass

import numpy as np

from keras_gss.graph.call import Call
from keras_gss.graph.records import Signal
from keras_gss.graph.registry import register_operations
from keras_gss.graph.rules.linear import neurons
from keras_gss.graph.units import FIXED


@dataclass(frozen=True)
class _FeedForward:
    """Where a block holds its feed-forward network.

    Attributes:
        made: the layers that make the inner neurons; a second one gates them.
        read: the layer that reads them.
        width: the config entry with their number, `per_neuron` times over.
        blocks: the list of blocks that share that entry, where a layer holds several.
    """

    made: tuple[str, ...]
    read: str
    width: str = "intermediate_dim"
    per_neuron: int = 1
    blocks: str = ""


_PLAIN = _FeedForward(("_feedforward_intermediate_dense",), "_feedforward_output_dense")
_GATED = _FeedForward((*_PLAIN.made, "_feedforward_gate_dense"), _PLAIN.read)
_OPEN = ("feedforward_intermediate_dense",), "feedforward_output_dense"
_GEMMA = _FeedForward(("gating_ffw", "gating_ffw_2"), "ffw_linear", per_neuron=2)

_BLOCKS = {
    "TransformerEncoder": _PLAIN,
    "TransformerDecoder": _PLAIN,
    "WhisperEncoder": _PLAIN,
    "WhisperDecoder": _PLAIN,
    "DisentangledAttentionEncoder": _PLAIN,
    "GPTNeoXDecoder": _PLAIN,
    "FNetEncoder": _FeedForward(("_intermediate_dense",), "_output_dense"),
    "BloomDecoder": _FeedForward(("_mlp_intermediate_dense",), "_mlp_output_dense"),
    "FalconTransformerDecoder": _FeedForward(("dense_h_to_4h",), "dense_4h_to_h"),
    "RoformerV2Encoder": _FeedForward(*_OPEN, "intermediate_size"),
    "ESMEncoder": _FeedForward(*_OPEN, "intermediate_size"),
    "XLNetEncoder": _FeedForward(*_OPEN),
    "LlamaTransformerDecoder": _GATED,
    "MistralTransformerDecoder": _GATED,
    "QwenTransformerDecoder": _GATED,
    "Qwen3TransformerDecoder": _GATED,
    "Phi3Decoder": _FeedForward((*_OPEN[0], "feedforward_gate_dense"), _OPEN[1]),
    "GemmaDecoderBlock": _GEMMA,
    "CLIPEncoderLayer": _FeedForward(("dense_1",), "dense_2"),
    "SigLIPEncoderLayer": _FeedForward(("mlp.fc1",), "mlp.fc2"),
    "ViTEncoder": _FeedForward(("mlp.dense_1",), "mlp.dense_2", "mlp_dim", blocks="encoder_layers"),
}


@register_operations(*(f"keras_hub.{name}" for name in _BLOCKS))
def transformer_block(call: Call) -> list[Signal]:
    """The rest of the block is left whole, and so is all that it reads."""
    part = _BLOCKS[type(call.layer).__name__]
    blocks = [""]
    if part.blocks:
        blocks = [f"{part.blocks}.{k}." for k in range(len(getattr(call.layer, part.blocks)))]
    inner = call.units(getattr(call.layer, part.width) // part.per_neuron)
    for at in blocks:
        for name in part.made:
            made = call.inside(at + name)
            made.declare("kernel", 1, inner, "incoming")
            made.declare("bias", 0, inner)
            made.work("kernel", call.x.shape[:-1])
        read = call.inside(at + part.read)
        read.declare("kernel", 0, inner, "outgoing")
        read.work("kernel", call.x.shape[:-1])
        if call.numeric:
            used = (read.read("kernel") != 0).any(1, keepdims=True)
            read.reads(inner, np.full(1, FIXED), used)
    call.trace.uncounted.setdefault(call.path, "only its feed-forward network is counted")
    call.resize(part.width, neurons(inner), lambda sizes: sizes[0] * part.per_neuron)
    return call.barrier(
        "is a block of KerasHub, which can lose neurons of its feed-forward network and keeps its "
        "hidden width and its heads"
    )
