"""The test cases that the onnx package has for each operator, through ``minidl.onnx.load``.

What is loaded is also written again, and loaded from there.

Those count whose operators minidl reads and whose numbers are float32. Weights, which are inputs of
these graphs, become constants first. A case gives what the standard says, or is refused by name.
"""

from __future__ import annotations

import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import minidl
from minidl import ModelFileError
from minidl.onnx.readers import READERS

onnx = pytest.importorskip("onnx")

from onnx import TensorProto, numpy_helper  # noqa: E402
from onnx_helpers import outputs_of  # noqa: E402

# Operands that are weights, or part of what a layer is: of each operator, their places.
WEIGHTS: dict[str, tuple[int, ...]] = {
    **dict.fromkeys(("RNN", "LSTM", "GRU"), (1, 2, 3, 7)),
    **dict.fromkeys(("MatMul", "PRelu", "RMSNormalization", "Reshape", "Squeeze", "Sub"), (1,)),
    **dict.fromkeys(("Gemm", "LayerNormalization", "Dropout"), (1, 2)),
    **dict.fromkeys(("Unsqueeze", "Div", "Split"), (1,)),
    "BatchNormalization": (1, 2, 3, 4),
    "Gather": (0,),
    "Conv": (1, 2),
    "Resize": (1, 2, 3),
    "Upsample": (1,),
    **dict.fromkeys(("ReduceMean", "ReduceMax"), (1,)),
    "Pad": (1, 2, 3),
}
RANDOM = "it is in training mode, and its mask cannot be repeated"
STATISTICS = "it is in training mode"
RESET = "it resets the state before the product"
BATCHED = "holds several matrices"
REFUSED = {
    "test_batchnorm_epsilon_training_mode": STATISTICS,
    "test_batchnorm_example_training_mode": STATISTICS,
    "test_gru_batchwise": RESET,
    "test_gru_bidirectional": RESET,
    "test_gru_defaults": RESET,
    "test_gru_reverse": RESET,
    "test_gru_seq_length": RESET,
    "test_gru_with_initial_bias": RESET,
    "test_lstm_with_peepholes": "it has peepholes",
    "test_matmul_1d_3d": BATCHED,
    "test_matmul_3d": BATCHED,
    "test_matmul_4d": BATCHED,
    "test_matmul_bcast": BATCHED,
    "test_prelu_example": "slopes (3, 4, 5) are on more than one axis",
    "test_reshape_allowzero_reordered": "it makes an empty array",
    "test_swiglu_alpha_expanded": "its alpha is 0.5, and that of SiLU is 1",
    "test_training_dropout": RANDOM,
    "test_training_dropout_default": RANDOM,
    "test_training_dropout_default_mask": RANDOM,
    "test_training_dropout_mask": RANDOM,
    "test_where_example": "minidl has no such layer",
}

# Operators of images: words that refuse cases, and those cases, without "test_".
OF_IMAGES = {
    "as GlobalMaxPool is": """
        reduce_max_default_axes_keepdim_example reduce_max_default_axes_keepdims_random
        reduce_max_do_not_keepdims_example reduce_max_do_not_keepdims_random reduce_max_empty_set
        reduce_max_keepdims_example reduce_max_keepdims_random
        reduce_max_negative_axes_keepdims_example reduce_max_negative_axes_keepdims_random
    """,
    "it has 3 dimensions": """
        averagepool_3d_default maxpool_3d_default
    """,
    "at most half the kernel": """
        averagepool_2d_pads
    """,
    "it has ceil_mode": """
        averagepool_2d_ceil averagepool_2d_ceil_last_window_starts_on_pad averagepool_2d_dilations
        averagepool_3d_dilations_large_count_include_pad_is_0_ceil_mode_is_True
        averagepool_3d_dilations_large_count_include_pad_is_1_ceil_mode_is_True
        averagepool_3d_dilations_small maxpool_2d_ceil maxpool_2d_ceil_output_size_reduce_by_one
        maxpool_3d_dilations_use_ref_impl_large
    """,
    "windows have dilations": """
        averagepool_3d_dilations_large_count_include_pad_is_0_ceil_mode_is_False
        averagepool_3d_dilations_large_count_include_pad_is_1_ceil_mode_is_False
        maxpool_2d_dilations maxpool_3d_dilations maxpool_3d_dilations_use_ref_impl
    """,
    "it names axes": """
        constant_pad_axes constant_pad_negative_axes
    """,
    "are not whole numbers": """
        resize_downsample_scales_nearest resize_downsample_sizes_nearest
        resize_upsample_sizes_nearest
    """,
    "its mode is": """
        resize_downsample_scales_cubic resize_downsample_scales_cubic_A_n0p5_exclude_outside
        resize_downsample_scales_cubic_align_corners resize_downsample_scales_cubic_antialias
        resize_downsample_scales_linear resize_downsample_scales_linear_align_corners
        resize_downsample_scales_linear_antialias
        resize_downsample_scales_linear_half_pixel_symmetric resize_downsample_sizes_cubic
        resize_downsample_sizes_cubic_antialias resize_downsample_sizes_linear_antialias
        resize_downsample_sizes_linear_pytorch_half_pixel resize_tf_crop_and_resize
        resize_tf_crop_and_resize_axes_2_3 resize_tf_crop_and_resize_axes_3_2
        resize_tf_crop_and_resize_extrapolation_value resize_upsample_scales_cubic
        resize_upsample_scales_cubic_A_n0p5_exclude_outside
        resize_upsample_scales_cubic_align_corners resize_upsample_scales_cubic_asymmetric
        resize_upsample_scales_linear resize_upsample_scales_linear_align_corners
        resize_upsample_scales_linear_half_pixel_symmetric resize_upsample_sizes_cubic
    """,
    "it does not repeat pixels": """
        resize_upsample_sizes_nearest_ceil_half_pixel
        resize_upsample_sizes_nearest_floor_align_corners
        resize_upsample_sizes_nearest_round_prefer_ceil_asymmetric
    """,
    "it has axes": """
        resize_downsample_sizes_nearest_not_larger resize_downsample_sizes_nearest_not_smaller
        resize_upsample_scales_nearest_axes_2_3 resize_upsample_scales_nearest_axes_3_2
        resize_upsample_sizes_nearest_axes_2_3 resize_upsample_sizes_nearest_axes_3_2
        resize_upsample_sizes_nearest_not_larger resize_upsample_sizes_nearest_not_smaller
    """,
}
REFUSED |= {f"test_{name}": words for words, names in OF_IMAGES.items() for name in names.split()}


