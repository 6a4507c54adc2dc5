"""What containers refuse when they are built: dimensions, widths and sizes that cannot fit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from layer_helpers import as_tuple, inputs_of

from minidl import nn
from minidl.nn.container import form_after
from minidl.nn.containers import in_order
from minidl.nn.forms import Form

OURS = [cls for cls in nn.Layer.registry if cls.__module__.startswith("minidl.")]


def conv(dimensions: int = 2, **options: Any) -> nn.Layer:
    kind = (nn.Conv1d, nn.Conv2d)[dimensions - 1]
    return kind(options.pop("channels", 8), 8, 3, **options)


def form_of(x: np.ndarray) -> Form:
    return Form(nn.Identity(), frozenset({x.ndim}), x.shape[-1], ())


@pytest.mark.parametrize("cls", OURS, ids=lambda cls: cls.__name__)
def test_what_is_known_of_an_output_is_so(cls: type[nn.Layer]) -> None:
    rng = np.random.default_rng(0)
    for layer, shapes in cls.examples():
        inputs = inputs_of(shapes, rng)
        forms = tuple(map(form_of, inputs))
        outputs = as_tuple(layer(*inputs))
        whole = Form(nn.Identity(), parts=forms)
        for form in (forms[0] if len(forms) == 1 else whole, Form()):
            known = form_after(layer, form)
            for y, part in zip(outputs, known.parts or (known,), strict=known.parts is not None):
                assert y.ndim in part.ranks
                assert part.width in (None, y.shape[-1])


POOL: tuple[Callable[[], nn.Layer], ...] = (
    *(nn.ReLU, nn.Identity, nn.Flatten, nn.GlobalAvgPool, lambda: nn.GlobalMaxPool(keepdims=True)),
    *(lambda: nn.Flatten(2), lambda: nn.Upsample(2), lambda: nn.Upsample((1, 2))),
    *(lambda: nn.Linear(4, 4), lambda: nn.Linear(4, 3), lambda: nn.Linear(3, 4)),
    *(lambda: nn.LayerNorm(4), lambda: nn.BatchNorm(3), lambda: nn.RNNCell(4, 4)),
    *(lambda: nn.LSTM(4, 3), lambda: nn.GRU(3, 4, return_sequences=False)),
    *(lambda: nn.Conv1d(4, 3, 2), lambda: nn.Conv2d(4, 4, 3, padding=1)),
    *(lambda: nn.Conv2d(3, 4, 2), lambda: nn.MaxPool1d(2), lambda: nn.AvgPool2d(2)),
    *(lambda: nn.Split((1, 3)), lambda: nn.Concat(), lambda: nn.Select(1), lambda: nn.Add()),
    lambda: nn.ChannelsFirst(nn.Conv2d(4, 4, 1)),
)


class Unchecked:
    """Builds containers whose ``check_forms`` does nothing."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.monkeypatch = monkeypatch

    def __call__(self, build: Callable[[], nn.Layer]) -> nn.Layer:
        with self.monkeypatch.context() as patch:
            for kind in (nn.Sequential, nn.Residual, nn.Parallel):
                patch.setattr(kind, "check_forms", lambda self: None)
            patch.setattr(nn.Residual, "_check_sizes", lambda self: None)
            return build()


def random_layer(rng: np.random.Generator, depth: int) -> nn.Layer:
    """A layer of the pool, or a container of such layers, which need not fit."""
    kind = int(rng.integers(6)) if depth else 5
    if kind > 2:
        return POOL[rng.integers(len(POOL))]()
    count = int(rng.integers(1, 3 if kind == 1 else 4))
    inner = [random_layer(rng, depth - 1) for _ in range(count)]
    if kind == 0:
        return nn.Sequential(*inner)
    if kind == 1:
        return nn.Residual(*inner)
    return nn.Parallel(*inner, join=("concat", "add", "stack", None)[rng.integers(4)])


def accepts_anything(model: nn.Layer) -> bool:
    """Whether any input goes through: an array, or one for each branch that comes first."""
    first = next(in_order(model))
    count = len(first.branches) if isinstance(first, nn.Parallel) else 2
    for rank in range(2, 7):
        for width in (3, 4):
            for size in (1, 2, 5, 6, 8):
                x = np.ones((2, *(size,) * (rank - 2), width), np.float32)
                for inputs in ((x,), (x,) * count):
                    try:
                        model(*inputs)
                    except (ValueError, TypeError):
                        continue
                    return True
    return False


def refusal_of(build: Callable[[], nn.Layer]) -> str:
    """The words in which it refuses to be built; "" if it does not, and can be shown."""
    try:
        model = build()
    except ValueError as error:
        return str(error)
    assert len(repr(model).splitlines()) > 3
    return ""


