"""Recurrent layers: every gradient, lengths, the state that goes on, bad input, and how training
diverges and is mended.

The same against PyTorch is in test_recurrent_torch.py; cells alone are in test_layers.py too.
"""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import pytest
from layer_helpers import as_tuple
from training_helpers import compiled

import minidl
from minidl import datasets, nn, optim

F32 = np.float32
KINDS: dict[str, Any] = {
    "RNN": nn.RNN,
    "relu": lambda *widths, **options: nn.RNN(*widths, nonlinearity="relu", **options),
    "LSTM": nn.LSTM,
    "GRU": nn.GRU,
}
every_kind = pytest.mark.parametrize("kind", KINDS)
LENGTHS = np.array([5, 1, 3])


def make(kind: str, *widths: int, dtype: Any = np.float64, **options: Any) -> Any:
    """A layer whose biases are not zero."""
    layer = KINDS[kind](*widths, rng=0, dtype=dtype, **options)
    rng = np.random.default_rng(1)
    for name, parameter in layer.named_parameters():
        if "bias" in name:
            parameter.data = rng.normal(size=parameter.shape)
    return layer


def normal(*shape: int, seed: int = 2, dtype: Any = np.float64) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


class WithLengths(nn.Layer):
    """A recurrent layer as one of arrays alone."""

    def __init__(self, layer: Any, lengths: np.ndarray) -> None:
        self.layer, self.lengths = layer, lengths

    def check_input(self, *inputs: np.ndarray) -> None:
        """The layer checks."""

    def forward(self, *inputs: np.ndarray) -> Any:
        return self.layer(*inputs, lengths=self.lengths)

    def backward(self, *dy: np.ndarray) -> Any:
        return self.layer.backward(*dy)


# --- gradients --------------------------------------------------------------------------


OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "two layers": {"num_layers": 2},
    "bidirectional": {"bidirectional": True},
    "two layers, bidirectional": {"num_layers": 2, "bidirectional": True},
    "last, bidirectional": {"return_sequences": False, "num_layers": 2, "bidirectional": True},
    "last": {"return_sequences": False},
}


@every_kind
@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("with_lengths", [False, True])
def test_gradients(backend: str, kind: str, name: str, with_lengths: bool) -> None:
    layer = make(kind, 3, 2, **OPTIONS[name])
    state = [normal(3, 2, seed=i) for i in range(layer.state_size)]
    subject = WithLengths(layer, LENGTHS) if with_lengths else layer
    report = minidl.gradcheck(subject, normal(3, 5, 3), *state)
    assert report.worst <= 1e-6
    names = {name for name in report.tensors if "weight" in name}
    assert len(names) == 2 * len(layer.cells)


def test_gradients_through_dropout_between_layers(backend: str) -> None:
    layer = make("GRU", 3, 4, num_layers=3, dropout=0.5)
    assert minidl.gradcheck(layer, normal(2, 4, 3)).worst <= 1e-6
    dropped, whole = layer(normal(2, 4, 3)), layer.eval()(normal(2, 4, 3))
    assert not np.array_equal(dropped, whole)


@every_kind
def test_state_without_gradient_is_a_gradient_of_zero(backend: str, kind: str) -> None:
    layer = make(kind, 3, 4, num_layers=2)
    x, state = normal(2, 5, 3), layer.zero_state(2)
    outputs = layer(x, *state)
    dy = normal(2, 5, 4, seed=5)
    cut = layer.backward(dy)
    layer(x, *state)
    zeros = layer.backward(dy, *(np.zeros_like(h) for h in outputs[1:]))
    for a, b in zip(cut, zeros, strict=True):
        np.testing.assert_array_equal(a, b)


# --- the layer is the cell, step after step ------------------------------------------------


@every_kind
def test_layer_is_the_cell_step_after_step(backend: str, kind: str) -> None:
    layer = make(kind, 3, 4)
    (cell,) = layer.cells
    x, dy = normal(2, 6, 3), normal(2, 6, 4, seed=5)
    state = [normal(2, 4, seed=i) for i in range(layer.state_size)]
    dstate = [normal(2, 4, seed=7 + i) for i in range(layer.state_size)]
    y, *end = layer(x, *state)
    dx, *dbegin = layer.backward(dy, *dstate)
    of_layer = [parameter.grad.copy() for parameter in layer.parameters()]
    layer.zero_grad()
    outputs, h = [], state
    for t in range(6):
        h = list(as_tuple(cell(x[:, t], *h)))
        outputs.append(h[0])
    expected_dx = np.empty_like(x)
    for t in reversed(range(6)):
        dx_t, *dstate = cell.backward(dstate[0] + dy[:, t], *dstate[1:])
        expected_dx[:, t] = dx_t
    close = {"rtol": 1e-12, "atol": 1e-13}
    np.testing.assert_allclose(y, np.stack(outputs, axis=1), **close)
    np.testing.assert_allclose(dx, expected_dx, **close)
    for a, b in zip([*end, *dbegin, *of_layer], [*h, *dstate, *grads(layer)], strict=True):
        np.testing.assert_allclose(a, b, **close)


def grads(layer: nn.Layer) -> list[np.ndarray]:
    return [parameter.grad for parameter in layer.parameters()]


@pytest.mark.parametrize(("cls", "gates"), [(nn.RNNCell, 1), (nn.LSTMCell, 4), (nn.GRUCell, 3)])
def test_recurrent_weights_begin_orthogonal_gate_by_gate(cls: Any, gates: int) -> None:
    weight = cls(3, 6, rng=0, dtype=np.float64).recurrent_weight.data
    for block in np.split(weight, gates, axis=1):
        np.testing.assert_allclose(block.T @ block, np.eye(6), atol=1e-12)
    blocks = np.split(weight, gates, axis=1)
    assert all(not np.allclose(blocks[0], other) for other in blocks[1:])