def concerns_minidl(model: Any) -> bool:
    """Whether minidl reads every operator of a case, and its numbers are float32."""
    operators = {node.op_type for node in model.graph.node}
    given, made = (
        {value.type.tensor_type.elem_type for value in values}
        for values in (model.graph.input, model.graph.output)
    )
    plain = {TensorProto.FLOAT, TensorProto.INT32, TensorProto.INT64, TensorProto.BOOL}
    return (
        bool(operators)
        and operators <= READERS.keys()
        and TensorProto.FLOAT in given <= plain
        and made <= {TensorProto.FLOAT, TensorProto.BOOL}
    )


def folded(model: Any, arrays: list[np.ndarray]) -> tuple[Any, list[np.ndarray]]:
    """The model with its weights as constants, and what is left of its inputs."""
    weights = {
        name
        for node in model.graph.node
        for place, name in enumerate(node.input)
        if place in WEIGHTS.get(node.op_type, ())
    }
    _, *others = model.graph.input
    if len(model.graph.node) == 1 and model.graph.node[0].op_type in ("Add", "Mul"):
        shapes = [array.shape for array in arrays]
        weights |= {value.name for value in others if shapes[1] != shapes[0]}
    result = onnx.ModelProto()
    result.CopyFrom(model)
    del result.graph.input[:]
    inputs = []
    for value, array in zip(model.graph.input, arrays, strict=True):
        if value.name in weights:
            result.graph.initializer.append(numpy_helper.from_array(array, value.name))
        else:
            result.graph.input.append(value)
            inputs.append(array)
    return result, inputs


def outcome(case: Any, path: Path) -> str:
    """What comes of a case: "" if all numbers are right, else why it is refused."""
    ((arrays, expected),) = case.data_sets
    model, inputs = folded(case.model, [np.asarray(array) for array in arrays])
    path.write_bytes(model.SerializeToString())
    try:
        loaded = minidl.onnx.load(path)
    except ModelFileError as error:
        return str(error)
    outputs = outputs_of(loaded, tuple(inputs))
    minidl.onnx.export(loaded, path, tuple(inputs))
    for again, ours in zip(outputs_of(minidl.onnx.load(path), tuple(inputs)), outputs, strict=True):
        np.testing.assert_allclose(again, ours, rtol=1e-5, atol=1e-6, err_msg=case.name)
    for ours, theirs in zip(outputs, expected, strict=True):
        assert ours.shape == theirs.shape, case.name
        np.testing.assert_allclose(
            ours, theirs, rtol=case.rtol, atol=max(case.atol, 1e-6), err_msg=case.name
        )
    return ""


def test_cases_of_operators_are_right_or_refused_by_name(tmp_path: Path) -> None:
    from onnx.backend.test.loader import load_model_tests

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of cases that divide by zero on purpose
        cases = [case for case in load_model_tests(kind="node") if concerns_minidl(case.model)]
    outcomes = {case.name: outcome(case, tmp_path / "model.onnx") for case in cases}
    for name, words in outcomes.items():
        assert (name in REFUSED) == bool(words), f"{name}: {words}"
        assert REFUSED.get(name, "") in words
    passed = Counter(not words for words in outcomes.values())[True]
    assert passed >= 239
    refused = sum(len(names.split()) for names in OF_IMAGES.values())
    assert passed >= 0.91 * (len(outcomes) - refused)
