"""State dicts of PyTorch, read and written without PyTorch."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from random_stacks import disturbed, random_stack

import minidl
from minidl import nn
from minidl.saving import ModelFileError
from minidl.torch import StateDictError, load_state_dict, save_state_dict, state_dict


def write(path: Path, tensors: dict[str, tuple[str, tuple[int, ...], bytes]]) -> Path:
    """A safetensors file of these dtypes, shapes and bytes."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, (dtype, shape, numbers) in tensors.items():
        offsets = [end, end + len(numbers)]
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": offsets}
        end += len(numbers)
    text = json.dumps(header).encode()
    numbers = b"".join(numbers for _, _, numbers in tensors.values())
    path.write_bytes(len(text).to_bytes(8, "little") + text + numbers)
    return path


def test_numbers_of_16_bits_are_widened(tmp_path: Path) -> None:
    """Every finite float16, and every float32 that bfloat16 holds."""
    bits = np.arange(2**16, dtype=np.uint16)
    halves = bits.view(np.float16)
    upper = (bits.astype(np.uint32) << 16).view(np.float32)
    for dtype, expected in (("F16", halves.astype(np.float32)), ("BF16", upper)):
        path = write(tmp_path / "net", {"weight": (dtype, (2**16, 1), bits.tobytes())})
        model = nn.Embedding(2**16, 1)
        assert load_state_dict(path, model).complete
        np.testing.assert_array_equal(model.weight.data[:, 0], expected)


def test_every_dtype_is_read_as_the_safetensors_library_writes_it(tmp_path: Path) -> None:
    safetensors = pytest.importorskip("safetensors.numpy")
    for dtype in (np.float64, np.float32, np.float16):
        weight = np.random.default_rng(0).normal(size=(3, 3)).astype(dtype)
        tensors = {"weight": weight, "bias": weight[0].copy()}
        safetensors.save_file(tensors, tmp_path / "net")
        model = nn.Linear(3, 3)
        load_state_dict(tmp_path / "net", model)
        np.testing.assert_array_equal(model.weight.data, weight.T.astype(np.float32))
        x = np.eye(3, dtype=np.float32)
        np.testing.assert_allclose(model(x), x @ weight.T + weight[0], rtol=1e-6)


@pytest.mark.parametrize("seed", range(12))
def test_written_and_read_again_is_the_same_to_the_bit(seed: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(seed)
    model, x = random_stack(rng, recurrent=seed % 2 == 0)
    other, _ = random_stack(np.random.default_rng(seed), recurrent=seed % 2 == 0)
    disturbed(other, rng)
    save_state_dict(model, tmp_path / "net")
    assert load_state_dict(tmp_path / "net", other).complete
    np.testing.assert_array_equal(other(x), model(x))


def test_square_weights_are_transposed_as_all_others_are() -> None:
    weight = np.array([[1.0, 2], [3, 4]])
    model = nn.Sequential(nn.Linear(2, 2), nn.GRU(2, 2))
    tensors = state_dict(model) | {"0.weight": weight, "1.weight_hh_l0": np.tile(weight, (3, 1))}
    load_state_dict(tensors, model)
    np.testing.assert_array_equal(model[0].weight.data, weight.T)
    np.testing.assert_array_equal(model[1].cells[0].recurrent_weight.data, np.tile(weight.T, 3))
    np.testing.assert_array_equal(state_dict(model)["0.weight"], weight)


def test_biases_of_recurrent_layers() -> None:
    """An RNN and an LSTM add two up; a GRU needs both."""
    for kind, gates in ((nn.RNN, 1), (nn.LSTM, 4), (nn.GRU, 3)):
        layer, n = kind(2, 3), 3 * gates
        ours = state_dict(layer)
        given = {"bias_ih_l0": np.arange(n) + 1.0, "bias_hh_l0": 10.0 * np.arange(n)}
        load_state_dict(ours | given, layer)
        cell = layer.cells[0]
        if kind is nn.GRU:
            np.testing.assert_array_equal(cell.bias.data, given["bias_ih_l0"])
            np.testing.assert_array_equal(cell.recurrent_bias.data, given["bias_hh_l0"])
        else:
            np.testing.assert_array_equal(cell.bias.data, sum(given.values()))
            assert not state_dict(layer)["bias_hh_l0"].any()


# --- reports --------------------------------------------------------------------------------------


def test_numbers_that_a_dtype_has_no_room_for_are_reported() -> None:
    model = nn.Sequential(nn.Linear(2, 1))
    tensors: dict[str, Any] = {"0.weight": np.array([[1.0, -1e300]]), "0.bias": np.zeros(1)}
    with pytest.raises(StateDictError, match=r"0.weight holds -1e\+300, which float32 has no room"):
        load_state_dict(tensors, model)
    load_state_dict(tensors, model.astype(np.float64))
    assert model.stack[0].weight.data[1, 0] == -1e300
    tensors["0.bias"] = np.array([np.inf])  # was infinite before
    assert load_state_dict(tensors, model.astype(np.float64)).complete


def test_everything_that_is_wrong_is_reported_at_once() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm(4), nn.Linear(4, 2))
    before = {name: array.copy() for name, array in state_dict(model).items()}
    tensors: dict[str, Any] = dict(before)
    del tensors["0.bias"]
    tensors["head.weight"] = np.zeros((2, 2))
    tensors["0.weight"] = tensors["0.weight"].T
    tensors["2.bias"] = np.zeros(3)
    tensors["1.bias"] = np.zeros(4, np.int64)
    tensors["1.running_var"] = np.array([1, -2, 1, 1.0])
    with pytest.raises(StateDictError) as caught:
        load_state_dict(tensors, model)
    report = caught.value.report
    assert report.missing == ("0.bias",)
    assert report.unknown == ("head.weight",)
    assert report.misshapen == (
        "0.weight is (3, 4), expected (4, 3), the other way round",
        "1.bias is int64, expected float32",
        "1.running_var must be at least 0, and holds -2",
        "2.bias is (3,), expected (2,)",
    )
    assert all(name in str(caught.value) for name in ("0.bias", "head.weight", "2.bias is (3,)"))
    for name, array in state_dict(model).items():
        np.testing.assert_array_equal(array, before[name], err_msg="changed in spite of the error")
    tensors["1.weight"] = np.full(4, 7.0)
    loaded = load_state_dict(tensors, model, strict=False)
    assert loaded == report
    assert not loaded.complete
    np.testing.assert_array_equal(model[1].gamma.data, 7)


