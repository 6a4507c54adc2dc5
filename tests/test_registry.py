"""Whatever is registered keeps its promises: layers, losses, optimizers, schedules.

A new one is found by itself, from its ``examples()``. Where each property is proven:

==========================================  =======================================================
finite differences, on every backend        here; test_layers.py (random shapes); `minidl check`
formulas in NumPy (oracles.py)              here
twin = kernel                               here, layer by layer; test_kernels.py, kernel by kernel
recorded = eager                            here, one by one; test_recording.py (whole models),
                                            test_fuzz.py (random stacks)
PyTorch: forward, gradients, ten steps      here; test_torch.py, test_losses.py, test_optimizers.py,
                                            test_schedules.py, test_fuzz.py
train and eval                              here; test_remedies.py
save, load, copies                          here; test_saving.py, test_copies.py
repr, docstring, its example                here; test_architecture.py
bad input                                   here; test_bad_input.py, test_training_input.py
weight 0, NaN, infinity, huge gradients     here; test_limits.py
the checks themselves                       test_planted_faults.py, test_gradcheck.py
==========================================  =======================================================

What has no counterpart in PyTorch, or no formula in oracles.py, is skipped, and said so.
"""

from __future__ import annotations

import copy
import inspect
import pickle
from typing import Any

import numpy as np
import pytest
from checks import (
    LAYER_CHECKS,
    LOSS_CHECKS,
    NoOracleError,
    as_list,
    assert_close,
    gradients,
    layer_problems,
    loss_gradients,
    loss_problems,
    loss_weights,
)
from optimizer_checks import (
    LIMITS,
    OPTIMIZER_CHECKS,
    Settings,
    advance,
    built,
    optimizer_limits,
    plateau_oracle,
    schedule_oracle,
)
from torch_peers import peer_of, peer_of_loss, peer_of_optimizer, their_name

from minidl import nn, optim
from minidl.optim import schedules

OPTIMIZERS = [(cls, settings) for cls in optim.Optimizer.registry for settings in cls.examples()]


def ours(classes: list[Any]) -> list[Any]:
    """Those of minidl itself, and not what another test has registered."""
    return [cls for cls in classes if cls.__module__.startswith("minidl.")]


def name_of(value: Any) -> str | None:
    return getattr(value, "__name__", None)


every_layer = pytest.mark.parametrize("cls", ours(nn.Layer.registry), ids=name_of)
every_loss = pytest.mark.parametrize("cls", ours(nn.Loss.registry), ids=name_of)
every_optimizer = pytest.mark.parametrize(("cls", "settings"), OPTIMIZERS, ids=name_of)


# --- the checks ---------------------------------------------------------------------------------


@every_layer
@pytest.mark.parametrize("check", LAYER_CHECKS.values(), ids=LAYER_CHECKS)
def test_layer(cls: type[nn.Layer], check: Any) -> None:
    try:
        for layer, inputs in layer_problems(cls):
            check(layer, inputs)
    except NoOracleError as missing:
        pytest.skip(f"oracles.py has no {missing}")


@every_layer
def test_gradients_of_layers(backend: str, cls: type[nn.Layer]) -> None:
    for layer, inputs in layer_problems(cls, seeds=1):
        gradients(layer, inputs)


@every_loss
@pytest.mark.parametrize("check", LOSS_CHECKS.values(), ids=LOSS_CHECKS)
def test_loss(cls: type[nn.Loss], check: Any) -> None:
    try:
        for problem in loss_problems(cls):
            check(problem)
    except NoOracleError as missing:
        pytest.skip(f"oracles.py has no {missing}")


@every_loss
def test_gradients_of_losses(backend: str, cls: type[nn.Loss]) -> None:
    for problem in loss_problems(cls, seeds=2):
        loss_gradients(problem)


@every_loss
def test_what_weights_of_losses_mean(backend: str, cls: type[nn.Loss]) -> None:
    for problem in loss_problems(cls, seeds=2):
        loss_weights(problem)


@every_loss
def test_loss_can_be_pickled(cls: type[nn.Loss]) -> None:
    for loss, prediction, target, _ in loss_problems(cls, seeds=1):
        other = pickle.loads(pickle.dumps(loss))
        assert repr(other) == repr(loss)
        np.testing.assert_array_equal(other(prediction, target), loss(prediction, target))


@every_optimizer
@pytest.mark.parametrize("limits", LIMITS, ids=["free", "clipped"])
@pytest.mark.parametrize("check", OPTIMIZER_CHECKS.values(), ids=OPTIMIZER_CHECKS)
def test_optimizer(
    cls: type[optim.Optimizer], settings: Settings, limits: Settings, check: Any
) -> None:
    try:
        check(cls, settings | limits)
    except NoOracleError as missing:
        pytest.skip(f"oracles.py has no {missing}")


@every_optimizer
@pytest.mark.parametrize("limits", LIMITS, ids=["free", "clipped"])
def test_huge_gradients(
    backend: str, cls: type[optim.Optimizer], settings: Settings, limits: Settings
) -> None:
    try:
        optimizer_limits(cls, settings | limits)
    except NoOracleError as missing:
        pytest.skip(f"oracles.py has no {missing}")


@pytest.mark.parametrize("schedule", schedules.EXAMPLES, ids=repr)
def test_schedule(schedule: schedules.Schedule) -> None:
    try:
        schedule_oracle(schedule, vars(schedules))
    except NoOracleError as missing:
        pytest.skip(f"oracles.py has no {missing}")


