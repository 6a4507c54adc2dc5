"""Calls of layers: several in one pass, what they hold, and what other libraries would have."""

from __future__ import annotations

import copy
import dataclasses
import re
import sys
import types
from collections import OrderedDict, UserDict, deque
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import minidl
from minidl import _kernels, nn, optim
from minidl.nn import Layer, Linear, Parameter, ReLU, Sequential, Tanh

F32 = np.float32
X = np.random.default_rng(0).normal(size=(4, 3)).astype(F32)


# --- one layer in several places ----------------------------------------------------------


def unshared(model: Sequential) -> Sequential:
    """The same model with a copy of the layer in each place."""
    return Sequential(*(copy.deepcopy(layer) for layer in model.stack))


@pytest.mark.parametrize("make", [ReLU, Tanh, nn.GELU, lambda: nn.Dropout(0.5, rng=0)])
def test_one_activation_in_two_places(backend: str, make: Any) -> None:
    act = make()
    model = Sequential(Linear(3, 5, rng=0), act, Linear(5, 4, rng=1), act, Linear(4, 2, rng=2))
    apart = unshared(model)
    apart[3].__dict__.update(copy.deepcopy(act.__dict__))
    for _ in range(2):
        y, expected = model(X), apart(X)
        dx, expected_dx = model.backward(np.ones_like(y)), apart.backward(np.ones_like(expected))
        if not isinstance(act, nn.Dropout):  # whose second mask is another one
            assert np.array_equal(y, expected)
            assert np.array_equal(dx, expected_dx)
    assert minidl.gradcheck(model, X).ok
    with pytest.raises(RuntimeError, match="backward without a forward pass"):
        model.backward(np.ones_like(y))


def shared_weights() -> Sequential:
    same = Linear(3, 3, rng=0)
    return Sequential(same, Tanh(), Sequential(same, nn.BatchNorm(3)), nn.Residual(same, same))


def test_one_layer_with_weights_in_four_places(backend: str) -> None:
    model = shared_weights()
    assert len(model.parameters()) == 4
    assert [path for path, _ in model.layers()].count("0") == 1
    assert minidl.gradcheck(model, X).ok


def test_one_layer_in_several_places_recorded() -> None:
    losses = []
    for record in (True, False):
        model, loss = shared_weights(), nn.MSELoss()
        optimizer = optim.Adam(model.parameters(), lr=0.05, max_norm=1.0)

        def step(x: Any, y: Any, model: Any = model, loss: Any = loss, o: Any = optimizer) -> Any:
            value = loss(model(x), y)
            o.zero_grad()
            model.backward(loss.backward())
            o.step()
            return value

        run = minidl.record(step) if record else step
        losses.append([float(run(X, np.sin(X))) for _ in range(5)])
    assert losses[0] == losses[1]


def test_forward_passes_without_backward_keep_nothing_but_the_latest() -> None:
    act = ReLU()
    model = Sequential(act, act, act)
    for _ in range(20):
        model(X)
        assert len(act._earlier) == 2
    for _ in range(20):
        y = act(X)
    act.backward(np.ones_like(y))
    with pytest.raises(RuntimeError, match="without a forward pass"):
        act.backward(np.ones_like(y))


@pytest.mark.skipif(not _kernels.available()[1:], reason="no compiled kernels here")
def test_an_interrupt_at_any_line_ends_the_pass() -> None:
    model = Sequential(Linear(3, 4, rng=0), Tanh(), Linear(4, 2, rng=1))
    lines = 0

    def interrupt(frame: Any, event: str, _: Any) -> Any:
        nonlocal left
        if event == "line":
            left -= 1
            if left < 0:
                raise KeyboardInterrupt
        return interrupt

    while True:
        left = lines
        sys.settrace(interrupt)
        try:
            model(X)
        except KeyboardInterrupt:
            lines += 1
        else:
            break
        finally:
            sys.settrace(None)
            assert _kernels.forward_pass() is None
    assert lines > 20


def test_a_pass_that_fails_leaves_the_next_one_right() -> None:
    act = ReLU()
    model = Sequential(act, act, Linear(3, 2, rng=0))
    model.stack = (*model.stack, Linear(5, 5))
    with pytest.raises(ValueError, match="Linear"):
        model(X)
    model.stack = model.stack[:3]
    y = model(X)
    assert model.backward(np.ones_like(y)).shape == X.shape