def test_forget_gate_begins_open() -> None:
    assert nn.LSTMCell(2, 3).bias.data.tolist() == [0] * 3 + [1] * 3 + [0] * 6
    assert nn.LSTM(2, 3, forget_bias=2.5).cells[0].bias.data[3:6].tolist() == [2.5] * 3


# --- lengths ----------------------------------------------------------------------------


@every_kind
@pytest.mark.parametrize("options", [{}, {"num_layers": 2}, {"num_layers": 2, "bidirectional": 1}])
def test_a_sequence_in_a_batch_is_the_sequence_alone(
    backend: str, kind: str, options: dict[str, Any]
) -> None:
    layer = make(kind, 3, 4, **options)
    x = normal(3, 5, 3)
    state = [normal(3, 4, seed=i) for i in range(layer.state_size)]
    dstate = [normal(3, 4, seed=9 + i) for i in range(layer.state_size)]
    for row, length in enumerate(LENGTHS):
        x[row, length:] = np.nan  # whatever is beyond, nobody looks at it
    y, *end = layer(x, *state, lengths=LENGTHS)
    dy = normal(*y.shape, seed=5)
    dx, *dbegin = layer.backward(dy, *dstate)
    together = [gradient.copy() for gradient in grads(layer)]
    norms = layer.state_gradient_norms()
    layer.zero_grad()
    squares = np.zeros(5)
    for row, length in enumerate(LENGTHS):
        one = slice(row, row + 1)
        y_1, *end_1 = layer(x[one, :length], *(h[one] for h in state))
        dx_1, *dbegin_1 = layer.backward(dy[one, :length], *(dh[one] for dh in dstate))
        squares[:length] += layer.state_gradient_norms() ** 2
        for whole, part in ((y, y_1), (dx, dx_1)):
            np.testing.assert_allclose(whole[one, :length], part, rtol=1e-11, atol=1e-13)
            assert not whole[row, length:].any()
        for whole, part in zip([*end, *dbegin], [*end_1, *dbegin_1], strict=True):
            np.testing.assert_allclose(whole[one], part, rtol=1e-11, atol=1e-13)
    np.testing.assert_allclose(norms, np.sqrt(squares), rtol=1e-11)
    for a, b in zip(together, grads(layer), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12)


@every_kind
def test_full_lengths_are_no_lengths(backend: str, kind: str) -> None:
    layer, x = make(kind, 3, 4, bidirectional=True), normal(3, 5, 3)
    full = np.full(3, 5)
    np.testing.assert_array_equal(layer(x, lengths=full), layer(x))


@every_kind
def test_the_last_output_is_that_at_the_length(backend: str, kind: str) -> None:
    layer = make(kind, 3, 4, bidirectional=True)
    last = make(kind, 3, 4, bidirectional=True, return_sequences=False)
    x = normal(3, 5, 3)
    y, z = layer(x, lengths=LENGTHS), last(x, lengths=LENGTHS)
    np.testing.assert_allclose(z[:, :4], y[np.arange(3), LENGTHS - 1, :4], rtol=1e-13)
    np.testing.assert_allclose(z[:, 4:], y[:, 0, 4:], rtol=1e-13)


# --- the state that goes on -----------------------------------------------------------------


@every_kind
@pytest.mark.parametrize("num_layers", [1, 2])
def test_chunks_are_the_unbroken_sequence(backend: str, kind: str, num_layers: int) -> None:
    layer = make(kind, 3, 4, num_layers=num_layers, dtype=np.float32)
    x = normal(8, 12, 3, dtype=np.float32)
    whole = layer(x)
    state, parts = layer.zero_state(8), []
    for begin in range(0, 12, 4):
        y, *state = layer(x[:, begin : begin + 4], *state)
        parts.append(y)
    np.testing.assert_array_equal(np.concatenate(parts, axis=1), whole)
    carrying = make(kind, 3, 4, num_layers=num_layers, dtype=np.float32, stateful=8)
    for _ in range(2):
        parts = [carrying(x[:, begin : begin + 4]) for begin in range(0, 12, 4)]
        np.testing.assert_array_equal(np.concatenate(parts, axis=1), whole)
        carrying.reset_state()


def test_gradients_of_chunks_add_up_if_that_of_the_state_is_handed_on(backend: str) -> None:
    layer, x, dy = make("LSTM", 3, 4), normal(2, 6, 3), normal(2, 6, 4, seed=5)
    layer(x)
    expected_dx = layer.backward(dy)
    expected = [gradient.copy() for gradient in grads(layer)]
    layer.zero_grad()
    _, *middle = layer(x[:, :3], *layer.zero_state(2))
    layer(x[:, 3:], *middle)
    second, *dmiddle = layer.backward(dy[:, 3:], *map(np.zeros_like, middle))
    layer(x[:, :3], *layer.zero_state(2))
    first, *_ = layer.backward(dy[:, :3], *dmiddle)
    np.testing.assert_allclose(np.concatenate([first, second], axis=1), expected_dx, rtol=1e-10)
    for a, b in zip(grads(layer), expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)


def test_a_stateful_layer_in_evaluation_begins_with_zero_and_keeps_its_place(backend: str) -> None:
    layer, x = make("GRU", 3, 4, stateful=2), normal(2, 5, 3)
    first = layer(x)
    carried = layer.carried.copy()
    assert carried.any()
    assert minidl.gradcheck(layer, x).worst <= 1e-6  # from where it is
    np.testing.assert_array_equal(layer.carried, carried)
    layer.eval()
    np.testing.assert_array_equal(layer(x), first)
    layer(normal(7, 5, 3))  # of any batch
    np.testing.assert_array_equal(layer.carried, carried)
    layer.train()
    assert not np.array_equal(layer(x), first)
    y, *_ = layer(x, *layer.zero_state(2))  # a state that is given comes first
    np.testing.assert_array_equal(y, first)


