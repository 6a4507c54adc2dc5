"""Models to PyTorch and back: the same numbers, gradients, modes and names."""

from __future__ import annotations

import copy
import os
from collections import OrderedDict
from typing import Any

import numpy as np
import pytest
from layer_helpers import BRANCHES
from random_stacks import disturbed, random_stack

from minidl import nn
from minidl.torch import from_torch, load_state_dict, save_state_dict, state_dict, to_torch

torch = pytest.importorskip("torch")
torch.set_num_threads(1)

STACKS = int(os.environ.get("MINIDL_STACKS", "30"))
OURS = [cls for cls in nn.Layer.registry if cls.__module__.startswith("minidl.")]
T = torch.nn


def outputs(result: Any) -> list[np.ndarray]:
    results = result if isinstance(result, tuple) else (result,)
    return [y.detach().numpy() if hasattr(y, "detach") else y for y in results]


def assert_close(found: Any, expected: Any) -> None:
    for y, z in zip(outputs(found), outputs(expected), strict=True):
        scale = max(1.0, float(np.abs(z).max()))
        np.testing.assert_allclose(y, z, rtol=0, atol=1e-6 * scale)


def theirs(layer: Any, xs: list[np.ndarray]) -> list[Any]:
    """The inputs as a module takes them: the state of an LSTM is a pair."""
    x, *state = (torch.tensor(x) for x in xs)
    if isinstance(layer, BRANCHES):
        return [x, *state]
    if not isinstance(layer, nn.RNN | nn.LSTM | nn.GRU):
        return [x, *([tuple(state)] if len(state) > 1 else state)]
    stacked = tuple(h[None] for h in state)
    return [x, *([stacked if len(stacked) > 1 else stacked[0]] if state else [])]


# --- both ways ------------------------------------------------------------------------------------


@pytest.mark.parametrize("cls", OURS, ids=lambda cls: cls.__name__)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_examples_of_every_layer(cls: type[nn.Layer], dtype: Any) -> None:
    rng = np.random.default_rng(0)
    for layer, inputs in cls.examples():
        layer = disturbed(copy.deepcopy(layer).astype(dtype), rng).eval()
        dtype = layer.dtype or dtype
        xs = [x if isinstance(x, np.ndarray) else rng.normal(size=x).astype(dtype) for x in inputs]
        module = to_torch(layer)
        y = outputs(layer(*xs))
        result = module(*theirs(layer, xs))
        found = outputs(result) if isinstance(layer, BRANCHES) else outputs_of(result)
        assert_close(tuple(found), tuple(y))
        assert_close(from_torch(module)(*xs), tuple(y))


def outputs_of(result: Any) -> list[np.ndarray]:
    """All arrays of a module's result, without the axis of layers of a recurrent state."""
    if not isinstance(result, tuple):
        return [result.detach().numpy()]
    first, *rest = result
    states = [h for part in rest for h in (part if isinstance(part, tuple) else (part,))]
    return [first.detach().numpy(), *(h.detach().numpy().reshape(-1, h.shape[-1]) for h in states)]


@pytest.mark.parametrize("seed", range(STACKS))
def test_random_stacks(seed: int) -> None:
    rng = np.random.default_rng(seed)
    model, x = random_stack(rng, recurrent=seed % 3 == 0)
    module = to_torch(model)
    assert_close(module(torch.tensor(x)), model(x))
    again = from_torch(module)
    np.testing.assert_array_equal(again(x), model(x))
    assert repr(again) == repr(model)
    ours, tensors = state_dict(model), module.state_dict()
    assert list(ours) == list(tensors)
    for name, array in ours.items():
        np.testing.assert_array_equal(array, tensors[name].numpy(), err_msg=name)