@pytest.mark.parametrize("mode", ["min", "max"])
@pytest.mark.parametrize(
    "settings", [{}, {"patience": 2, "cooldown": 3}, {"factor": 0.5, "smallest": 0.01}]
)
def test_plateau(mode: str, settings: Settings) -> None:
    plateau_oracle(schedules.ReduceOnPlateau, mode=mode, **{"patience": 4, **settings})


# --- docstrings -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "thing",
    [
        *(ours(nn.Layer.registry) + ours(nn.Loss.registry) + ours(optim.Optimizer.registry)),
        *(getattr(schedules, name) for name in {s.name: None for s in schedules.EXAMPLES}),
    ],
    ids=name_of,
)
def test_documented_with_formula_and_example(thing: Any) -> None:
    text = inspect.getdoc(thing)
    assert text is not None
    assert "Examples\n--------\n>>> " in text  # test_architecture.py runs it
    assert any(sign in text.split("Examples")[0] for sign in "=·←→")


# --- PyTorch --------------------------------------------------------------------------------------


@every_layer
def test_layer_is_that_of_pytorch(cls: type[nn.Layer]) -> None:
    torch = pytest.importorskip("torch")
    compared = 0
    for layer, inputs in layer_problems(cls):
        peer = peer_of(layer)
        if peer is None:
            continue
        compared += 1
        theirs = [torch.tensor(x, requires_grad=x.dtype.kind == "f") for x in inputs]
        outputs, their_outputs = as_list(layer(*inputs)), as_list(peer(*theirs))
        assert_close(outputs, [y.detach().numpy() for y in their_outputs], "forward")
        dys = [np.cos(y) for y in outputs]
        torch.autograd.backward(their_outputs, [torch.tensor(dy) for dy in dys])
        gradients = as_list(layer.backward(*dys))
        if theirs[0].requires_grad:  # indices have no gradient
            assert_close(gradients, [x.grad.numpy() for x in theirs], "gradients of inputs")
        named = {n: p for n, p in peer.named_parameters() if p.requires_grad}
        assert len(named) == len(layer.parameters())
        for name, parameter in layer.named_parameters():
            (gradient,) = [p.grad for n, p in named.items() if matches(name, n)]
            assert_close([parameter.grad.T], [gradient.numpy()], name)
        for name, buffer in peer.named_buffers():
            if name in layer.state():
                assert_close([layer.state()[name]], [buffer.numpy()], name)
    if not compared:
        skip_without_peer(torch.nn, cls.__name__)


def skip_without_peer(theirs: Any, name: str) -> None:
    """Nothing to compare with; but what PyTorch has must be in torch_peers.py."""
    assert not hasattr(theirs, name), f"torch_peers.py lacks {name}, which PyTorch has"
    pytest.skip(f"PyTorch has no {name}")


def matches(name: str, theirs: str) -> bool:
    return theirs in (their_name(name), f"{their_name(name)}_ih")


@every_loss
def test_loss_is_that_of_pytorch(cls: type[nn.Loss]) -> None:
    torch = pytest.importorskip("torch")
    for loss, prediction, target, _ in loss_problems(cls):
        peer = peer_of_loss(loss)
        if peer is None:
            skip_without_peer(torch.nn, cls.__name__)
        z = torch.tensor(prediction, requires_grad=True)
        classes_second = z.movedim(-1, 1) if loss.takes_labels else z
        value = peer(classes_second, torch.tensor(target))
        value.sum().backward()
        np.testing.assert_allclose(loss(prediction, target), value.detach(), rtol=1e-10)
        np.testing.assert_allclose(loss.backward(), z.grad, rtol=1e-9, atol=1e-12)


@every_optimizer
def test_ten_steps_are_those_of_pytorch(cls: type[optim.Optimizer], settings: Settings) -> None:
    torch = pytest.importorskip("torch")
    if peer_of_optimizer(cls) is None:
        skip_without_peer(torch.optim, cls.__name__)
    optimizer, own = built(cls, settings)
    theirs = [torch.nn.Parameter(torch.tensor(parameter.data)) for parameter in own]
    last = {"params": theirs[2:], "lr": 0.02, "weight_decay": 0.05}
    peer = peer_of_optimizer(cls)([{"params": theirs[:2]}, last], **settings)
    for seed in range(10):
        advance(optimizer, own, 1, seed)
        for parameter, tensor in zip(own, theirs, strict=True):
            tensor.grad = torch.tensor(parameter.grad)
        peer.step()
    found = [parameter.data for parameter in own]
    assert_close(found, [t.detach().numpy() for t in theirs], "steps", rtol=1e-7, atol=1e-9)


# --- a new layer ----------------------------------------------------------------------------------


def test_a_new_layer_is_found_and_checked() -> None:
    registered = list(nn.Layer.registry)
    try:

        class Cubed(nn.Layer):
            """y = x³, through kernels that exist."""

            def forward(self, x: np.ndarray) -> np.ndarray:  # type: ignore[override]
                self.save(x)
                return x**3

            def backward(self, dy: np.ndarray) -> np.ndarray:
                return 3 * self.saved(dy) ** 2 * dy

            @classmethod
            def examples(cls) -> Any:
                yield cls(), ((3, 2),)

        assert nn.Layer.registry[-1] is Cubed
        for layer, inputs in layer_problems(Cubed):
            LAYER_CHECKS["gradients"](layer, inputs)
            with pytest.raises(NoOracleError, match="Cubed"):
                LAYER_CHECKS["oracle"](copy.deepcopy(layer), inputs)
    finally:
        nn.Layer.registry[:] = registered
