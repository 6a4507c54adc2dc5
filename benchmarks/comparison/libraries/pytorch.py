"""Run PyTorch, eager and compiled."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch.nn import functional

from comparison.measuring import Contender
from comparison.networks import LEARNING_RATE, MAX_NORM, Network, losses, over
from comparison.sequences import Sequences
from comparison.suites import KernelTask

ACTIVATIONS = {"tanh": torch.nn.Tanh, "relu": torch.nn.ReLU}
Call = Callable[[], Any]


def about() -> str:
    """Return name and version."""
    return f"PyTorch {torch.__version__}"


# --- kernels ----------------------------------------------------------------------------


def kernels(task: KernelTask, threads: list[int]) -> Iterator[Contender]:
    """Compute each kernel into a given output, without a graph."""
    torch.set_grad_enabled(False)
    arguments = {
        name: torch.from_numpy(value)
        if hasattr(value, "dtype") and value.dtype.names is None
        else value
        for name, value in task.case.arguments().items()
    }
    calls: dict[str, Callable[..., Any]] = {
        "matmul": _product,
        "tanh": lambda x: partial(torch.tanh, x, out=torch.empty_like(x)),
        "sigmoid": lambda x: partial(torch.sigmoid, x, out=torch.empty_like(x)),
    }
    if (kernel := task.case.kernel) in calls:
        call = calls[kernel](**arguments)
        yield Contender("PyTorch", call, check=lambda: {"result": call().clone().numpy()})
    elif kernel == "softmax_cross_entropy":
        yield from _cross_entropy(arguments["logits"], arguments["labels"])
    elif kernel == "adam":
        yield from _adam(arguments["data"], arguments["grad"])


def _product(a: Any, b: Any, out: Any, transpose_a: bool, transpose_b: bool) -> Any:
    return partial(torch.mm, a.T if transpose_a else a, b.T if transpose_b else b, out=out)


def _cross_entropy(logits: Any, labels: Any) -> Iterator[Contender]:
    """Compute loss and gradient by autograd, or by hand without a graph."""
    leaf = logits.clone().requires_grad_()
    chosen, share = labels[:, None], 1 / len(labels)
    minus_one = torch.full_like(chosen, -1, dtype=logits.dtype)

    def by_graph() -> Any:
        with torch.enable_grad():
            loss = functional.cross_entropy(leaf, labels)
            return loss, torch.autograd.grad(loss, leaf)[0]

    def by_hand() -> Any:
        logs = torch.log_softmax(logits, 1)
        loss = functional.nll_loss(logs, labels)
        return loss, logs.exp_().scatter_add_(1, chosen, minus_one).mul_(share)

    for call, setting in ((by_graph, "autograd"), (by_hand, "gradient by hand")):
        yield Contender("PyTorch", call, setting, check=partial(_loss_and_gradient, call))


def _loss_and_gradient(call: Call) -> dict[str, Any]:
    loss, gradient = call()
    return {"loss": loss.detach().numpy(), "gradient": gradient.numpy()}


def _adam(data: Any, grad: Any) -> Iterator[Contender]:
    for setting in ("fused", "foreach"):
        parameter = torch.nn.Parameter(data.clone())
        parameter.grad = grad.clone()
        options = {setting: True, "lr": 1e-6, "weight_decay": 1e-4}
        yield Contender("PyTorch", torch.optim.Adam([parameter], **options).step, setting)


# --- training steps ---------------------------------------------------------------------


def steps(network: Network, threads: list[int]) -> Iterator[Contender]:
    """Make eager steps with either Adam, and compiled steps."""
    torch.compiler.reset()  # or programs of the network before would be tried first
    batches = network.split(*map(torch.from_numpy, network.data))
    makers = {
        ("PyTorch", "fused Adam"): partial(_eager, fused=True),
        ("PyTorch", "foreach Adam"): partial(_eager, foreach=True),
        ("torch.compile", "forward and backward"): _compiled_loss,
        ("torch.compile", "the whole step"): _compiled_whole,
    }
    for (name, setting), make in makers.items():
        call = over(make(network), batches)
        yield Contender(name, call, setting, check=losses(call))


def _model(network: Network) -> torch.nn.Sequential:
    layers: list[torch.nn.Module] = []
    for (inputs, outputs), (weight, bias) in zip(network.layers, network.weights(), strict=True):
        linear = torch.nn.Linear(inputs, outputs)
        linear.weight.data, linear.bias.data = map(torch.from_numpy, (weight.T.copy(), bias))
        layers += [linear, ACTIVATIONS[network.activation]()]
    return torch.nn.Sequential(*layers[:-1])


def _eager(network: Network, **options: Any) -> Callable[[Any, Any], Any]:
    return eager_training(_model(network), **options)


def eager_training(model: torch.nn.Module, **options: Any) -> Callable[[Any, Any], Any]:
    """Make the step of a model."""

    def loss_of(x: Any, y: Any) -> Any:
        return functional.cross_entropy(model(x), y)

    return _training(list(model.parameters()), loss_of, **options)


def _training(
    parameters: list[Any], loss_of: Callable[..., Any], **options: Any
) -> Callable[..., Any]:
    optimizer = torch.optim.Adam(parameters, lr=LEARNING_RATE, **options)

    def step(x: Any, y: Any) -> Any:
        loss = loss_of(x, y)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, MAX_NORM, foreach=True)
        optimizer.step()
        return loss.detach()

    return step


def _compiled_loss(network: Network) -> Callable[[Any, Any], Any]:
    """Compile forward and backward, but neither clipping nor Adam."""
    return compiled_training(_model(network))


def compiled_training(model: torch.nn.Module) -> Callable[[Any, Any], Any]:
    """Compile forward and backward of a model, but neither clipping nor Adam."""
    loss_of = compiled(lambda x, y: functional.cross_entropy(model(x), y))
    return _training(list(model.parameters()), loss_of, fused=True)


def _compiled_whole(network: Network) -> Callable[[Any, Any], Any]:
    """Compile the whole step of a perceptron."""
    weights = [torch.from_numpy(array) for pair in network.weights() for array in pair]
    activation = {"tanh": torch.tanh, "relu": torch.relu}[network.activation]

    def loss_of(parts: list[Any], x: Any, y: Any) -> Any:
        for layer in range(0, len(parts), 2):
            x = torch.addmm(parts[layer + 1], activation(x) if layer else x, parts[layer])
        return functional.cross_entropy(x, y)

    return whole(weights, loss_of)


def whole(weights: list[Any], loss_of: Callable[..., Any]) -> Callable[[Any, Any], Any]:
    """Compile a step on one flat vector: gradient by torch.func, clipping and Adam by hand."""
    shapes, counts = [w.shape for w in weights], [w.numel() for w in weights]
    data = torch.cat([w.flatten() for w in weights])
    m, v, taken = torch.zeros_like(data), torch.zeros_like(data), torch.zeros(())

    def loss_of_flat(flat: Any, x: Any, y: Any) -> Any:
        parts = zip(flat.split(counts), shapes, strict=True)
        return loss_of([part.view(shape) for part, shape in parts], x, y)

    gradient_of = torch.func.grad_and_value(loss_of_flat)

    @compiled
    def update(data: Any, m: Any, v: Any, taken: Any, x: Any, y: Any) -> Any:
        gradient, loss = gradient_of(data, x, y)
        gradient = gradient * (MAX_NORM / (gradient.norm() + 1e-6)).clamp(max=1.0)
        taken += 1
        m += 0.1 * (gradient - m)
        v += 0.001 * (gradient * gradient - v)
        root = (v / (1 - 0.999**taken)).sqrt() + 1e-8
        data -= LEARNING_RATE / (1 - 0.9**taken) * m / root
        return loss

    def step(x: Any, y: Any) -> Any:
        with torch.no_grad():
            return update(data, m, v, taken, x, y)

    return step


class _Recurrent(torch.nn.Module):
    """A recurrent layer of PyTorch, and a linear one on its last output."""

    def __init__(self, network: Sequences) -> None:
        super().__init__()
        weights = {name: torch.from_numpy(w) for name, w in network.weights().items()}
        layer = getattr(torch.nn, network.kind)(network.inputs, network.hidden, batch_first=True)
        self.layer, self.last = layer, torch.nn.Linear(network.hidden, network.classes)
        for own, name in (("weight_ih_l0", "input_weight"), ("weight_hh_l0", "recurrent_weight")):
            getattr(layer, own).data = weights[name].T.contiguous()
        layer.bias_ih_l0.data, layer.bias_hh_l0.data = weights["bias"], weights["recurrent_bias"]
        self.last.weight.data = weights["last_weight"].T.contiguous()
        self.last.bias.data = weights["last_bias"]
        if network.kind != "GRU":  # in RNN and LSTM the second bias would only repeat the first
            layer.bias_hh_l0.requires_grad_(False)

    def forward(self, x: Any) -> Any:
        return self.last(self.layer(x)[0][:, -1])


def recurrent(network: Sequences, threads: list[int]) -> Iterator[Contender]:
    """Make eager steps with either Adam, and steps with a compiled forward pass."""
    torch.compiler.reset()
    batches = network.split(*map(torch.from_numpy, network.data))

    def step(compiled: bool, **options: Any) -> Callable[[Any, Any], Any]:
        model = _Recurrent(network)
        forward = torch.compile(model, dynamic=False) if compiled else model
        loss_of = lambda x, y: functional.cross_entropy(forward(x), y)  # noqa: E731
        trained = [p for p in model.parameters() if p.requires_grad]
        return _training(trained, loss_of, **options)

    for name, setting, compiled, options in (
        ("PyTorch", "fused Adam", False, {"fused": True}),
        ("PyTorch", "foreach Adam", False, {"foreach": True}),
        ("torch.compile", "fused Adam", True, {"fused": True}),
    ):
        call = over(step(compiled, **options), batches)
        yield Contender(name, call, setting, check=losses(call))


def compiled(function: Callable[..., Any], **more: Any) -> Any:
    """Compile for these shapes alone."""
    # Called from C++: calls from Python would take a third of a small step.
    options = {"cpp_wrapper": True, "max_autotune": True, **more}
    return torch.compile(function, fullgraph=True, dynamic=False, options=options)


# --- inference --------------------------------------------------------------------------


def inference(network: Network, threads: list[int]) -> Iterator[Contender]:
    """Call the module without a graph, and scripted."""
    x, model = torch.from_numpy(network.data[0]), frozen(_model(network))
    yield from predicting("PyTorch", model, x)
    yield from predicting("TorchScript", scripted(model, x), x)


def frozen(model: torch.nn.Module) -> torch.nn.Module:
    """Set a model to evaluation, without gradients."""
    return model.eval().requires_grad_(False)


def scripted(model: torch.nn.Module, x: Any) -> Any:
    """Make a script of what a frozen model does with x."""
    return torch.jit.freeze(torch.jit.trace(model, x))


def predicting(name: str, model: Any, x: Any, setting: str = "") -> Iterator[Contender]:
    """Call a model without a graph, in either way."""
    for guard in (torch.no_grad, torch.inference_mode):

        def call(guard: Callable[[], Any] = guard) -> Any:
            with guard():
                return model(x)

        def check(call: Call = call) -> dict[str, Any]:
            return {"result": call().numpy()}

        yield Contender(name, call, f"{setting} {guard.__name__}".lstrip(), check=check)