@pytest.mark.parametrize("seed", range(20))
def test_a_step_of_training_is_the_same(seed: int) -> None:
    rng = np.random.default_rng(seed)
    model, x = random_stack(rng, recurrent=seed % 2 == 0)
    model.train().astype(np.float64)
    for _, layer in model.layers():
        if isinstance(layer, nn.Dropout):
            layer.eval()
    module = to_torch(model)
    again = from_torch(module)
    y = model(x := x.astype(np.float64))
    z = module(torch.tensor(x))
    np.testing.assert_allclose(y, z.detach().numpy(), rtol=1e-8, atol=1e-10)
    model.backward(np.cos(y))
    z.backward(torch.cos(z.detach()))
    assert [layer.training for _, layer in again.layers()] == [
        layer.training for _, layer in model.layers()
    ]
    again(x)
    again.backward(np.cos(y))
    for (name, ours), other in zip(model.named_parameters(), again.parameters(), strict=True):
        np.testing.assert_array_equal(ours.grad, other.grad, err_msg=name)
    gradients = copy.deepcopy(model)
    for parameter, ours in zip(gradients.parameters(), model.parameters(), strict=True):
        parameter.data = ours.grad
    ours = state_dict(gradients)
    for name, tensor in module.named_parameters():
        if "bias_hh" not in name:  # of an RNN or LSTM, a second one that is not needed
            # Not closer: of Hardsigmoid, the derivative of theirs is a sixth in float32.
            close = {"rtol": 1e-6, "atol": 1e-7, "err_msg": name}
            np.testing.assert_allclose(ours[name], tensor.grad.numpy(), **close)
    tensors = module.state_dict()
    for name, array in state_dict(model).items():  # running statistics, after the step
        if "num_batches" not in name:
            np.testing.assert_allclose(array, tensors[name].numpy(), rtol=1e-9, err_msg=name)


# --- modules of PyTorch's own ---------------------------------------------------------------------

MODULES = {
    "named": lambda: T.Sequential(
        OrderedDict(fc=T.Linear(3, 3), act=T.ReLU(), norm=T.LayerNorm(3))
    ),
    "batch norm": lambda: T.Sequential(T.Linear(3, 5), T.BatchNorm1d(5), T.PReLU(5), T.Dropout()),
    "without weights": lambda: T.Sequential(
        T.Linear(3, 4, bias=False),
        T.BatchNorm1d(4, affine=False),
        T.LayerNorm(4, elementwise_affine=False),
        T.RMSNorm(4, elementwise_affine=False),
    ),
    "softplus": lambda: T.Sequential(T.Linear(3, 4), T.Softplus(2.0), T.Softmax(-1)),
    "nested": lambda: T.Sequential(T.Sequential(T.Linear(3, 4), T.GELU()), T.Hardsigmoid()),
}


@pytest.mark.parametrize("build", MODULES.values(), ids=MODULES)
def test_modules(build: Any) -> None:
    torch.manual_seed(0)
    module = build().eval()
    x = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    assert_close(from_torch(module)(x), module(torch.tensor(x)))


@pytest.mark.parametrize("kind", ["RNN", "LSTM", "GRU"])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("both", [True, False])
def test_recurrent_modules(kind: str, bias: bool, both: bool) -> None:
    torch.manual_seed(0)
    words: dict[str, Any] = {"bias": bias, "bidirectional": both, "num_layers": 2}
    module = getattr(T, kind)(3, 4, batch_first=True, **words)
    x = np.random.default_rng(0).normal(size=(2, 5, 3)).astype(np.float32)
    assert_close(from_torch(module)(x), module(torch.tensor(x))[0])
    cell = getattr(T, f"{kind}Cell")(3, 4, bias=bias)
    state = [np.random.default_rng(1).normal(size=(2, 4)).astype(np.float32) for _ in range(2)]
    state = state[: 1 + (kind == "LSTM")]
    hs = tuple(torch.tensor(h) for h in state)
    assert_close(
        from_torch(cell)(x[:, 0], *state), cell(torch.tensor(x[:, 0]), hs if len(hs) > 1 else hs[0])
    )


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_dtypes_of_modules(dtype: str) -> None:
    module = T.Sequential(T.Linear(3, 3), T.LSTM(3, 2, batch_first=True)).to(getattr(torch, dtype))
    model = from_torch(module)
    assert model.dtype == (np.float64 if dtype == "float64" else np.float32)
    np.testing.assert_array_equal(model[0].weight.data, module[0].weight.detach().double().T)
    fresh = nn.Sequential(nn.Linear(3, 3), nn.LSTM(3, 2))
    assert load_state_dict(module.state_dict(), fresh).complete
    np.testing.assert_allclose(fresh[0].weight.data, model[0].weight.data, rtol=1e-7)