def test_what_is_carried_is_exact_even_after_what_is_not_finite(backend: str) -> None:
    layer = make("relu", 1, 1, stateful=1)
    layer.carried[...] = np.inf
    with np.errstate(invalid="ignore"):
        layer(np.full((1, 1, 1), np.nan))
    layer.reset_state()
    assert np.isfinite(layer(np.ones((1, 1, 1)))).all()
    layer.carried[...] = 1e30
    layer(np.full((1, 1, 1), 0.1), *layer.zero_state(1))
    layer.reset_state()
    y = layer(np.full((1, 1, 1), 0.1))
    assert layer.carried[0, 0, 0] == y[0, 0, 0]


def test_the_state_is_converted_saved_and_started_afresh() -> None:
    layer = nn.GRU(3, 4, stateful=2, rng=0).astype(np.float64)
    layer(normal(2, 5, 3))
    assert layer.carried.dtype == np.float64
    model = nn.Sequential(nn.LSTM(3, 4, stateful=2, rng=0))
    assert list(model.state()) == ["0.carried"]
    assert model.state()["0.carried"].shape == (2, 2, 4)
    model(normal(2, 5, 3, dtype=np.float32))
    assert model[0].carried.any()
    model.reset(1)
    assert not model[0].carried.any()
    assert nn.Sequential(nn.LSTM(3, 4)).state() == {}


# --- how far back the gradient is felt ------------------------------------------------------


def test_state_gradient_norms(backend: str) -> None:
    layer = make("RNN", 2, 3, num_layers=2, bidirectional=True)
    with pytest.raises(RuntimeError, match=r"RNN\(2, 3.*without a backward"):
        layer.state_gradient_norms()
    x, step = normal(4, 6, 2), 2
    dy = normal(*layer(x).shape, seed=4)
    layer.backward(dy)
    assert layer.state_gradient_norms(0, reverse=True).shape == (6,)
    # The state after a step, as the initial state of what follows: its gradient is what is meant.
    single = make("GRU", 2, 3)
    single(x)
    dy = normal(4, 6, 3, seed=4)
    single.backward(dy)
    norms = single.state_gradient_norms()
    _, h = single(x[:, :step], *single.zero_state(4))
    single(x[:, step:], h)
    _, dh = single.backward(dy[:, step:])
    expected = np.linalg.norm(dh + dy[:, step - 1])
    assert norms[step - 1] == pytest.approx(expected, rel=1e-12)
    with pytest.raises(ValueError, match="reverse"):
        single.state_gradient_norms(reverse=True)


@pytest.mark.parametrize("scale", [1.0, 0.8, 1.25])
def test_the_gradient_keeps_its_norm_vanishes_or_explodes(backend: str, scale: float) -> None:
    """Where the slope of tanh is one, an orthogonal W_h keeps it; times s, T steps make it s^T."""
    layer = nn.RNN(1, 8, rng=0, dtype=np.float64)
    (cell,) = layer.cells
    cell.recurrent_weight.data = scale * cell.recurrent_weight.data
    dy = np.zeros_like(layer(np.zeros((1, 30, 1))))
    dy[:, -1] = 1
    layer.backward(dy)
    norms = layer.state_gradient_norms()
    np.testing.assert_allclose(norms, norms[-1] * scale ** np.arange(29, -1, -1), rtol=1e-10)


# --- bad input --------------------------------------------------------------------------

X = np.zeros((3, 5, 2), np.float32)
BAD_CALLS: dict[str, tuple[Any, dict[str, Any], type[Exception], tuple[str, ...]]] = {
    "features": ((X[:, :, :1],), {}, ValueError, ("2)", "(3, 5, 1)")),
    "two dimensions": ((X[0],), {}, ValueError, ("(batch, time, 2)", "(5, 2)")),
    "no time": ((X[:, :0],), {}, ValueError, ("empty", "(3, 0, 2)")),
    "no batch": ((X[:0],), {}, ValueError, ("empty", "(0, 5, 2)")),
    "float64": ((X.astype(float),), {}, TypeError, ("float32", "float64", ".astype")),
    "integers": ((X.astype(int),), {}, TypeError, ("float32", "int64")),
    "a list": ((X.tolist(),), {}, TypeError, ("NumPy array", "list")),
    "state of one array": ((X, X[:, 0]), {}, TypeError, ("2 arrays", "got 1")),
    "width of the state": ((X, *[X[:, :1, :1][:, 0]] * 2), {}, ValueError, ("4)", "(3, 1)")),
    "batch of the state": (
        (X, *[np.zeros((2, 4), np.float32)] * 2),
        {},
        ValueError,
        ("(3, 4)", "(2, 4)"),
    ),
    "dtype of the state": ((X, *[np.zeros((3, 4))] * 2), {}, TypeError, ("state", "float64")),
    "lengths of zero": (
        (X,),
        {"lengths": np.array([5, 0, 1])},
        ValueError,
        ("1 to 5", "0", "row 1"),
    ),
    "all lengths zero": ((X,), {"lengths": np.zeros(3, int)}, ValueError, ("1 to 5", "row 0")),
    "too long": ((X,), {"lengths": np.array([5, 2, 6])}, ValueError, ("1 to 5", "6 in row 2")),
    "negative": ((X,), {"lengths": np.array([5, 2, -1])}, ValueError, ("-1 in row 2",)),
    "float lengths": ((X,), {"lengths": np.ones(3)}, TypeError, ("integers", "float64")),
    "lengths in a list": ((X,), {"lengths": [1, 2, 3]}, TypeError, ("integers", "list")),
    "too few lengths": ((X,), {"lengths": np.ones(2, int)}, ValueError, ("(3,)", "(2,)")),
}


