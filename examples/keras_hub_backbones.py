"""Every backbone of KerasHub that can be built small: plants dead neurons, cuts, compares.

    pip install keras_gss[hub] && python examples/keras_hub_backbones.py > table.md

Each backbone gets random weights. A random half of the neurons of every removable group is planted
dead, `slim` has to cut just these and to leave all outputs as they were, and the slim model is
saved, loaded and run again. Where KerasHub's own layers cannot be saved and loaded outside of their
backbone, because their `get_config` does not fit their constructor, they stay whole, as copies.
"""

import sys
import tempfile
import time
import warnings
from pathlib import Path

import keras
import keras_hub
import numpy as np

import keras_gss as gss
from keras_gss.count import removable_share

TEXT = {"vocabulary_size": 30, "num_layers": 2, "hidden_dim": 16, "intermediate_dim": 12}
HEADS = {**TEXT, "num_heads": 2}
ROTARY = {**TEXT, "num_query_heads": 2, "num_key_value_heads": 1}
IMAGE = {"image_shape": (32, 32, 3)}
VISION = {"hidden_dim": 16, "num_layers": 2, "num_heads": 2, "intermediate_dim": 12}

BACKBONES = {
    "Albert": {**HEADS, "embedding_dim": 8},
    "Bart": HEADS,
    "Bert": HEADS,
    "Bloom": HEADS,
    "DebertaV3": {**HEADS, "bucket_size": 8},
    "DistilBert": HEADS,
    "Electra": {"vocab_size": 30, **{k: v for k, v in HEADS.items() if k != "vocabulary_size"}}
    | {"embedding_dim": 8},
    "ESM": HEADS,
    "Falcon": {**TEXT, "num_attention_heads": 2},
    "FNet": TEXT,
    "Gemma": {**ROTARY, "head_dim": 8},
    "Gemma3": {**ROTARY, "head_dim": 8, "image_size": 16, "vision_encoder": None},
    "GPT2": HEADS,
    "GPTNeoX": HEADS,
    "Llama": ROTARY,
    "Llama3": ROTARY,
    "Mistral": ROTARY,
    "Mixtral": {**ROTARY, "num_experts": 2},
    "OPT": HEADS,
    "Phi3": ROTARY,
    "Qwen": ROTARY,
    "Qwen3": {**ROTARY, "head_dim": 8},
    "Roberta": HEADS,
    "RoformerV2": {**HEADS, "head_size": 8},
    "T5": HEADS,
    "Whisper": {**HEADS},
    "XLMRoberta": HEADS,
    "XLNet": HEADS,
    "ViT": {
        **IMAGE, "patch_size": 8, "num_layers": 2, "num_heads": 2, "hidden_dim": 16, "mlp_dim": 12
    },
    "DeiT": {**VISION, **IMAGE, "patch_size": 8},
    "DINOV2": {**VISION, **IMAGE, "patch_size": 8, "position_embedding_shape": (32, 32)},
    "SwinTransformer": {
        **IMAGE, "embed_dim": 8, "depths": [1, 1], "num_heads": [1, 2], "window_size": 4
    },
    "MiT": {
        **IMAGE, "layerwise_depths": [1, 1], "num_layers": 2, "layerwise_num_heads": [1, 2],
        "layerwise_sr_ratios": [2, 1], "max_drop_path_rate": 0.1, "layerwise_patch_sizes": [7, 3],
        "layerwise_strides": [4, 2], "hidden_dims": [8, 16]
    },
    "ResNet": {
        **IMAGE, "input_conv_filters": [8], "input_conv_kernel_sizes": [7],
        "stackwise_num_filters": [64, 64], "stackwise_num_blocks": [2, 1],
        "stackwise_num_strides": [1, 2], "block_type": "bottleneck_block"
    },
    "DenseNet": {**IMAGE, "stackwise_num_repeats": [2, 2], "growth_rate": 4},
    "VGG": {**IMAGE, "stackwise_num_repeats": [1, 2], "stackwise_num_filters": [8, 12]},
    "Xception": {
        **IMAGE, "stackwise_conv_filters": [[8, 12], [12, 16, 16]],
        "stackwise_pooling": [True, False]
    },
    "CSPNet": {
        **IMAGE, "stem_filters": 8, "stem_kernel_size": 3, "stem_strides": 2,
        "stackwise_depth": [1, 2], "stackwise_strides": [1, 2], "stackwise_num_filters": [8, 16],
        "block_type": "dark_block", "stage_type": "dark"
    },
    "EfficientNet": {
        **IMAGE, "stackwise_width_coefficients": [1.0, 1.0],
        "stackwise_depth_coefficients": [1.0, 1.0], "stackwise_kernel_sizes": [3, 3],
        "stackwise_num_repeats": [1, 2], "stackwise_input_filters": [16, 16],
        "stackwise_output_filters": [16, 24], "stackwise_expansion_ratios": [1, 4],
        "stackwise_squeeze_and_excite_ratios": [0.25, 0.25], "stackwise_strides": [1, 2],
        "stackwise_block_types": ["v1", "v1"], "stackwise_force_input_filters": [0, 0],
        "stackwise_nores_option": [False, False]
    },
    "MobileNet": {
        **IMAGE, "stackwise_expansion": [[8, 12], [12, 16]], "stackwise_num_blocks": [2, 2],
        "stackwise_num_filters": [[8, 8], [12, 12]], "stackwise_kernel_size": [[3, 3], [5, 5]],
        "stackwise_num_strides": [[2, 1], [2, 1]],
        "stackwise_se_ratio": [[None, None], [0.25, 0.25]],
        "stackwise_activation": [["relu", "relu"], ["hard_swish", "hard_swish"]],
        "stackwise_padding": [[1, 1], [2, 2]], "output_num_filters": 16, "depthwise_filters": 8,
        "depthwise_stride": 2, "depthwise_residual": False, "last_layer_filter": 24,
        "squeeze_and_excite": 0.5, "input_num_filters": 8
    },
}  # fmt: skip