def test_files_travel_both_ways(tmp_path: Any) -> None:
    files = pytest.importorskip("safetensors.torch")
    model, x = random_stack(np.random.default_rng(1))
    module = to_torch(model)
    save_state_dict(model, tmp_path / "net")
    module.load_state_dict(files.load_file(tmp_path / "net"))
    assert_close(module(torch.tensor(x)), model(x))
    half = {name: tensor.bfloat16() for name, tensor in T.Linear(4, 4).state_dict().items()}
    files.save_file(half, tmp_path / "half")
    layer = nn.Linear(4, 4)
    load_state_dict(tmp_path / "half", layer)
    np.testing.assert_array_equal(layer.weight.data, half["weight"].float().numpy().T)


def test_weights_are_copied_and_not_shared() -> None:
    module = T.Linear(2, 2)
    model = from_torch(module)
    before = model.weight.data.copy()
    with torch.no_grad():
        module.weight.zero_()
    np.testing.assert_array_equal(model.weight.data, before)
    other = to_torch(model)
    model.weight.data = np.zeros((2, 2))
    np.testing.assert_array_equal(other.weight.detach().numpy().T, before)


def test_what_is_frozen_stays_so_and_what_is_shared_is_one() -> None:
    module = T.Linear(2, 2)
    module.bias.requires_grad_(False)
    twice = T.Sequential(module, T.Tanh(), module)
    model = from_torch(twice)
    assert model[0] is model[2]
    assert [p.frozen for p in model[0].own_parameters()] == [False, True]
    back = to_torch(nn.Sequential(model[0], nn.Linear(2, 2).freeze(), model[0]))
    assert back[0] is back[2]
    assert not any(p.requires_grad for p in back[1].parameters())
    assert [p.requires_grad for p in back[0].parameters()] == [True, False]


def test_parameters_that_two_modules_share_are_refused() -> None:
    first, second = torch.nn.Linear(3, 3), torch.nn.Linear(3, 3)
    second.weight = first.weight
    with pytest.raises(TypeError, match=r"0.weight and 1.weight are one parameter"):
        from_torch(torch.nn.Sequential(first, second))
    assert len(from_torch(torch.nn.Sequential(first, torch.nn.Tanh(), first)).parameters()) == 2


def test_random_numbers_of_pytorch_go_on_as_before() -> None:
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    to_torch(nn.Sequential(nn.Linear(3, 3), nn.LSTM(3, 3)))
    assert torch.equal(torch.rand(3), expected)


def test_lengths_of_time_and_states_in_pytorch() -> None:
    """A recurrent module returns y alone, or (y, state) if it is given one."""
    module = to_torch(nn.LSTM(3, 4, rng=0))
    x = torch.zeros(2, 5, 3)
    state = torch.zeros(1, 2, 4), torch.zeros(1, 2, 4)
    y, (h, _) = module(x, state)
    assert torch.equal(module(x), y)
    assert torch.equal(y[:, -1], h[0])


# --- what is refused ------------------------------------------------------------------------------


class Own(torch.nn.Module):
    """A module of the user's."""


class OwnLinear(torch.nn.Linear):
    """Computes something else than its base class, perhaps."""


class OwnSequence(torch.nn.Sequential):
    """Builds its modules by itself, and calls them as its base class does."""

    def __init__(self, width: int) -> None:
        super().__init__(T.Linear(width, width), T.BatchNorm1d(width), T.ReLU())


class OwnOrder(torch.nn.Sequential):
    """Calls its modules in another order."""

    def forward(self, x: Any) -> Any:
        for module in reversed(self):
            x = module(x)
        return x


class OwnLayer(nn.Layer):
    """A layer of the user's."""

    def forward(self, x: Any) -> Any:
        return x