def test_a_layer_called_step_after_step_in_one_pass() -> None:
    class Unrolled(Layer):
        """y = the cell, three times."""

        def __init__(self) -> None:
            self.cell = Sequential(Linear(3, 3, rng=0), Tanh())

        def forward(self, x: np.ndarray) -> np.ndarray:  # type: ignore[override]
            for _ in range(3):
                x = self.cell(x)
            return x

        def backward(self, dy: np.ndarray) -> np.ndarray:
            for _ in range(3):
                dy = self.cell.backward(dy)
            return dy

    assert minidl.gradcheck(Unrolled(), X).ok


# --- where layers and parameters are found ------------------------------------------------


class Holder(Layer):
    """y = x, with whatever is given as an attribute."""

    def __init__(self, held: Any) -> None:
        self.held = held

    def forward(self, x: np.ndarray) -> np.ndarray:  # type: ignore[override]
        return x


def linear() -> Linear:
    return Linear(2, 2, rng=0)


FOUND = [
    (lambda: [linear()], "held.0."),
    (lambda: (1, (linear(),)), "held.1.0."),
    (lambda: {"a": linear()}, "held.a."),
    (lambda: {"a": [{"b": (linear(),)}]}, "held.a.0.b.0."),
    (lambda: {3: linear(), (1, 2): "no layer"}, "held.3."),
    (lambda: OrderedDict(a=linear()), "held.a."),
    (lambda: UserDict(a=linear()), "held.a."),
    (lambda: types.MappingProxyType({"a": linear()}), "held.a."),
    (lambda: deque([linear()]), "held.0."),
]


@pytest.mark.parametrize(("make", "path"), FOUND)
def test_layers_in_containers_are_found(tmp_path: Path, make: Any, path: str) -> None:
    layer, other = Holder(make()), Holder(make())
    assert [name for name, _ in layer.named_parameters()] == [f"{path}weight", f"{path}bias"]
    assert not next(inner for name, inner in layer.eval().layers() if name).training
    layer.reset(5)
    minidl.save(layer, tmp_path / "m")
    minidl.load(tmp_path / "m", into=other)
    pairs = zip(layer.parameters(), other.parameters(), strict=True)
    assert all(np.array_equal(a.data, b.data) for a, b in pairs)
    layer.astype(np.float64)
    assert layer.dtype == np.float64
    assert {parameter.dtype for parameter in layer.parameters()} == {np.dtype(np.float64)}
    assert layer.freeze() is layer
    assert layer.parameters()[0].frozen


def test_parameters_in_a_dict_are_found() -> None:
    layer = Holder({"a": Parameter((2,), nn.init.zeros()), "b": [Parameter((3,), nn.init.zeros())]})
    assert [name for name, _ in layer.named_parameters()] == ["held.a", "held.b.0"]


def test_a_layer_that_is_added_later_is_found() -> None:
    layer = Holder([])
    assert layer.dtype is None
    layer.held.append(Linear(2, 2, dtype=np.float64))
    assert layer.dtype == np.float64
    assert len(layer.parameters()) == 2


@dataclasses.dataclass(eq=False)
class Config:
    layer: Any


@dataclasses.dataclass(eq=False, slots=True)
class Slots:
    layer: Any


NOT_FOUND = [
    (lambda: {linear()}, "set"),
    (lambda: frozenset([linear()]), "frozenset"),
    (lambda: [{"a": {linear()}}], "set"),
    (lambda: {linear(): 1}, "keys"),
    (lambda: {(1, 2): linear()}, "str or an int"),
    (lambda: {1: linear(), "1": linear()}, "two keys"),
    (lambda: Config(linear()), "Config"),
    (lambda: Slots(linear()), "Slots"),
    (lambda: Config([linear()]), "Config"),
    (lambda: types.SimpleNamespace(a=linear()), "SimpleNamespace"),
    (lambda: np.array([linear(), None], dtype=object), "ndarray"),
    (lambda: {"a": linear()}.values(), "dict_values"),
    (lambda: {Parameter((1,), nn.init.zeros())}, "set"),
    (lambda: (linear() for _ in range(2)), r"generator can be gone through once only.*list\("),
    (lambda: map(nn.Linear, (2, 2), (2, 2)), r"map can be gone through once only.*list\("),
]


