"""The same results as PyTorch: outputs, gradients, and five steps of training."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from layer_helpers import plain_layers
from torch_peers import peer_of, their_name

from minidl import nn, optim

torch = pytest.importorskip("torch")
torch.set_num_threads(1)

CLOSE = {"rtol": 1e-10, "atol": 1e-12}


def tensor(x: np.ndarray) -> Any:
    return torch.tensor(x, requires_grad=x.dtype.kind == "f")


def assert_same_gradients(layer: nn.Layer, peer: Any) -> None:
    theirs = dict(peer.named_parameters())
    ours = {their_name(name): parameter.grad.T for name, parameter in layer.named_parameters()}
    assert ours.keys() == theirs.keys()
    for name, gradient in ours.items():  # transposed: their weights are (out, in)
        np.testing.assert_allclose(gradient, theirs[name].grad, **CLOSE, err_msg=name)


def net(*layers: nn.Layer) -> nn.Sequential:
    return nn.Sequential(*layers, rng=0).astype(np.float64)


NETS: dict[str, Callable[[], nn.Layer]] = {
    **{name: cls for name, cls in plain_layers().items() if peer_of(cls()) is not None},
    "Linear": lambda: nn.Linear(7, 5, rng=0, dtype=np.float64),
    "Linear without bias": lambda: nn.Linear(7, 1, bias=False, rng=0, dtype=np.float64),
    "BatchNorm": lambda: nn.BatchNorm(7, dtype=np.float64),
    "BatchNorm in evaluation": lambda: nn.BatchNorm(7, dtype=np.float64).eval(),
    "LeakyReLU": lambda: nn.LeakyReLU(0.2),
    "PReLU": lambda: nn.PReLU(dtype=np.float64),
    "PReLU by feature": lambda: nn.PReLU(7, dtype=np.float64),
    "ELU": lambda: nn.ELU(1.5),
    "CELU": lambda: nn.CELU(1.5),
    "GELU by tanh": lambda: nn.GELU("tanh"),
    "Softplus": lambda: nn.Softplus(2.0),
    "Flatten": nn.Flatten,
    "LayerNorm": lambda: nn.LayerNorm(7, dtype=np.float64),
    "RMSNorm": lambda: nn.RMSNorm(7, dtype=np.float64),
    "RMSNorm with epsilon": lambda: nn.RMSNorm(7, 0.1, dtype=np.float64),
    "pre-activation": lambda: net(
        nn.Linear(7, 10), nn.pre_activation(10, 6, nn.LayerNorm, nn.GELU), nn.PReLU(10)
    ),
    "Residual": lambda: nn.Residual(net(nn.Linear(7, 5), nn.Tanh()), net(nn.Linear(7, 5))),
    "MLP": lambda: net(nn.Linear(7, 45), nn.ReLU(), nn.Linear(45, 46), nn.Tanh(), nn.Linear(46, 5)),
    "deep": lambda: net(
        nn.Linear(7, 10, bias=False),  # a bias before BatchNorm has a gradient of nothing
        nn.BatchNorm(10),  # but rounding, which Adam would blow up
        nn.ReLU(),
        nn.Residual(nn.Sequential(nn.Linear(10, 10, bias=False), nn.BatchNorm(10), nn.Sigmoid())),
        nn.Residual(nn.Linear(10, 10)),
        nn.Linear(10, 5),
    ),
}
TRAINABLE = [
    "Linear",
    "BatchNorm",
    "LayerNorm",
    "RMSNorm",
    "pre-activation",
    "Residual",
    "MLP",
    "deep",
]


@pytest.mark.parametrize("name", NETS)
def test_outputs_and_gradients(backend: str, name: str) -> None:
    layer = NETS[name]()
    peer = peer_of(layer).train(layer.training)
    rng = np.random.default_rng(1)
    for _ in range(3):
        x = rng.normal(size=(13, 7))
        theirs = tensor(x)
        y, y_theirs = layer(x), peer(theirs)
        np.testing.assert_allclose(y, y_theirs.detach(), **CLOSE)
        dy = rng.normal(size=y.shape)
        y_theirs.backward(torch.tensor(dy))
        np.testing.assert_allclose(layer.backward(dy), theirs.grad, **CLOSE)
        assert_same_gradients(layer, peer)  # which both add up


@pytest.mark.parametrize("training", [True, False])
def test_batch_norm_of_sequences(backend: str, training: bool) -> None:
    """Over batch and time."""
    layer = nn.BatchNorm(7, dtype=np.float64)
    layer.gamma.data = np.linspace(0.5, 2, 7)
    layer.running_var[...] = np.linspace(1, 3, 7)
    peer = peer_of(layer).train(training)
    rng = np.random.default_rng(3)
    x, dy = rng.normal(2, 3, (4, 5, 7)), rng.normal(size=(4, 5, 7))
    theirs = tensor(x)
    y_theirs = peer(theirs)
    np.testing.assert_allclose(layer.train(training)(x), y_theirs.detach(), **CLOSE)
    y_theirs.backward(torch.tensor(dy))
    np.testing.assert_allclose(layer.backward(dy), theirs.grad, **CLOSE)
    assert_same_gradients(layer, peer)
    np.testing.assert_allclose(layer.running_var, peer.running_var, **CLOSE)


@pytest.mark.parametrize(
    "name", ["LayerNorm", "RMSNorm", "Softmax", "LogSoftmax", "GELU", "SiLU", "Flatten"]
)
def test_sequences(backend: str, name: str) -> None:
    layer = NETS[name]()
    peer = peer_of(layer)
    rng = np.random.default_rng(4)
    x = rng.normal(size=(3, 5, 7))
    theirs = tensor(x)
    y, y_theirs = layer(x), peer(theirs)
    np.testing.assert_allclose(y, y_theirs.detach(), **CLOSE)
    dy = rng.normal(size=y.shape)
    y_theirs.backward(torch.tensor(dy))
    np.testing.assert_allclose(layer.backward(dy), theirs.grad, **CLOSE)
    assert_same_gradients(layer, peer)


def test_running_statistics(backend: str) -> None:
    layer = nn.BatchNorm(7, momentum=0.3, dtype=np.float64)
    peer = peer_of(layer)
    for seed in range(4):
        x = np.random.default_rng(seed).normal(seed, 2, (5, 7))
        layer(x), peer(tensor(x))
    np.testing.assert_allclose(layer.running_mean, peer.running_mean, **CLOSE)
    np.testing.assert_allclose(layer.running_var, peer.running_var, **CLOSE)
    x = np.ones((1, 7))
    np.testing.assert_allclose(layer.eval()(x), peer.eval()(tensor(x)).detach(), **CLOSE)


def test_recurrent_cell(backend: str) -> None:
    cell = nn.RNNCell(3, 5, rng=0, dtype=np.float64)
    peer = peer_of(cell)
    rng = np.random.default_rng(0)
    x, start, dy = rng.normal(size=(4, 2, 3)), rng.normal(size=(2, 5)), rng.normal(size=(2, 5))
    x_theirs, start_theirs = tensor(x), tensor(start)
    h, h_theirs = start, start_theirs
    for t in range(4):
        h, h_theirs = cell(x[t], h), peer(x_theirs[t], h_theirs)
    np.testing.assert_allclose(h, h_theirs.detach(), **CLOSE)
    h_theirs.backward(torch.tensor(dy))
    for t in reversed(range(4)):
        dx, dy = cell.backward(dy)
        np.testing.assert_allclose(dx, x_theirs.grad[t], **CLOSE)
    np.testing.assert_allclose(dy, start_theirs.grad, **CLOSE)
    np.testing.assert_allclose(cell.input_weight.grad.T, peer.weight_ih.grad, **CLOSE)
    np.testing.assert_allclose(cell.recurrent_weight.grad.T, peer.weight_hh.grad, **CLOSE)
    np.testing.assert_allclose(cell.bias.grad, peer.bias_ih.grad, **CLOSE)


LOSSES: dict[str, tuple[type[nn.Loss], Any]] = {
    "cross entropy": (nn.CrossEntropyLoss, torch.nn.CrossEntropyLoss),
    "mean squared error": (nn.MSELoss, torch.nn.MSELoss),
    "binary cross entropy": (nn.BCEWithLogitsLoss, torch.nn.BCEWithLogitsLoss),
}


def target_for(loss: nn.Loss, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    if isinstance(loss, nn.CrossEntropyLoss):
        return rng.integers(shape[1], size=shape[0])
    return rng.uniform(size=shape)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("size", [1, 50])
def test_losses(backend: str, name: str, reduction: str, size: float) -> None:
    rng = np.random.default_rng(0)
    loss, peer = (cls(reduction=reduction) for cls in LOSSES[name])
    for shape in ((13, 10), (1, 1), (45, 46)):
        prediction = size * rng.normal(size=shape)
        target = target_for(loss, shape, rng)
        theirs = tensor(prediction)
        value = peer(theirs, torch.tensor(target))
        value.backward()
        np.testing.assert_allclose(loss(prediction, target), value.item(), **CLOSE)
        np.testing.assert_allclose(loss.backward(), theirs.grad, **CLOSE)


OPTIMIZERS: dict[str, tuple[type, dict[str, Any]]] = {
    "SGD": (optim.SGD, {"lr": 0.1}),
    "momentum": (optim.SGD, {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.01}),
    "Adam": (optim.Adam, {"lr": 0.01}),
    "Adam with decay": (optim.Adam, {"lr": 0.01, "betas": (0.8, 0.99), "weight_decay": 0.01}),
}


@pytest.mark.parametrize("name", TRAINABLE)
@pytest.mark.parametrize("loss_name", LOSSES)
@pytest.mark.parametrize("optimizer_name", OPTIMIZERS)
def test_five_steps_of_training(name: str, loss_name: str, optimizer_name: str) -> None:
    rng = np.random.default_rng(2)
    layer, (loss, peer_loss) = NETS[name](), (cls() for cls in LOSSES[loss_name])
    cls, options = OPTIMIZERS[optimizer_name]
    peer = peer_of(layer)
    peer_optimizer = getattr(torch.optim, cls.__name__)(peer.parameters(), **options)
    optimizer = cls(layer.parameters(), **options)
    for _ in range(5):
        x = rng.normal(size=(16, 7))
        prediction = layer(x)
        target = target_for(loss, prediction.shape, rng)
        value = loss(prediction, target)
        optimizer.zero_grad()
        layer.backward(loss.backward())
        optimizer.step()

        peer_optimizer.zero_grad()
        peer_value = peer_loss(peer(tensor(x)), torch.tensor(target))
        peer_value.backward()
        peer_optimizer.step()
        assert float(value) == pytest.approx(peer_value.item(), rel=1e-6)
    for ours, theirs in zip(layer.parameters(), peer.parameters(), strict=True):
        np.testing.assert_allclose(ours.data.T, theirs.detach(), rtol=0, atol=1e-6)