@pytest.mark.parametrize("name", BAD_CALLS)
def test_bad_call(backend: str, name: str) -> None:
    inputs, options, error, words = BAD_CALLS[name]
    layer = nn.LSTM(2, 4, rng=0)
    with pytest.raises(error) as caught:
        layer(*inputs, **options)
    for word in ("LSTM(2, 4)", *words):
        assert word in str(caught.value)
    with pytest.raises(RuntimeError, match="without a forward"):
        layer.backward(np.zeros((3, 5, 4), np.float32))


def test_stateful_batch_of_another_size() -> None:
    with pytest.raises(ValueError, match=r"GRU\(2, 4, stateful=2\).*batch of 2.*got 3"):
        nn.GRU(2, 4, stateful=2)(X)


def test_bad_gradients_of_the_state_change_nothing(backend: str) -> None:
    layer = nn.GRU(2, 4, rng=0)
    y, h = layer(X, *layer.zero_state(3))
    with pytest.raises(TypeError, match="1 arrays of the state"):
        layer.backward(y, h, h)
    with pytest.raises(ValueError, match=r"\(3, 4\).*\(3, 3\)"):
        layer.backward(y, h[:, :3])
    with pytest.raises(TypeError, match="float32 gradient, got float64"):
        layer.backward(y, h.astype(float))
    layer.backward(y, h)
    layer(X)
    with pytest.raises(TypeError, match="0 arrays of the state"):
        layer.backward(y, h)


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"num_layers": 0}, ValueError, "LSTM: num_layers must be >= 1"),
        ({"num_layers": 1.5}, TypeError, "num_layers must be a whole number"),
        ({"dropout": 1.0, "num_layers": 2}, ValueError, "dropout must be in"),
        ({"dropout": 0.5}, ValueError, "dropout is between layers"),
        ({"stateful": 0}, ValueError, "stateful must be >= 1"),
        ({"stateful": True}, TypeError, "stateful must be a whole number"),
        ({"forget_bias": np.nan}, ValueError, "forget_bias must be finite"),
        ({"nonlinearity": "relu"}, TypeError, "nonlinearity"),
        ({"recurrent_init": "best"}, ValueError, "unknown initialiser"),
        ({"dtype": np.int64}, TypeError, "float32 or float64"),
    ],
)
def test_bad_options(options: dict[str, Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        nn.LSTM(2, 4, **options)


@pytest.mark.parametrize("cls", [nn.RNN, nn.RNNCell])
def test_unknown_nonlinearity(cls: Any) -> None:
    with pytest.raises(ValueError, match='nonlinearity must be "tanh" or "relu", got \'sigmoid\''):
        cls(2, 4, nonlinearity="sigmoid")


@pytest.mark.parametrize("cls", [nn.LSTMCell, nn.GRUCell])
def test_bad_calls_of_cells(cls: Any) -> None:
    cell, x = cls(2, 4, rng=0), X[:, 0]
    state = [np.zeros((3, 4), np.float32) for _ in cell.state_of]
    with pytest.raises(TypeError, match=rf"{cls.__name__}\(2, 4\): expected . arrays, x, h.*got 1"):
        cell(x)
    with pytest.raises(ValueError, match=r"state h.*4\).*\(3, 2\)"):
        cell(x, x, *state[1:])
    with pytest.raises(ValueError, match="batch of x"):
        cell(x[:2], *state)
    with pytest.raises(RuntimeError, match="without a forward"):
        cell.backward(*state)


# --- embedding --------------------------------------------------------------------------


def test_embedding_adds_to_the_rows_that_were_taken(backend: str) -> None:
    layer = nn.Embedding(5, 3, rng=0, dtype=np.float64)
    x, dy = np.array([[4, 0], [4, 4]]), normal(2, 2, 3)
    np.testing.assert_array_equal(layer(x), layer.weight.data[x])
    assert layer.backward(dy) is None
    one_hot = np.eye(5)[x.ravel()]
    np.testing.assert_allclose(layer.weight.grad, one_hot.T @ dy.reshape(-1, 3), rtol=1e-14)
    assert not layer.weight.grad[1:4].any()


@pytest.mark.parametrize(
    ("x", "error", "words"),
    [
        (np.array([[0, 5]]), ValueError, ["index 5 in row 0, step 1 is not in 0 to 4"]),
        (np.array([[0, 1], [-1, 0]]), ValueError, ["index -1 in row 1, step 0"]),
        (np.zeros((2, 3)), TypeError, ["integers", "float64", "astype(np.int64)"]),
        (np.zeros((2, 3), bool), TypeError, ["integers", "bool"]),
        ([[0, 1]], TypeError, ["integers", "list"]),
        (np.zeros((2, 0), int), ValueError, ["empty", "(2, 0)"]),
        (np.array(3), ValueError, ["(batch, ...)", "()"]),
    ],
)
def test_bad_indices(backend: str, x: Any, error: type[Exception], words: list[str]) -> None:
    model = nn.Sequential(nn.Embedding(5, 3), nn.GRU(3, 2))
    with pytest.raises(error) as caught:
        model(x)
    for word in ("layer 0 Embedding(5, 3)", *words):
        assert word in str(caught.value)


# --- losses of sequences, and the Trainer ---------------------------------------------------


@pytest.mark.parametrize("cls", [nn.CrossEntropyLoss, nn.NLLLoss])
def test_loss_of_sequences_is_that_of_their_steps(backend: str, cls: Any) -> None:
    loss = cls(class_weight=[1, 2, 3, 0.5])
    z, labels = -np.abs(normal(2, 3, 4)), np.array([[0, 1, 3], [2, 2, 0]])
    mask = np.array([[1.0, 1, 0], [1, 0, 0]])
    for weight in (None, mask):
        flat = None if weight is None else weight.ravel()
        value, gradient = float(loss(z, labels, weight)), loss.backward()
        assert value == float(loss(z.reshape(6, 4), labels.ravel(), flat))
        np.testing.assert_array_equal(gradient.reshape(6, 4), loss.backward())
    assert not gradient[mask == 0].any()
    step = loss(np.ascontiguousarray(z[:, 1:]), labels[:, 1:])
    assert float(loss(z[:, 1:], labels[:, 1:])) == float(step)  # of any strides


def test_bad_labels_of_sequences_are_named_by_row_and_step(backend: str) -> None:
    loss, z = nn.CrossEntropyLoss(), normal(2, 3, 4)
    with pytest.raises(ValueError, match="label 4 in row 1, step 2 is outside the 4 classes"):
        loss(z, np.array([[0, 1, 2], [3, 0, 4]]))
    with pytest.raises(ValueError, match=r"\(2, 3\)"):
        loss(z, np.zeros(2, int))
    with pytest.raises(ValueError, match=r"weights of shape \(2, 3\), got \(2,\)"):
        loss(z, np.zeros((2, 3), int), np.ones(2))
    model = nn.Sequential(nn.Embedding(5, 3), nn.GRU(3, 4), nn.Linear(4, 2), rng=0)
    trainer = minidl.Trainer(model, loss, optim.Adam(model.parameters()), rng=0)
    x, y = np.zeros((6, 3), int), np.zeros((6, 3), int)
    y[4, 1] = 2
    with pytest.raises(ValueError, match="label 2 in row 4, step 1"):
        trainer.fit(x, y, 1, progress=False)
    with pytest.raises(TypeError, match="takes integers, got dtype float64"):
        trainer.fit(x.astype(float), y, 1, progress=False)


def test_trainer_fits_sequences_of_indices(backend: str) -> None:
    """The label of every step is the character before it."""
    rng = np.random.default_rng(0)
    x = rng.integers(4, size=(80, 6))
    y = np.concatenate([np.zeros((80, 1), int), x[:, :-1]], axis=1)
    model = nn.Sequential(nn.Embedding(4, 8), nn.GRU(8, 16), nn.Linear(16, 4), rng=0)
    optimizer = optim.Adam(model.parameters(), lr=0.02)
    trainer = minidl.Trainer(model, nn.CrossEntropyLoss(), optimizer, rng=0)
    history = trainer.fit(x[:64].astype(np.uint8), y[:64], 12, batch_size=10, progress=False)
    assert history["accuracy"][-1] > 0.9 > 0.5 > history["accuracy"][0]
    assert trainer.evaluate(x[64:], y[64:])["accuracy"] > 0.9
    assert trainer.predict(x[64:]).shape == (16, 6, 4)


def test_a_gradient_that_explodes_in_time_is_found_there() -> None:
    model = nn.Sequential(nn.RNN(1, 4, return_sequences=False), nn.Linear(4, 1), rng=0)
    weight = model[0].cells[0].recurrent_weight
    weight.data = 1e9 * weight.data  # float32 ends at 3e38: after four steps back
    model[1].bias.data = [1.0]
    trainer = minidl.Trainer(model, nn.MSELoss(), optim.SGD(model.parameters()), rng=0)
    x, y = np.zeros((3, 12, 1), np.float32), np.zeros((3, 1), np.float32)
    with pytest.raises(FloatingPointError, match=r"layer 0 RNN\(1, 4.*at step [678] of 12"):
        trainer.fit(x, y, 1, progress=False)


# --- memory -----------------------------------------------------------------------------


def peak(steps: int) -> int:
    layer = nn.RNN(2, 3, rng=0)
    x = np.zeros((1, steps, 2), np.float32)
    tracemalloc.start()
    layer.backward(layer(x))
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return most


@compiled
def test_memory_is_linear_in_the_number_of_steps() -> None:
    # Of ten thousand steps; a step keeps a few hundred bytes, not what all steps before it did.
    few, many = peak(500), peak(10_000)
    assert many < 21 * few
    assert many < 10_000 * 1000


# --- training ---------------------------------------------------------------------------


@compiled
def test_gates_carry_numbers_over_steps_where_a_plain_network_forgets_them() -> None:
    """The adding problem; of 200 steps: ``minidl train adding``."""
    losses = {}
    for cls in (nn.RNN, nn.LSTM, nn.GRU):
        model = nn.Sequential(cls(2, 16, return_sequences=False), nn.Linear(16, 1), rng=0)
        optimizer = optim.Adam(model.parameters(), lr=0.02, max_norm=1.0)
        trainer = minidl.Trainer(model, nn.MSELoss(), optimizer, rng=0)
        trainer.fit(*datasets.adding(800, 20, rng=0), 12, batch_size=40, progress=False)
        losses[cls] = trainer.evaluate(*datasets.adding(200, 20, rng=1))["loss"]
    assert max(losses[nn.LSTM], losses[nn.GRU]) < 0.01
    assert losses[nn.RNN] > 0.1


def test_clipping_turns_a_training_that_diverges_into_one_that_converges() -> None:
    x, y = datasets.adding(100, 30, rng=0)
    losses: dict[float | None, list[float]] = {None: [], 1.0: []}
    for max_norm, values in losses.items():
        layer = nn.RNN(2, 16, nonlinearity="relu", return_sequences=False)
        model = nn.Sequential(layer, nn.Linear(16, 1, init="xavier_uniform"), rng=0)
        weight = layer.cells[0].recurrent_weight
        weight.data = 1.6 * weight.data  # gradients may grow by 1.6 from step to step
        loss, optimizer = nn.MSELoss(), optim.SGD(model.parameters(), lr=0.02, max_norm=max_norm)
        with np.errstate(all="ignore"):
            for _ in range(40):
                values.append(float(loss(model(x), y)))
                optimizer.zero_grad()
                model.backward(loss.backward())
                try:
                    optimizer.step()
                except FloatingPointError:
                    break
    assert len(losses[None]) < 40  # it ended in a gradient that is not finite
    assert losses[1.0][0] == losses[None][0] > 100
    assert losses[1.0][-1] < 0.2


# --- recorded ---------------------------------------------------------------------------


@compiled
@every_kind
@pytest.mark.parametrize("options", [{}, {"num_layers": 2, "bidirectional": True}])
def test_recorded_with_lengths_and_state(isa: str, kind: str, options: dict[str, Any]) -> None:
    rng = np.random.default_rng(0)
    calls = [
        (normal(3, 5, 3, seed=i, dtype=np.float32), rng.integers(1, 6, size=3)) for i in range(4)
    ]

    def run(record: bool) -> list[list[bytes]]:
        layer = make(kind, 3, 4, dtype=np.float32, **options)

        def function(x: np.ndarray, lengths: np.ndarray, *state: np.ndarray) -> Any:
            layer.zero_grad()
            y, *end = layer(x, *state, lengths=lengths)
            return [y, *end, *layer.backward(y, *end), *grads(layer)]

        step = minidl.record(function) if record else function
        state = layer.zero_state(3)
        return [[np.asarray(a).tobytes() for a in step(*call, *state)] for call in calls]

    assert run(record=True) == run(record=False)


@compiled
def test_lengths_out_of_range_are_found_when_replayed(isa: str) -> None:
    layer = nn.GRU(2, 4, rng=0)
    step = minidl.record(lambda x, lengths: layer(x, lengths=lengths))
    good = step(X, np.array([5, 2, 1])).copy()
    for bad in (0, 6, -3):
        with pytest.raises(ValueError, match=f"length {bad} .* 1 to 5"):
            step(X, np.array([5, bad, 1]))
    assert np.array_equal(step(X, np.array([5, 2, 1])), good)


@compiled
def test_a_recorded_epoch_carries_the_state(isa: str) -> None:
    text = datasets.Characters.of("abracadabra " * 40)
    X, Y = text.chunks("abracadabra " * 40, batch_size=4, steps=10)

    def train(record: bool) -> tuple[list[float], list[bytes]]:
        model = nn.Sequential(
            nn.Embedding(len(text), 5), nn.LSTM(5, 7, stateful=4), nn.Linear(7, len(text)), rng=0
        )
        loss, optimizer = nn.CrossEntropyLoss(), optim.Adam(model.parameters(), lr=0.01)

        def step(x: np.ndarray, y: np.ndarray) -> Any:
            value = loss(model(x), y)
            optimizer.zero_grad()
            model.backward(loss.backward())
            optimizer.step()
            return value

        recorded, losses = minidl.record(step), []
        for _ in range(2):
            model[1].reset_state()
            if record:
                losses += recorded.epoch(X, Y, 4, shuffle=False, per_step=True).tolist()
            else:
                pairs = minidl.batches(X, Y, 4, shuffle=False)
                losses += [float(step(x, y)) for x, y in pairs]
        return losses, [p.data.tobytes() for p in model.parameters()]

    assert train(record=True) == train(record=False)


@compiled
def test_bad_labels_of_a_recorded_epoch_are_named_by_row_and_step(isa: str) -> None:
    model = nn.Sequential(nn.Embedding(5, 3), nn.GRU(3, 4), nn.Linear(4, 2), rng=0)
    loss = nn.CrossEntropyLoss()

    @minidl.record
    def step(x: np.ndarray, y: np.ndarray) -> Any:
        return loss(model(x), y)

    x, y = np.zeros((20, 3), int), np.zeros((20, 3), int)
    step.epoch(x, y, 4, rng=0)
    for row in (2, 13):
        bad = y.copy()
        bad[row, 1] = 2
        with pytest.raises(ValueError, match=f"label 2 in row {row} of the data set, step 1 is"):
            step.epoch(x, bad, 4, rng=0)


@compiled
def test_indices_out_of_range_are_found_when_replayed(isa: str) -> None:
    layer = nn.Embedding(5, 3, rng=0)
    step = minidl.record(lambda x: layer(x))
    step(np.array([[0, 4]]))
    for bad in (5, -1):
        with pytest.raises(ValueError, match=str(bad)):
            step(np.array([[0, bad]]))


# --- what a recorded step is told ------------------------------------------------------------


@compiled
def test_a_recorded_step_refuses_bad_weights_lengths_and_indices() -> None:
    model = nn.Sequential(nn.GRU(2, 3, rng=0), nn.Linear(3, 4, rng=1))
    loss, embedding = nn.CrossEntropyLoss(), nn.Embedding(5, 2, rng=0)

    @minidl.record
    def step(i: Any, lengths: Any, labels: Any, mask: Any) -> Any:
        return loss(model(embedding(i), lengths=lengths), labels, mask)

    i, lengths = np.zeros((2, 3), int), np.array([3, 2])
    labels, mask = np.zeros((2, 3), int), np.ones((2, 3), np.float32)
    for bad, words in (
        ({"lengths": np.array([3, 4])}, "length 4 in row 1 is not in 1 to 3"),
        ({"i": np.array([[0, 0, 0], [0, 9, 0]])}, "index 9 in row 1, step 1 is not in 0 to 4"),
        ({"labels": np.array([[0, 0, 0], [0, 0, 7]])}, "label 7 in row 1, step 2 is outside"),
        ({"mask": -mask}, "weights must be finite and >= 0"),
    ):
        given = {"i": i, "lengths": lengths, "labels": labels, "mask": mask} | bad
        step.forget()
        with pytest.raises(ValueError, match=words.split(" ")[0]):
            step(*given.values())  # as it is recorded
        step(i, lengths, labels, mask)
        with pytest.raises(ValueError, match=words):
            step(*given.values())  # as it is replayed


@compiled
def test_what_a_refused_step_must_not_have_changed() -> None:
    embedding, norm = nn.Embedding(4, 2, rng=0), nn.BatchNorm(512)
    before = minidl.get_num_threads()
    minidl.set_num_threads(2)
    try:
        both = minidl.record(lambda i, x: (embedding(i), norm(x)))
        x = np.random.default_rng(0).normal(size=(2048, 512)).astype(np.float32)
        both(np.array([[1, 2]]), x)
        both._latest.program.always_team = True
        kept = norm.running_mean.copy()
        for _ in range(20):
            with pytest.raises(ValueError, match="index 9"):
                both(np.array([[1, 9]]), x)
            np.testing.assert_array_equal(norm.running_mean, kept)
    finally:
        minidl.set_num_threads(before)


@compiled
def test_the_state_may_be_reset_within_a_recorded_step() -> None:
    layer = nn.LSTM(2, 3, stateful=2, rng=0)

    @minidl.record
    def step(x: Any) -> Any:
        layer.reset_state()
        return layer(x)

    x = np.random.default_rng(0).normal(size=(2, 4, 2)).astype(np.float32)
    first = step(x).copy()
    np.testing.assert_array_equal(step(x), first)


def test_the_place_in_a_text_is_not_saved(tmp_path: Any) -> None:
    x = np.random.default_rng(0).normal(size=(2, 4, 2)).astype(np.float32)
    one = nn.Sequential(nn.LSTM(2, 3, stateful=2, rng=0))
    one(x)
    minidl.save(one, tmp_path / "model")
    other = nn.Sequential(nn.LSTM(2, 3, rng=1))
    minidl.load(tmp_path / "model", into=other)
    np.testing.assert_array_equal(other.eval()(x), one.eval()(x))


def test_stateful_layers_where_they_make_no_sense() -> None:
    with pytest.raises(ValueError, match="one direction"):
        nn.GRU(2, 3, bidirectional=True, stateful=2)
    model = nn.Sequential(nn.GRU(2, 3, stateful=2))
    with pytest.raises(ValueError, match="shuffle=False"):
        minidl.Trainer(model, nn.MSELoss(), optim.SGD(model.parameters(), 0.1))


def test_indices_of_many_dimensions(backend: str) -> None:
    layer = nn.Embedding(4, 2, rng=0)
    assert layer(np.zeros((1,) * 12, np.int64)).shape == (1,) * 12 + (2,)


# --- lengths through a whole model ----------------------------------------------------------


class LastStep(nn.Layer):
    """y = the last step of each sequence: a layer of the user's that takes lengths."""

    def forward(self, x: np.ndarray, lengths: Any = None) -> np.ndarray:  # type: ignore[override]
        last = np.full(len(x), x.shape[1]) if lengths is None else lengths
        self.save(x.shape, last)
        return x[np.arange(len(x)), last - 1]

    def backward(self, dy: np.ndarray) -> np.ndarray:
        shape, last = self.saved(dy)
        dx = np.zeros(shape, dy.dtype)
        dx[np.arange(len(dx)), last - 1] = dy
        return dx


def rows_of_features(rng: np.random.Generator) -> np.ndarray:
    return rng.normal(size=(3, 7, 4))


def rows_of_words(rng: np.random.Generator) -> np.ndarray:
    return rng.integers(0, 9, (3, 7))


THROUGH = {
    "two": (lambda: [nn.GRU(4, 6), nn.GRU(6, 5, return_sequences=False), nn.Linear(5, 2)], None),
    "two directions": (
        lambda: [
            nn.LSTM(4, 3, num_layers=2, bidirectional=True),
            nn.RNN(6, 4, bidirectional=True, return_sequences=False),
            nn.Linear(8, 2),
        ],
        None,
    ),
    "embedding": (
        lambda: [nn.Embedding(9, 4), nn.GRU(4, 5, return_sequences=False), nn.Linear(5, 2)],
        rows_of_words,
    ),
    "in front": (
        lambda: [
            nn.Standardize(4).adapt(np.random.default_rng(0).normal(3, 2, (50, 4))),
            nn.LayerNorm(4),
            nn.Dropout(0.5, rng=0).eval(),
            nn.Linear(4, 4),
            nn.Tanh(),
            nn.GRU(4, 5, return_sequences=False),
        ],
        None,
    ),
    "nested": (
        lambda: [
            nn.Sequential(nn.Identity(), nn.Sequential(nn.GRU(4, 4))),
            nn.Sequential(nn.Tanh()),
            nn.Sequential(nn.LSTM(4, 3, return_sequences=False), nn.Linear(3, 2)),
        ],
        None,
    ),
    "residual": (
        lambda: [
            nn.Residual(nn.GRU(4, 4, bidirectional=True), nn.GRU(4, 8)),
            nn.Residual(nn.Sequential(nn.LayerNorm(8), nn.GRU(8, 8))),
            nn.Residual(nn.Linear(8, 8)),
            nn.RNN(8, 2, bidirectional=True, return_sequences=False),
        ],
        None,
    ),
    "a layer of the user's": (lambda: [nn.GRU(4, 5), LastStep(), nn.Linear(5, 2)], None),
}


@pytest.mark.parametrize("by_name", [True, False])
@pytest.mark.parametrize("name", THROUGH)
def test_a_padded_row_gets_what_it_gets_alone(backend: str, name: str, by_name: bool) -> None:
    make, draw = THROUGH[name]
    model = nn.Sequential(*make(), rng=1).astype(np.float64)
    x = (draw or rows_of_features)(np.random.default_rng(0))
    lengths = np.array([7, 2, 5])
    y = model(x, lengths=lengths) if by_name else model(x, lengths)
    dy = np.random.default_rng(2).normal(size=y.shape)
    model.zero_grad()
    dx = model.backward(dy)
    together = [parameter.grad.copy() for parameter in model.parameters()]
    model.zero_grad()
    for row, length in enumerate(lengths):
        alone = model(x[row : row + 1, :length])
        np.testing.assert_allclose(alone[0], y[row], rtol=1e-12, atol=1e-14)
        dalone = model.backward(dy[row : row + 1])
        if dx is not None:
            np.testing.assert_allclose(dalone[0], dx[row, :length], rtol=1e-10, atol=1e-14)
            assert not dx[row, length:].any()
    for parameter, grad in zip(model.parameters(), together, strict=True):
        np.testing.assert_allclose(parameter.grad, grad, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("name", ["two", "two directions", "embedding", "nested", "residual"])
def test_lengths_through_a_recorded_model(name: str) -> None:
    make, draw = THROUGH[name]
    x = (draw or rows_of_features)(np.random.default_rng(0))
    x = x.astype(F32) if x.dtype.kind == "f" else x
    results = []
    for record in (True, False):
        model = nn.Sequential(*make(), rng=1)
        loss, optimizer = nn.MSELoss(), optim.Adam(model.parameters(), lr=0.1)

        def step(
            x: Any, lengths: Any, y: Any, model: Any = model, loss: Any = loss, o: Any = optimizer
        ) -> Any:
            value = loss(model(x, lengths), y)
            o.zero_grad()
            model.backward(loss.backward())
            o.step()
            return value

        run = minidl.record(step) if record else step
        y = np.ones_like(model(x, np.array([7, 2, 5])))
        results.append([float(run(x, np.array(n), y)) for n in ([7, 2, 5], [1, 7, 3], [7, 2, 5])])
    assert results[0] == results[1]


def test_lengths_that_nothing_takes_are_refused() -> None:
    x, lengths = np.zeros((2, 3, 4), F32), np.array([3, 1])
    with pytest.raises(TypeError, match="Sequential: got lengths, and no layer in it takes them"):
        nn.Sequential(nn.Linear(4, 2), nn.Tanh())(x, lengths)
    with pytest.raises(TypeError, match="Sequential: got a second input, which is for the lengths"):
        nn.Sequential(nn.Linear(4, 2), nn.Tanh())(x, x)
    with pytest.raises(ValueError, match=r"layer 1 GRU.*length 4 in row 1 is not in 1 to 3"):
        nn.Sequential(nn.Linear(4, 4), nn.GRU(4, 2))(x, np.array([3, 4]))
    assert nn.Sequential(nn.Sequential(nn.GRU(4, 2))).takes_lengths
    assert not nn.Sequential(nn.Residual(nn.Linear(4, 4))).takes_lengths


def test_lengths_end_where_the_time_axis_does() -> None:
    class NoLengths(nn.Layer):
        """y = x, and lengths must not come."""

        def forward(self, x: np.ndarray, lengths: Any = None) -> np.ndarray:  # type: ignore[override]
            assert lengths is None
            return x

    model = nn.Sequential(nn.GRU(4, 3, return_sequences=False), NoLengths(), nn.Linear(3, 2))
    assert model(np.zeros((2, 3, 4), F32), np.array([3, 1])).shape == (2, 2)


def test_lengths_by_place_are_those_by_name() -> None:
    layer, x, lengths = nn.LSTM(4, 3, rng=0), np.ones((2, 5, 4), F32), np.array([5, 2])
    assert np.array_equal(layer(x, lengths), layer(x, lengths=lengths))
    state = layer.zero_state(2)
    for a, b in zip(layer(x, *state, lengths), layer(x, *state, lengths=lengths), strict=True):
        assert np.array_equal(a, b)


# --- the bias of the update gate --------------------------------------------------------------


def test_update_bias_lets_the_gradient_through() -> None:
    shares = []
    for update_bias in (0, 2, 5):
        layer = nn.GRU(4, 32, rng=0, update_bias=update_bias)
        y = layer(np.random.default_rng(0).normal(size=(8, 100, 4)).astype(F32))
        dy = np.zeros_like(y)
        dy[:, -1] = 1
        layer.backward(dy)
        norms = layer.state_gradient_norms()
        shares.append(norms[0] / norms[-1])
    assert shares[0] < 1e-9
    assert 1e-6 < shares[1] < 1e-1
    assert 0.2 < shares[2] < 1


def test_update_bias_is_that_of_the_update_gate_alone() -> None:
    cell = nn.GRUCell(2, 3, update_bias=1.5)
    assert cell.bias.data.tolist() == [0] * 3 + [1.5] * 3 + [0] * 3
    assert not cell.recurrent_bias.data.any()
    assert not nn.GRUCell(2, 3).bias.data.any()
    with pytest.raises(ValueError, match=r"GRUCell: update_bias"):
        nn.GRU(2, 3, update_bias=float("nan"))
