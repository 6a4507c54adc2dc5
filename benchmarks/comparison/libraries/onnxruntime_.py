"""Run ONNX Runtime, on a model made by the onnx package."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import helper, numpy_helper

from comparison import convolutions
from comparison.convolutions import Convolutional
from comparison.measuring import Contender
from comparison.networks import Network

OPERATORS = {"tanh": "Tanh", "relu": "Relu"}
OPSET, IR_VERSION = 17, 8


def about() -> str:
    """Return name and version."""
    return f"ONNX Runtime {onnxruntime.__version__}"


def inference(network: Network, threads: list[int]) -> Iterator[Contender]:
    """Run a session from arrays to arrays, or with its memory bound beforehand."""
    yield from _predicting(_model(network), network.data[0], network.classes, threads=1)


def convolution(network: Convolutional, threads: list[int]) -> Iterator[Contender]:
    """Run LeNet-5 on images in NCHW."""
    if network.trains:
        return
    images = np.ascontiguousarray(np.moveaxis(network.data[0], -1, 1))
    for count in threads:
        yield from _predicting(_convolutional(network), images, network.classes, count)


def _predicting(model: bytes, x: Any, classes: int, threads: int) -> Iterator[Contender]:
    session = onnxruntime.InferenceSession(
        model, _options(threads), providers=["CPUExecutionProvider"]
    )
    run = partial(session.run, ["y"], {"x": x})
    yield Contender("ONNX Runtime", run, "run", check=lambda: {"result": run()[0]})
    y = np.empty((len(x), classes), np.float32)
    binding = session.io_binding()
    for bind, name, array in ((binding.bind_input, "x", x), (binding.bind_output, "y", y)):
        bind(name, "cpu", 0, np.float32, array.shape, array.ctypes.data)
    bound = partial(session.run_with_iobinding, binding)

    def check() -> dict[str, Any]:
        bound()
        return {"result": y.copy()}

    yield Contender("ONNX Runtime", bound, "memory bound", check=check)


def _options(threads: int) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    return options


def _model(network: Network) -> bytes:
    nodes, constants, layer_input = [], [], "x"
    last = len(network.layers) - 1
    for layer, (weight, bias) in enumerate(network.weights()):
        names = [f"weight{layer}", f"bias{layer}"]
        constants += map(numpy_helper.from_array, (weight, bias), names)
        output = "y" if layer == last else f"linear{layer}"
        nodes.append(helper.make_node("Gemm", [layer_input, *names], [output]))
        if layer != last:
            layer_input = f"hidden{layer}"
            nodes.append(helper.make_node(OPERATORS[network.activation], [output], [layer_input]))
    return _bytes(nodes, constants, [network.batch, network.widths[0]], network.classes)


def _convolutional(network: Convolutional) -> bytes:
    """Make a model of images in NCHW; its weights are turned, and the rows of the first product."""
    nodes, constants, layer_input = [], [], "x"
    weights, image = iter(network.weights()), None
    for number, layer in enumerate(network.layers):
        arrays: tuple[Any, ...] = ()
        options: dict[str, Any] = {}
        match layer:
            case convolutions.Convolution():
                kind, (weight, bias) = "Conv", next(weights)
                arrays = convolutions.channels_first(weight), bias
            case convolutions.Linear():
                kind, (weight, bias) = "Gemm", next(weights)
                if image is not None:
                    weight, image = convolutions.rows_of_channels(weight, image), None
                arrays = weight, bias
            case convolutions.MaxPool():
                kind, options = "MaxPool", {"kernel_shape": [2, 2], "strides": [2, 2]}
            case convolutions.Flatten():
                kind, image = "Flatten", layer.shape
            case convolutions.ReLU():
                kind = "Relu"
        names = [f"{part}{number}" for part, _ in zip(("weight", "bias"), arrays, strict=False)]
        constants += map(numpy_helper.from_array, arrays, names)
        output = "y" if layer is network.layers[-1] else f"layer{number}"
        nodes.append(helper.make_node(kind, [layer_input, *names], [output], **options))
        layer_input = output
    height, width, channels = network.input_shape
    return _bytes(nodes, constants, [network.batch, channels, height, width], network.classes)


def _bytes(nodes: list[Any], constants: list[Any], shape: list[int], classes: int) -> bytes:
    x, y = (
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, sizes)
        for name, sizes in (("x", shape), ("y", [shape[0], classes]))
    )
    graph = helper.make_graph(nodes, "network", [x], [y], constants)
    opset = [helper.make_opsetid("", OPSET)]
    model = helper.make_model(graph, opset_imports=opset, ir_version=IR_VERSION)
    onnx.checker.check_model(model)
    return model.SerializeToString()