@pytest.mark.parametrize(("make", "words"), NOT_FOUND)
def test_layers_that_would_not_be_found_are_refused(make: Any, words: str) -> None:
    with pytest.raises((TypeError, ValueError), match=rf"Holder.held.*{words}"):
        Holder(make())


def test_a_layer_put_into_a_set_later_is_refused_by_all_that_would_miss_it() -> None:
    layer = Holder(set())
    layer.held.add(linear())
    for call in (layer.parameters, layer.eval, layer.zero_grad, lambda: layer.astype(np.float64)):
        with pytest.raises(TypeError, match="set are not found"):
            call()


def test_what_holds_no_layers_is_kept_as_it_is() -> None:
    for held in ({1, 2}, Config(3), b"x", np.arange(3), {(1, 2): 3}, "words", range(3), None):
        assert Holder(held).held is held


def test_attributes_of_a_subclass_of_sequential_are_found() -> None:
    class Net(Sequential):
        def __init__(self) -> None:
            super().__init__(Linear(2, 3, rng=0), ReLU())
            self.head = Linear(3, 1, rng=0)

    names = [name for name, _ in Net().named_parameters()]
    assert names == ["0.weight", "0.bias", "head.weight", "head.bias"]


# --- dtype ----------------------------------------------------------------------------------


def test_dtype_follows_every_change() -> None:
    model = Sequential(Linear(3, 2, rng=0), Tanh())
    assert model.dtype == model[0].dtype == F32
    assert model[1].dtype is None
    model[0].astype(np.float64)
    assert model.dtype == model[0].dtype == np.float64
    model[0].weight = Parameter((3, 2), nn.init.zeros(), dtype=F32)
    assert model.dtype == model[0].dtype == F32
    layer = Holder(None)
    assert layer.dtype is None
    layer.held = model
    assert layer.dtype == F32
    model.stack = (Linear(3, 2, dtype=np.float64),)
    assert layer.dtype == np.float64
    layer.other = Parameter((1,), nn.init.zeros(), dtype=F32)
    assert layer.dtype == F32


def test_a_call_does_not_walk_the_tree(monkeypatch: pytest.MonkeyPatch) -> None:
    model = Sequential(Linear(3, 4, rng=0), Tanh(), Linear(4, 2, rng=0))
    model(X)

    def refuse(*_: Any) -> Any:
        raise AssertionError("walks")

    for name in ("layers", "parameters", "named_parameters", "children", "_members"):
        monkeypatch.setattr(Layer, name, refuse)
    model(X)