def build(name):
    """Builds a small backbone, or an encoder that comes without one."""
    keras.utils.set_random_seed(0)
    return getattr(keras_hub.models, f"{name}Backbone")(**BACKBONES[name])


def randomise(model, rng):
    """Draws weights of which half may die and still carry the input through, biases included."""
    for variable in model.trainable_weights:
        shape = variable.shape
        if variable.name in ("gamma", "scale"):
            variable.assign(rng.uniform(0.5, 1.5, shape))
        elif len(shape) == 1:
            variable.assign(rng.uniform(-0.2, 0.2, shape))
        elif len(shape) == 4:  # of a convolution; a depthwise one reads one channel
            read = shape[:2] if "depthwise" in variable.path or shape[-1] == 1 else shape[:3]
            variable.assign(rng.normal(0, 2 / np.sqrt(np.prod(read)), shape))


def plant(model, rng):
    """Zeroes what reads a random half of every removable group; returns how many stay in each."""
    stays = {}
    for group in gss.find_groups(model):
        if not group.removable:
            continue
        dead = rng.permutation(group.size)[: group.size // 2]
        stays[group.name] = (group.size, group.size - len(dead))
        for piece in group.outgoing:
            value = np.moveaxis(keras.ops.convert_to_numpy(piece.weight).copy(), piece.axis, 0)
            value[np.isin(piece.index, dead)] = 0.0
            piece.weight.assign(np.moveaxis(value, 0, piece.axis))
    return stays


def batch(model, rng):
    """Draws two samples: images, sounds, or eight tokens none of which is padding."""
    inputs = model.input if isinstance(model.input, dict) else {"": model.input}
    found = {}
    for name, tensor in inputs.items():
        shape = (2, *(8 if size is None else size for size in tensor.shape[1:]))
        if "mask" in name:
            found[name] = np.ones(shape, "int32")
        elif "int" in tensor.dtype:
            found[name] = rng.integers(0, 2 if "segment" in name else 30, shape).astype("int32")
        else:
            found[name] = rng.uniform(0, 1, shape).astype("float32")
    return found if isinstance(model.input, dict) else found[""]


def outputs(model, x):
    """Returns all outputs of a model, as arrays."""
    return [keras.ops.convert_to_numpy(y) for y in keras.tree.flatten(model(x, training=False))]


def difference(first, second):
    """Returns the largest difference between outputs, over the largest output of its tensor."""
    return max(
        float(np.abs(a - b).max() / max(np.abs(a).max(), 1e-9))
        for a, b in zip(first, second, strict=True)
    )


def check(name):
    """Does all of it for one backbone and returns a row of the table.

    Raises:
        AssertionError: if other neurons go than those planted, or an output changes.
    """
    rng = np.random.default_rng(0)
    model = build(name)
    randomise(model, rng)
    stays = plant(model, rng)
    groups = gss.find_groups(model)
    share = removable_share(model).parameters
    without = (reason.partition(" has no rule") for reason in groups.skipped.values())
    kinds = {kind for kind, rest, _ in without if rest and " " not in kind}
    row = {
        "groups": len(groups),
        "removable": len(stays),
        "parameters": model.count_params(),
        "share": share,
        "no rule": sorted(kinds),
        "broken": broken_config(model),
    }
    started = time.perf_counter()
    small, report = slim(model)
    row["seconds"] = time.perf_counter() - started
    assert report.cut == stays, f"{name}: cut {report.cut}, planted {stays}"
    x = batch(model, rng)
    before, after = outputs(model, x), outputs(small, x)
    assert any(np.ptp(y, 0).max() > 0.01 * np.abs(y).max() for y in before), "no input gets through"
    largest = difference(before, after)
    assert largest <= 2e-5, f"{name}: outputs differ by {largest}"
    row["difference"] = largest
    if not row["broken"]:
        assert difference(after, outputs(reloaded(small), x)) <= 1e-6, f"{name}: loads otherwise"
    return row


def slim(model):
    """Cuts a backbone, of which a plain functional model becomes, as is meant here."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "'.*' cannot be built anew|'.*' has layers that are not")
        return gss.slim(model, return_report=True)


def reloaded(model):
    """Saves a model and loads it."""
    with tempfile.TemporaryDirectory() as folder:
        model.save(Path(folder) / "model.keras")
        return keras.models.load_model(Path(folder) / "model.keras")


def broken_config(model):
    """Tells whether the layers of a backbone cannot be saved and loaded without their backbone.

    What is cut has other widths than any backbone, so that it has to be a plain model of them.
    """
    try:
        loaded = reloaded(keras.Model(model.input, model.output))
    except (AttributeError, TypeError, ValueError):
        return True
    return [layer.name for layer in loaded.layers] != [layer.name for layer in model.layers]


def main():
    """Prints the table; an assertion that fails ends it."""
    print(
        f"KerasHub {keras_hub.__version__}, Keras {keras.__version__} on "
        f"{keras.backend.backend()}, {time.strftime('%Y-%m-%d')}\n"
    )
    head = ("backbone", "parameters", "groups (removable)", "removable parameters", "slim")
    head += ("largest difference", "layers load without backbone", "left whole for want of a rule")
    print("|", " | ".join(head), "|")
    print("|---|--:|--:|--:|--:|--:|---|---|")
    for name in sys.argv[1:] or BACKBONES:
        row = check(name)
        cells = [name, f"{row['parameters']:,}", f"{row['groups']} ({row['removable']})"]
        cells.append(f"{row['share']:.1%}")
        cells += [f"{row['seconds']:.1f} s", f"{row['difference']:.0e}"]
        cells.append("no" if row["broken"] else "yes")
        print("|", " | ".join((*cells, ", ".join(row["no rule"]) or "-")), "|", flush=True)


if __name__ == "__main__":
    main()