@pytest.mark.parametrize("change", ["missing", "unknown", "misshapen"])
def test_one_thing_wrong_is_enough(change: str) -> None:
    model = nn.Linear(2, 3, rng=0)
    tensors = state_dict(model)
    match change:
        case "missing":
            del tensors["bias"]
        case "unknown":
            tensors["other"] = np.zeros(2)
        case "misshapen":
            tensors["bias"] = np.zeros(2)
    with pytest.raises(StateDictError, match=f"\n{change}: (bias|other)"):
        load_state_dict(tensors, model)


def test_a_count_of_batches_may_be_missing() -> None:
    model = nn.BatchNorm(3)
    tensors = state_dict(model)
    assert tensors.pop("num_batches_tracked").dtype == np.int64
    assert load_state_dict(tensors, model).complete


def test_a_layer_that_is_there_twice_has_two_names() -> None:
    layer = nn.Linear(3, 3, rng=0)
    model = nn.Sequential(layer, nn.Tanh(), layer)
    tensors = state_dict(model)
    assert set(tensors) == {"0.weight", "0.bias", "2.weight", "2.bias"}
    assert load_state_dict(tensors, model).complete


class Scaled(nn.Layer):
    """y = s · x."""

    def __init__(self) -> None:
        self.scale = nn.Parameter((2, 2), nn.init.constant(1.0))


def test_layers_of_the_users() -> None:
    class Encoder(nn.Layer):
        """Two layers under names of their own."""

        def __init__(self) -> None:
            self.first, self.others = nn.Linear(2, 3), [nn.Linear(3, 3)]

    names = {"first.weight", "first.bias", "others.0.weight", "others.0.bias"}
    assert set(state_dict(Encoder())) == names
    with pytest.raises(TypeError, match=r"layer 0 Scaled\(\): it is not known how PyTorch keeps"):
        state_dict(nn.Sequential(Scaled()))


# --- files that are something else ----------------------------------------------------------------


def test_files_of_minidl_are_refused(tmp_path: Path) -> None:
    model = nn.Linear(2, 2, rng=0)
    minidl.save(model, tmp_path / "net")
    with pytest.raises(ModelFileError, match=r"write minidl\.load\(path, into=model\)"):
        load_state_dict(tmp_path / "net", model)
    save_state_dict(model, tmp_path / "net")
    with pytest.raises(ModelFileError, match="which way round"):
        minidl.load(tmp_path / "net", into=model)


def test_pickles_are_not_opened(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "new.pt", "w") as file:
        file.writestr("data.pkl", b"")
    (tmp_path / "old.pt").write_bytes(pickle.dumps({"weight": 1}, protocol=2))
    for name in ("new.pt", "old.pt"):
        with pytest.raises(ModelFileError, match="weights_only=True"):
            load_state_dict(tmp_path / name, nn.Linear(2, 2))


def test_damaged_files_change_nothing(tmp_path: Path) -> None:
    """Each byte of the header changed, and the file cut off everywhere."""
    model = nn.Linear(2, 1, rng=0)
    before = model.weight.data.copy()
    save_state_dict(nn.Linear(2, 1, rng=1), tmp_path / "net")
    whole = (tmp_path / "net").read_bytes()
    rng = np.random.default_rng(0)
    for place in range(0, len(whole) - 12, 2):
        changed = bytearray(whole)
        changed[place] ^= int(rng.integers(1, 256))
        for damaged in (bytes(changed), whole[:place]):
            (tmp_path / "net").write_bytes(damaged)
            try:
                load_state_dict(tmp_path / "net", model)
            except (ModelFileError, StateDictError):
                np.testing.assert_array_equal(model.weight.data, before)
            else:
                model.weight.data = before


def test_what_is_no_state_dict() -> None:
    with pytest.raises(TypeError, match="fills a model"):
        load_state_dict({}, "model")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="takes a model"):
        save_state_dict("model", "net")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="weight holds no numbers"):
        load_state_dict({"weight": "abc"}, nn.Linear(2, 2))
    with pytest.raises(OSError, match="net"):
        load_state_dict("no-such-net", nn.Linear(2, 2))


def test_pytorch_is_imported_only_when_it_is_needed() -> None:
    program = (
        "import sys, minidl, minidl.torch, minidl.c; from minidl import nn\n"
        "minidl.torch.state_dict(nn.Linear(2, 2))\n"
        "assert 'torch' not in sys.modules\n"
        "sys.modules['torch'] = None\n"
        "try: minidl.torch.to_torch(nn.Linear(2, 2))\n"
        "except ImportError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout == "minidl.torch needs PyTorch: pip install 'minidl[torch]'\n", done.stderr