def test_the_steps_that_a_cell_keeps_are_no_part_of_the_tree(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Else a walk of it would take longer with every step."""
    cell = nn.LSTMCell(3, 4, rng=0)
    looked_at = [0]

    def counted(name: str, value: Any, kind: Any) -> Any:
        looked_at[-1] += 1
        return found_in(name, value, kind)

    found_in = nn.layer.found_in
    for module in (nn.layer, nn.members):
        monkeypatch.setattr(module, "found_in", counted)
    h, c = np.zeros((2, 4, 4), F32)
    for _ in range(2):
        for _ in range(10):
            h, c = cell(X, h, c)
        looked_at.append(0)
        list(cell.layers()), list(cell.parameters())
    assert looked_at[1] == looked_at[2]
    for _ in range(20):
        cell.backward(np.ones_like(h), np.ones_like(c))


def test_a_label_does_not_make_a_table(monkeypatch: pytest.MonkeyPatch) -> None:
    model = Sequential(Sequential(Linear(3, 2)))
    monkeypatch.setattr(Sequential, "__repr__", lambda self: "no" / 1)
    assert model.label == "Sequential"
    assert model[0].label == "layer 0 Sequential"


# --- what would do nothing --------------------------------------------------------------------


@pytest.mark.parametrize("path", ["m.bin", Path("m.bin")])
def test_saving_to_a_file_says_how(tmp_path: Path, path: Any) -> None:
    for model in (linear(), Sequential(linear())):
        for more in ((), (True,)):
            with pytest.raises(TypeError, match=re.escape("minidl.save(model, 'm.bin')")):
                model.save(path, *more)
    y = model(X[:, :2])
    with pytest.raises(TypeError, match="writes no file"):
        model.save(path)
    assert model.backward(np.ones_like(y)).shape == (4, 2)


def test_a_word_is_kept_in_a_forward_pass() -> None:
    class Spoken(Layer):
        def forward(self, x: np.ndarray) -> np.ndarray:  # type: ignore[override]
            self.save("tanh")
            return x

        def backward(self, dy: np.ndarray) -> Any:
            return self.saved(dy)

    layer = Spoken()
    assert layer.backward(layer(X)) == "tanh"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("load", "minidl.load"),
        ("fit", "Trainer"),
        ("compile", "Trainer"),
        ("predict", "Trainer"),
        ("state_dict", "minidl.save"),
        ("to", "astype"),
        ("nothing", "no attribute 'nothing'$"),
    ],
)
def test_methods_of_other_libraries(name: str, words: str) -> None:
    model = Sequential(linear())
    assert not hasattr(model, name)
    with pytest.raises(AttributeError, match=words):
        getattr(model, name)


@pytest.mark.parametrize("word", ["trainable", "requires_grad", "frozen"])
def test_attributes_that_would_do_nothing(word: str) -> None:
    with pytest.raises(AttributeError, match=r"freeze\(\)"):
        setattr(linear(), word, False)
    if word != "frozen":
        with pytest.raises(AttributeError, match=r"parameter\.frozen"):
            setattr(linear().weight, word, False)


def test_an_array_in_the_place_of_a_parameter() -> None:
    layer = linear()
    with pytest.raises(TypeError, match=r"Linear.weight is a parameter.*data"):
        layer.weight = np.ones((2, 2))
    layer.bias = None
    assert [name for name, _ in layer.named_parameters()] == ["weight"]


def test_hyper_parameters_that_an_optimizer_has_not() -> None:
    optimizer = optim.Adam(linear().parameters())
    for name in ("momentum", "learning_rate", "betas", "epsilon", "weight_decy", "clipnorm"):
        with pytest.raises(AttributeError, match="Adam has no"):
            setattr(optimizer, name, 0.5)
    optimizer.weight_decay = 0.5
    assert optimizer.weight_decay == 0.5


@pytest.mark.parametrize("name", ["_saved", "_output", "_earlier"])
def test_names_under_which_every_layer_keeps_something(name: str) -> None:
    """A layer there would be neither trained nor saved, and a method would be overwritten."""
    with pytest.raises(AttributeError, match=rf"Linear\.{name}: every layer keeps something"):
        setattr(nn.Linear(2, 2), name, nn.Linear(2, 2))
    with pytest.raises(AttributeError, match=rf"Own\.{name}: every layer keeps something"):
        type("Own", (nn.Layer,), {name: lambda self: None})


def test_backward_after_a_pass_in_evaluating_says_why_nothing_is_kept() -> None:
    layer, loss, x = nn.Linear(2, 2, rng=0), nn.MSELoss(), np.ones((3, 2), np.float32)
    with nn.evaluating():
        loss(layer(x), x)
    for backward in (loss.backward, lambda: layer.backward(x)):
        with pytest.raises(RuntimeError, match=r"outside of nn\.evaluating\(\)"):
            backward()


class Words(nn.Layer):
    """A model of one's own that takes indices, and hands them on."""

    takes_indices = True

    def __init__(self) -> None:
        self.embedding, self.linear = nn.Embedding(5, 3, rng=0), nn.Linear(3, 2, rng=1)

    def forward(self, x: np.ndarray) -> np.ndarray:
        return self.linear(self.embedding(x))

    def backward(self, dy: np.ndarray) -> None:
        self.embedding.backward(self.linear.backward(dy))


def test_an_own_layer_that_takes_indices_gets_them() -> None:
    model = Words()
    assert model(np.array([[1, 2], [3, 4]])).shape == (2, 2, 2)
    with pytest.raises(TypeError, match=r"Embedding.*expected an array of integers"):
        model(np.ones((2, 2), np.float32))
    trainer = minidl.Trainer(model, nn.CrossEntropyLoss(), optim.SGD(model.parameters(), lr=0.1))
    labels = np.array([[0, 1], [1, 0]])
    history = trainer.fit(np.array([[1, 2], [3, 4]]), labels, epochs=2, progress=False)
    assert history["loss"][1] < history["loss"][0]
    assert trainer.predict(np.array([[1, 2]])).shape == (1, 2, 2)
