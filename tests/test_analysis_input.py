"""What the tools of analysis say of arguments that they cannot use."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from minidl import analysis, nn, optim

X = np.random.default_rng(0).normal(size=(40, 3))
Y = (X[:, 0] > 0).astype(int)
PARAMETERS = 26


def network() -> nn.Sequential:
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2), rng=0)


def product(model: Any, loss: Any, x: Any, y: Any) -> Any:
    return analysis.hessian_vector_product(model, loss, x, y, np.ones(PARAMETERS))


def traced(model: Any, loss: Any, x: Any, y: Any) -> Any:
    return analysis.trace(model, x, loss, y)


OF_A_LOSS = [
    *(product, traced, analysis.largest_curvature, analysis.sharpest_direction),
    *(analysis.learning_rate_range, analysis.loss_slice),
]
OF_A_MODEL = [
    *OF_A_LOSS,
    lambda model, loss, x, y: analysis.trace(model, x),
    lambda model, loss, x, y: analysis.jacobian(model, x),
]


def refused(call: Callable[..., Any], kind: type[Exception], message: str, **wrong: Any) -> None:
    given = {"model": network(), "loss": nn.CrossEntropyLoss(), "x": X, "y": Y} | wrong
    with pytest.raises(kind, match=message) as caught:
        call(*given.values())
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("call", OF_A_MODEL)
@pytest.mark.parametrize(
    ("model", "got"),
    [
        (3, "an instance of int"),
        (None, "an instance of NoneType"),
        ("mlp", "'mlp'"),
        (nn.Linear, "the class Linear itself"),
        (nn.MSELoss(), "an instance of MSELoss"),
    ],
)
def test_what_is_no_model(call: Callable[..., Any], model: Any, got: str) -> None:
    refused(call, TypeError, rf"model must be a layer such as .*, got {got}", model=model)


@pytest.mark.parametrize("call", OF_A_LOSS)
@pytest.mark.parametrize(
    ("loss", "got"), [("mse", "'mse'"), (nn.MSELoss, "the class MSELoss itself"), (np.mean, "")]
)
def test_what_is_no_loss(call: Callable[..., Any], loss: Any, got: str) -> None:
    refused(call, TypeError, f"loss must be a loss such as .*, got {got}", loss=loss)


@pytest.mark.parametrize("call", OF_A_MODEL)
@pytest.mark.parametrize(
    ("x", "kind", "message"),
    [
        (None, ValueError, "x must be an array or a list of rows, got None"),
        (3.0, ValueError, r"x must be an array or a list of rows, got 3\.0"),
        (X[:0], ValueError, r"x is empty: shape \(0, 3\)"),
        ((), ValueError, "x is an empty tuple"),
        ((X, X, X, X), TypeError, "x is a tuple of 4, the model takes 1 at most"),
        ([["a", "b", "c"]] * 40, TypeError, r"x: expected real numbers, got dtype <U1; write x\."),
        (X + 1j, TypeError, "x: expected real numbers, got dtype complex128"),
        ([[1.0, 2.0, 3.0], [1.0]], ValueError, "x: its rows differ in shape"),
        (X[:, :2], ValueError, r"expected input of shape \(batch, ..., 3\)"),
    ],
)
def test_what_is_no_input(
    call: Callable[..., Any], x: Any, kind: type[Exception], message: str
) -> None:
    model = nn.Linear(3, 2, rng=0) if isinstance(x, tuple) else network()
    refused(call, kind, message, model=model, x=x)


@pytest.mark.parametrize("call", OF_A_LOSS)
@pytest.mark.parametrize(
    ("y", "kind", "message"),
    [
        (Y[:5], ValueError, "x has 40 rows, y has 5"),
        (np.tile(Y, 2), ValueError, "x has 40 rows, y has 80"),
        ((Y, np.ones(3)), ValueError, r"x has 40 rows, y\[1\] has 3"),
        ((), ValueError, "y is a tuple of 0"),
        ((Y, Y, Y), ValueError, "y is a tuple of 3"),
        (1, ValueError, "y must be an array or a list of rows, got 1"),
        ((Y, ["a"] * 40), TypeError, r"y\[1\]: expected real numbers, got dtype <U1"),
        (["a"] * 40, ValueError, "labels must be integers"),
        (Y + 5, ValueError, "outside the 2 classes"),
    ],
)
def test_what_is_no_target(
    call: Callable[..., Any], y: Any, kind: type[Exception], message: str
) -> None:
    refused(call, kind, message, y=y)


@pytest.mark.parametrize("call", [*OF_A_LOSS, OF_A_MODEL[-1]])
def test_numbers_that_are_not_finite(call: Callable[..., Any]) -> None:
    """A trace shows where NaN comes from; whatever is computed from it would say nothing."""
    if call is traced:
        assert np.isnan(traced(network(), nn.CrossEntropyLoss(), X * np.nan, Y).loss)
        return
    refused(
        call,
        ValueError,
        "not finite|nan before any step|the loss of the model is nan",
        x=X * np.nan,
    )


@pytest.mark.parametrize("call", OF_A_LOSS)
def test_a_model_without_parameters(call: Callable[..., Any]) -> None:
    if call is traced:
        return  # has the gradient of the input
    arguments = {"model": nn.Tanh(), "loss": nn.MSELoss(), "x": X, "y": X}
    refused(call, ValueError, r"Tanh\(\) has no parameters that are not frozen", **arguments)


@pytest.mark.parametrize(
    ("optimizer", "kind", "message"),
    [
        ("adam", TypeError, "optim.Adam that makes one of parameters, got 'adam'"),
        (nn.Tanh, TypeError, "got <class 'minidl.nn.activations.Tanh'>"),
        (None, TypeError, "got None"),
        (lambda parameters: 3, TypeError, "makes must be an optimizer, got an instance of int"),
        (optim.SGD(network().parameters()), ValueError, "parameters that are not the model's"),
        (lambda _: optim.SGD(network().parameters()), ValueError, "that are not the model's"),
    ],
)
def test_what_is_no_optimizer(optimizer: Any, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        analysis.learning_rate_range(network(), nn.CrossEntropyLoss(), X, Y, optimizer=optimizer)


@pytest.mark.parametrize(
    ("directions", "kind", "message"),
    [
        ("ab", TypeError, "directions must be a whole number, got 'ab'"),
        (True, TypeError, "directions must be a whole number, got True"),
        (0, ValueError, "directions must be >= 1, got 0"),
        (np.ones(PARAMETERS), ValueError, rf"{PARAMETERS} numbers, got shapes \[.*\] and more"),
        ([np.full(PARAMETERS, np.nan)], ValueError, "directions is not finite"),
        ([["a"] * PARAMETERS], TypeError, "expected real numbers, got dtype <U1"),
        ([None], TypeError, "expected real numbers, got dtype object"),
    ],
)
def test_what_is_no_direction(directions: Any, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        analysis.loss_slice(network(), nn.CrossEntropyLoss(), X, Y, directions=directions)


@pytest.mark.parametrize(
    ("dy", "kind", "message"),
    [
        ("a", TypeError, "dy: expected real numbers"),
        (1.0, ValueError, r"dy must have the shape of the output, \(40, 2\), got \(\)"),
        (np.ones((2, 40)), ValueError, r"\(40, 2\), got \(2, 40\)"),
    ],
)
def test_what_is_no_gradient(dy: Any, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        analysis.trace(network(), X, dy=dy)


@pytest.mark.parametrize(
    ("activation", "kind", "message"),
    [
        (nn.Tanh, TypeError, "kappa: expected a layer, a name or a function, got the class Tanh"),
        (nn.Linear, TypeError, "got the class Linear"),
        (None, TypeError, "got None"),
        ("tahn", ValueError, "kappa: no activation is called 'tahn'; known: .*tanh"),
        (nn.Dropout(0.5), ValueError, r"depend on one input each, got Dropout\(0.5\)"),
        (nn.Linear(1, 1), ValueError, r"depend on one input each, got Linear\(1, 1\)"),
        (nn.Linear(3, 2), ValueError, r"depend on one input each, got Linear\(3, 2\)"),
        (nn.BatchNorm(1), ValueError, r"depend on one input each, got BatchNorm\(1\)"),
        (nn.Softmax(), ValueError, r"depend on one input each, got Softmax\(\)"),
        (nn.LSTM(1, 1), ValueError, r"depend on one input each, got LSTM\(1, 1\)"),
        (nn.Embedding(3, 1), ValueError, r"depend on one input each, got Embedding\(3, 1\)"),
        (network(), ValueError, "depend on one input each, got Sequential"),
        (nn.MSELoss(), TypeError, "is no function of an array"),
        (len, ValueError, r"a real number for each of 20000, got int64 of shape \(\)"),
        (lambda z: z + 1j, ValueError, "got complex128"),
        (lambda z: 0 * z, ValueError, "derivative of .* is zero"),
    ],
)
def test_what_is_no_activation(activation: Any, kind: type[Exception], message: str) -> None:
    for call in (analysis.kappa, analysis.mean_squares):
        with pytest.raises(kind, match=message) as caught:
            call(activation)
        assert "\n" not in str(caught.value)


def test_layers_that_act_on_each_number_are_activations() -> None:
    assert analysis.kappa(nn.Dropout(0.5).eval()) == pytest.approx(1)
    assert analysis.kappa(nn.PReLU()) == analysis.kappa(nn.LeakyReLU(0.25))
    twice = nn.Sequential(nn.Tanh(), nn.Tanh())
    assert analysis.kappa(twice) == pytest.approx(
        analysis.kappa(lambda z: np.tanh(np.tanh(z))), rel=1e-6
    )


def test_a_jacobian_has_one_output() -> None:
    class Both(nn.Layer):
        """y = x, x."""

        def forward(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            return x, x

    with pytest.raises(TypeError, match=r"jacobian: Both\(\) returns 2 arrays; one is needed"):
        analysis.jacobian(Both(), X)


def test_the_range_test_computes_its_mean_once_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """Linear in its steps: no step goes over the losses of all before it."""
    lengths: list[int] = []
    original = analysis.rate_range.running_mean
    monkeypatch.setattr(
        analysis.rate_range, "running_mean", lambda v: lengths.append(len(v)) or original(v)
    )
    found = analysis.learning_rate_range(network(), nn.CrossEntropyLoss(), X, Y, steps=50)
    assert not lengths
    assert len(found.rates) == 50
