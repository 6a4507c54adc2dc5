"""Recurrent layers give what PyTorch's give: outputs, states, and every gradient."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from minidl import nn

torch = pytest.importorskip("torch")
torch.set_num_threads(1)

CLOSE = {"rtol": 1e-5, "atol": 1e-5}
LENGTHS = np.array([7, 2, 5, 1])
KINDS: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "RNN": (nn.RNN, torch.nn.RNN, {}),
    "relu": (nn.RNN, torch.nn.RNN, {"nonlinearity": "relu"}),
    "LSTM": (nn.LSTM, torch.nn.LSTM, {}),
    "GRU": (nn.GRU, torch.nn.GRU, {}),
}
NAMES = {
    "input_weight": "weight_ih",
    "recurrent_weight": "weight_hh",
    "bias": "bias_ih",
    "recurrent_bias": "bias_hh",
}


def pair(kind: str, dtype: Any, **options: Any) -> tuple[Any, Any, dict[str, Any]]:
    """A layer of ours, theirs with the same weights, and theirs by our names."""
    ours, theirs, own = KINDS[kind]
    layer = ours(3, 5, **own, **options, rng=0, dtype=dtype)
    peer = theirs(3, 5, **own, **options, batch_first=True)
    peer = peer.double() if dtype == np.float64 else peer
    rng, found = np.random.default_rng(1), {}
    directions = 1 + options.get("bidirectional", False)
    for _, parameter in peer.named_parameters():
        parameter.data.zero_()  # they have a second bias, where one is enough
    for name, parameter in layer.named_parameters():
        _, index, name_of_cell = name.split(".")
        level, reverse = divmod(int(index), directions)
        their_name = f"{NAMES[name_of_cell]}_l{level}" + "_reverse" * reverse
        parameter.data = rng.normal(size=parameter.shape) / 2
        found[name] = getattr(peer, their_name)
        found[name].data = torch.tensor(parameter.data.T.copy())
    return layer, peer, found


def in_their_order(layer: Any, state: list[np.ndarray]) -> list[np.ndarray]:
    """Our arrays of the state, (h, c) of cell after cell, as h and c of all cells."""
    size = len(layer.cell_type.state_of)
    return [np.stack(state[first::size]) for first in range(size)]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("num_layers", [1, 2])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("with_lengths", [False, True])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_outputs_states_and_gradients(
    backend: str, kind: str, num_layers: int, bidirectional: bool, with_lengths: bool, dtype: Any
) -> None:
    layer, peer, found = pair(kind, dtype, num_layers=num_layers, bidirectional=bidirectional)
    rng = np.random.default_rng(2)
    x = rng.normal(size=(4, 7, 3)).astype(dtype)
    state = [rng.normal(size=(4, 5)).astype(dtype) for _ in range(layer.state_size)]
    y, *end = layer(x, *state, lengths=LENGTHS if with_lengths else None)
    dy = rng.normal(size=y.shape).astype(dtype)
    dend = [rng.normal(size=(4, 5)).astype(dtype) for _ in end]
    dx, *dbegin = layer.backward(dy, *dend)

    x_t = torch.tensor(x, requires_grad=True)
    begin_t = [torch.tensor(h, requires_grad=True) for h in in_their_order(layer, state)]
    given: Any = x_t
    if with_lengths:
        given = torch.nn.utils.rnn.pack_padded_sequence(
            x_t, torch.tensor(LENGTHS), batch_first=True, enforce_sorted=False
        )
    y_t, end_t = peer(given, tuple(begin_t) if len(begin_t) > 1 else begin_t[0])
    if with_lengths:
        y_t, _ = torch.nn.utils.rnn.pad_packed_sequence(y_t, batch_first=True)
    end_t = end_t if isinstance(end_t, tuple) else (end_t,)
    torch.autograd.backward(
        [y_t, *end_t], [torch.tensor(a) for a in (dy, *in_their_order(layer, dend))]
    )

    close = CLOSE if dtype == np.float32 else {"rtol": 1e-10, "atol": 1e-12}
    np.testing.assert_allclose(y, y_t.detach(), **close)
    np.testing.assert_allclose(dx, x_t.grad, **close)
    ours = [*in_their_order(layer, end), *in_their_order(layer, dbegin)]
    theirs = [*(h.detach() for h in end_t), *(h.grad for h in begin_t)]
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b, **close)
    for name, parameter in layer.named_parameters():
        np.testing.assert_allclose(parameter.grad.T, found[name].grad, **close, err_msg=name)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (nn.RNNCell, torch.nn.RNNCell),
        (nn.LSTMCell, torch.nn.LSTMCell),
        (nn.GRUCell, torch.nn.GRUCell),
    ],
)
def test_cells(backend: str, ours: Any, theirs: Any) -> None:
    cell, peer = ours(3, 5, rng=0, dtype=np.float64), theirs(3, 5).double()
    rng = np.random.default_rng(1)
    for parameter in peer.parameters():
        parameter.data.zero_()
    for name, parameter in cell.named_parameters():
        parameter.data = rng.normal(size=parameter.shape)
        getattr(peer, NAMES[name]).data = torch.tensor(parameter.data.T.copy())
    x, state = rng.normal(size=(4, 3)), [rng.normal(size=(4, 5)) for _ in cell.state_of]
    new = cell(x, *state)
    new = new if isinstance(new, tuple) else (new,)
    gradients = cell.backward(*[np.cos(h) for h in new])
    inputs = [torch.tensor(a, requires_grad=True) for a in (x, *state)]
    new_t = peer(inputs[0], tuple(inputs[1:]) if len(state) > 1 else inputs[1])
    new_t = new_t if isinstance(new_t, tuple) else (new_t,)
    torch.autograd.backward(new_t, [torch.cos(h.detach()) for h in new_t])
    for a, b in zip(new, new_t, strict=True):
        np.testing.assert_allclose(a, b.detach(), rtol=1e-12)
    for a, b in zip(gradients, inputs, strict=True):
        np.testing.assert_allclose(a, b.grad, rtol=1e-10, atol=1e-13)
    for name, parameter in cell.named_parameters():
        np.testing.assert_allclose(
            parameter.grad.T, getattr(peer, NAMES[name]).grad, rtol=1e-10, atol=1e-13
        )


def test_embedding_and_loss_of_sequences(backend: str) -> None:
    layer, loss = nn.Embedding(6, 4, rng=0, dtype=np.float64), nn.CrossEntropyLoss()
    rng = np.random.default_rng(0)
    x, labels = rng.integers(6, size=(3, 5)), rng.integers(4, size=(3, 5))
    value = loss(layer(x), labels)
    layer.backward(loss.backward())
    weight = torch.tensor(layer.weight.data, requires_grad=True)
    logits = torch.nn.functional.embedding(torch.tensor(x), weight)
    expected = torch.nn.functional.cross_entropy(logits.swapaxes(1, 2), torch.tensor(labels))
    expected.backward()
    assert float(value) == pytest.approx(expected.item(), rel=1e-12)
    np.testing.assert_allclose(layer.weight.grad, weight.grad, rtol=1e-12, atol=1e-15)