def hooked() -> Any:
    module = T.Linear(2, 2)
    module.register_forward_hook(lambda *args: None)
    return module


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (Own, "Own has no counterpart"),
        (lambda: OwnLinear(2, 2), "OwnLinear has no counterpart"),
        (lambda: OwnOrder(T.Linear(2, 2)), "OwnOrder has no counterpart"),
        (lambda: T.ConvTranspose2d(1, 1, 3), "ConvTranspose2d has no counterpart"),
        (lambda: T.utils.parametrizations.weight_norm(T.Linear(2, 2)), "no counterpart"),
        (hooked, "Linear has hooks"),
        (lambda: T.Softmax(dim=1), "Softmax is over axis 1"),
        (lambda: T.LSTM(2, 2), "batch_first=True"),
        (lambda: T.LSTM(3, 2, proj_size=1, batch_first=True), "proj_size=1"),
        (lambda: T.BatchNorm1d(2, momentum=None), "momentum=None"),
        (lambda: T.BatchNorm1d(2, track_running_stats=False), "no running statistics"),
        (lambda: T.LayerNorm((2, 2)), "over 2 axes"),
        (lambda: T.Embedding(3, 2, max_norm=1.0), "max_norm"),
        (lambda: T.Embedding(3, 2, padding_idx=0), r"padding_idx=0,.* module\.padding_idx = None"),
        (lambda: T.Embedding(3, 2, scale_grad_by_freq=True), "scale_grad_by_freq"),
        (lambda: T.LeakyReLU(2.0), "LeakyReLU cannot be taken: slope must be"),
        (lambda: T.Dropout(1.0), "Dropout cannot be taken: p must be"),
        (lambda: T.LazyLinear(3), "LazyLinear does not know its sizes yet"),
        (lambda: T.LazyBatchNorm1d(), "LazyBatchNorm1d does not know its sizes yet"),
        (lambda: T.Softplus(threshold=3), "linear from threshold=3"),
    ],
)
def test_modules_that_cannot_be_converted_are_named(build: Any, words: str) -> None:
    model = T.Sequential(T.Linear(2, 2), T.Sequential(build()))
    with pytest.raises(TypeError, match=rf"from_torch: module 1\.0 .*{words}"):
        from_torch(model)


def test_layers_that_cannot_be_converted_are_named() -> None:
    with pytest.raises(TypeError, match=r"layer 1\.body OwnLayer\(\) has no counterpart"):
        to_torch(nn.Sequential(nn.Linear(2, 2), nn.Residual(OwnLayer())))
    with pytest.raises(ValueError, match="stateful=None"):
        to_torch(nn.GRU(2, 2, stateful=3))
    with pytest.raises(TypeError, match="takes a model"):
        to_torch(T.Linear(2, 2))
    with pytest.raises(TypeError, match="from_torch takes a module of PyTorch, got str"):
        from_torch("module")


def test_classes_of_sequences() -> None:
    module = T.Sequential(OwnSequence(3), OwnSequence(3), T.Linear(3, 2)).eval()
    x = torch.randn(4, 3)
    model = from_torch(module)
    assert_close(model(x.numpy()), module(x))
    assert list(state_dict(model)) == list(module.state_dict())


def test_options_of_gradients_are_not_needed_without_them() -> None:
    module = T.Embedding(5, 2, padding_idx=1, scale_grad_by_freq=True).requires_grad_(False)
    x = np.array([[0, 1, 4]])
    np.testing.assert_array_equal(from_torch(module)(x), module(torch.tensor(x)).numpy())


@pytest.mark.parametrize(
    "module",
    [
        T.BatchNorm1d(3, affine=False),
        T.LayerNorm(3, elementwise_affine=False),
        T.LayerNorm(3, bias=False),
        T.RMSNorm(3, elementwise_affine=False),
        T.LSTM(3, 2, bias=False, batch_first=True),
        T.GRUCell(3, 2, bias=False),
    ],
    ids=repr,
)
def test_what_a_module_does_without_is_not_trained(module: Any) -> None:
    trained = [parameter for parameter in from_torch(module).parameters() if not parameter.frozen]
    assert len(trained) == len(list(module.parameters()))


def test_tensors_without_real_numbers_are_refused_by_name() -> None:
    with pytest.raises(TypeError, match=r"1\.weight is on PyTorch's meta device"):
        from_torch(T.Sequential(T.Tanh(), T.Linear(2, 2, device="meta")))
    with pytest.raises(TypeError, match="state dict: weight is complex64, and minidl has real"):
        from_torch(T.Linear(2, 2, dtype=torch.cfloat))
    with pytest.raises(TypeError, match="state dict: weight is complex128"):
        load_state_dict({"weight": np.ones((2, 2), complex)}, nn.Linear(2, 2))


def test_names_of_tensors_must_be_strings() -> None:
    with pytest.raises(TypeError, match="names of tensors must be strings, got 1"):
        load_state_dict({1: np.zeros(3)}, nn.Linear(2, 3))  # type: ignore[dict-item]