@pytest.mark.parametrize("seed", range(40))
def test_what_is_refused_takes_no_input_at_all(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    unchecked, refused = Unchecked(monkeypatch), 0
    for number in range(25):

        def build(key: tuple[int, int] = (seed, number)) -> nn.Layer:
            rng = np.random.default_rng(key)
            return nn.Sequential(*(random_layer(rng, 2) for _ in range(rng.integers(2, 5))))

        words = refusal_of(build)
        if words:
            refused += 1
            model = unchecked(build)
            assert not accepts_anything(model), f"{words}\n{model}"
    assert refused


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (
            lambda: nn.Sequential(conv(1), conv(2)),
            r"Sequential: Conv1d\(8, 8, 3\) gives sequences \(batch, steps, features\), and "
            r"Conv2d\(8, 8, 3\) after it takes images \(batch, height, width, channels\)",
        ),
        (
            lambda: nn.Sequential(conv(), nn.ReLU(), nn.MaxPool1d(2)),
            r"ReLU\(\) gives images .*, and MaxPool1d\(2\) after it takes sequences",
        ),
        (lambda: nn.Sequential(conv(), nn.Flatten(), conv()), r"Flatten\(\) gives rows .*Conv2d"),
        (
            lambda: nn.Sequential(nn.LSTM(3, 4, return_sequences=False), nn.GRU(4, 4)),
            r"LSTM\(.*\) gives rows .*, and GRU\(4, 4\) after it takes sequences",
        ),
        (
            lambda: nn.Sequential(nn.Embedding(9, 3), nn.GRU(3, 4), nn.Upsample((2, 2))),
            r"GRU\(3, 4\) gives sequences .*, and Upsample\(\(2, 2\)\) after it takes images",
        ),
        (
            lambda: nn.Sequential(nn.GlobalAvgPool(), nn.Flatten(2)),
            r"gives rows .*, and Flatten\(2\) after it takes arrays of at least 3 dimensions",
        ),
        (
            lambda: nn.Sequential(
                conv(), nn.Parallel(nn.ReLU(), low=nn.Sequential(nn.Tanh(), conv(1)))
            ),
            r"Tanh\(\) gives images .*, and Conv1d\(8, 8, 3\) of branch low after it takes",
        ),
        (
            lambda: nn.Sequential(conv(), nn.Residual(nn.Sequential(nn.ReLU(), nn.Linear(4, 4)))),
            r"ReLU\(\) gives 8 features, and Linear\(4, 4\) of the body after it takes 4",
        ),
        (
            lambda: nn.Parallel(conv(), flat=nn.Sequential(nn.Flatten(), nn.Linear(9, 8))),
            r"Parallel: branch 0 Conv2d.* gives images .* and branch flat Sequential gives rows "
            r".*; join='concat' needs the same shape, the last dimension apart",
        ),
        (
            lambda: nn.Sequential(conv(), nn.Parallel(nn.Identity(), nn.GlobalAvgPool())),
            r"branch 0 Identity\(\) gives images .* and branch 1 GlobalAvgPool\(\) gives rows",
        ),
        (
            lambda: nn.Residual(nn.Linear(3, 4)),
            "Residual: the body gives 4 features, the shortcut 3; give a shortcut that maps",
        ),
        (
            lambda: nn.Residual(conv(padding=1), nn.Sequential(nn.Linear(8, 8), nn.Flatten())),
            "Residual: the body gives images .*, the shortcut rows",
        ),
        (
            lambda: nn.Residual(nn.Sequential(conv(padding=1), nn.ReLU(), conv())),
            r"of \(batch, 64, 64, 8\) the body makes \(batch, 62, 62, 8\), the shortcut \(batch, "
            r"64, 64, 8\); .* pad the convolutions",
        ),
        (
            lambda: nn.Residual(conv(1, padding=1), conv(1)),
            r"the body makes \(batch, 64, 8\), the shortcut \(batch, 62, 8\)",
        ),
    ],
)
def test_what_cannot_fit_is_refused_by_name(build: Callable[[], nn.Layer], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        build()


def test_inputs_of_several_kinds_go_each_to_its_branch() -> None:
    nn.Parallel(nn.Linear(3, 4), nn.GRU(3, 4, return_sequences=False), nn.Sequential(nn.Flatten()))
    nn.Sequential(nn.Parallel(nn.Linear(3, 4), nn.GRU(3, 4), conv(), join=None), nn.Select(2))
    nn.Residual(conv(padding=1, stride=2))  # images of one pixel stay what they are


class Halved(nn.Layer):
    """A user's layer, whose ``output_shape`` wants images with known sizes."""

    def forward(self, x: np.ndarray) -> np.ndarray:
        return x[:, ::2, ::2]

    def output_shape(self, input_shape: Any) -> Any:
        batch, height, width, channels = input_shape
        return batch, height // 2, width // 2, channels


class Turned(nn.Conv2d):
    """A user's layer that takes other inputs than its base."""

    def forward(self, x: np.ndarray) -> np.ndarray:
        return super().forward(x[:, None])


def test_of_users_layers_nothing_is_taken_for_granted() -> None:
    model = nn.Sequential(conv(), Halved(), conv())
    assert model(np.ones((2, 9, 9, 8), np.float32)).shape == (2, 2, 2, 8)
    assert "1 Halved() " in repr(model)
    nn.Sequential(conv(1, padding=1), Turned(8, 4, (1, 3)), nn.Conv1d(7, 1, 3))


class Sum(nn.Layer):
    """A user's layer of two inputs that says nothing of shapes."""

    def forward(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return a + b


def test_a_users_layer_of_two_inputs_gives_nothing_that_is_known() -> None:
    model = nn.Sequential(Sum(), nn.Split((1, 2)))
    x = np.ones((2, 3), np.float32)
    assert len(model(x, x)) == 2
    assert model.output_shape(((2, 3), (2, 3))) == (("batch", 1), ("batch", 2))
    assert "0 Sum() " in model.summary((3,), (3,))


@pytest.mark.parametrize("cls", [nn.RNN, nn.GRU, nn.LSTM])
def test_a_state_is_known_as_one(cls: Any) -> None:
    arrays = 1 + (cls is nn.LSTM)
    parts = [nn.Identity(), *(nn.Linear(2, 4) for _ in range(arrays))]
    heads = [nn.GlobalAvgPool(), *(nn.Linear(4, 4) for _ in range(arrays))]
    x, h = np.ones((2, 7, 3), np.float32), np.ones((2, 2), np.float32)
    model = nn.Sequential(nn.Parallel(*parts, join=None), cls(3, 4), nn.Parallel(*heads))
    assert model(x, *(h,) * arrays).shape == (2, 4 * (1 + arrays))
    begins = nn.Sequential(cls(3, 2), nn.Parallel(nn.GlobalAvgPool(), *(nn.Tanh(),) * arrays))
    assert begins(x, *(h,) * arrays).shape == (2, 2 * (1 + arrays))


def test_lengths_are_no_state_in_shapes() -> None:
    assert nn.GRU(2, 3).output_shape(((4, 7, 2), (4,))) == (4, 7, 3)
    assert nn.GRU(2, 3).output_shape(((4, 7, 2), (4, 3), (4,))) == ((4, 7, 3), (4, 3))


def test_another_number_of_states_than_a_layer_has_is_refused() -> None:
    rows = nn.Sequential(nn.GlobalAvgPool(), nn.Linear(2, 4))
    both = nn.Parallel(nn.Conv1d(2, 3, 1), rows, join=None)
    nn.Sequential(both, nn.GRU(3, 4))
    with pytest.raises(
        ValueError, match=r"Sequential: .*LSTM\(3, 4\): the state consists of 2 arr"
    ):
        nn.Sequential(both, nn.LSTM(3, 4))


@pytest.mark.parametrize(
    ("body", "shape"),
    [
        (lambda: nn.ChannelsFirst(nn.Conv2d(100, 100, 3, padding=1)), (1, 100, 3, 2)),
        (lambda: nn.ChannelsFirst(nn.Conv1d(65, 65, 1)), (1, 65, 2)),
        (lambda: nn.Sequential(nn.Upsample(2), nn.Conv1d(2, 2, 101)), (1, 100, 2)),
        (
            lambda: nn.Sequential(nn.Upsample((1, 2)), nn.Conv2d(2, 2, (1, 9), stride=(2, 1))),
            (1, 1, 8, 2),
        ),
        (lambda: nn.Sequential(nn.Conv1d(2, 2, 65), nn.Upsample(65)), (1, 65, 2)),
        (
            lambda: nn.Sequential(
                nn.Conv2d(4, 4, 1), nn.Parallel(nn.ReLU(), join="stack"), nn.Flatten(1, 2)
            ),
            (2, 3, 1, 4),
        ),
    ],
)
def test_bodies_that_keep_some_sizes_are_built(body: Any, shape: tuple[int, ...]) -> None:
    assert nn.Residual(body())(np.ones(shape, np.float32)).shape == shape


def test_a_subclass_shows_its_own_name() -> None:
    class Skip(nn.Residual):
        """A user's name for it."""

    class Towers(nn.Parallel):
        """A user's name for it."""

    assert repr(Skip(nn.Linear(2, 2))) == "Skip(Linear)"
    assert repr(Towers(nn.ReLU())) == "Towers(ReLU)"
