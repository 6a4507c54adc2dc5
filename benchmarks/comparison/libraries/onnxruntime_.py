"""Run ONNX Runtime, on a model made by the onnx package."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import helper, numpy_helper

from comparison.measuring import Contender
from comparison.networks import Network

OPERATORS = {"tanh": "Tanh", "relu": "Relu"}
OPSET, IR_VERSION = 17, 8


def about() -> str:
    """Return name and version."""
    return f"ONNX Runtime {onnxruntime.__version__}"


def inference(network: Network, threads: list[int]) -> Iterator[Contender]:
    """Run a session from arrays to arrays, or with its memory bound beforehand."""
    x, _ = network.data
    session = onnxruntime.InferenceSession(
        _model(network), _options(), providers=["CPUExecutionProvider"]
    )
    run = partial(session.run, ["y"], {"x": x})
    yield Contender("ONNX Runtime", run, "run", check=lambda: {"result": run()[0]})
    y = np.empty((len(x), network.classes), np.float32)
    binding = session.io_binding()
    for bind, name, array in ((binding.bind_input, "x", x), (binding.bind_output, "y", y)):
        bind(name, "cpu", 0, np.float32, array.shape, array.ctypes.data)
    bound = partial(session.run_with_iobinding, binding)

    def check() -> dict[str, Any]:
        bound()
        return {"result": y.copy()}

    yield Contender("ONNX Runtime", bound, "memory bound", check=check)


def _options() -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
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
    x, y = (
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [network.batch, width])
        for name, width in (("x", network.widths[0]), ("y", network.classes))
    )
    graph = helper.make_graph(nodes, "network", [x], [y], constants)
    opset = [helper.make_opsetid("", OPSET)]
    model = helper.make_model(graph, opset_imports=opset, ir_version=IR_VERSION)
    onnx.checker.check_model(model)
    return model.SerializeToString()
