"""Every kernel agrees with its twin: on every instruction set, shape, layout, thread count."""

from __future__ import annotations

import ctypes
import importlib
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_cases import (
    BLOCKED,
    CASES,
    EXACT,
    IN_PLACE,
    Args,
    Draw,
    copied,
    outcome,
    widened,
)

from minidl import _kernels, kernels
from minidl._kernels import twins as reference
from minidl._kernels.signature import KERNELS

DTYPES = [np.float32, np.float64]
PRODUCTS = ["matmul", "linear", "linear_grad_input", "linear_grad_params"]
TRANSPOSES = list(itertools.product([False, True], repeat=2))
TOLERANCE = {np.dtype(np.float32): 1e-5, np.dtype(np.float64): 1e-13}

every_kernel = pytest.mark.parametrize("name", _kernels.NAMES)
every_dtype = pytest.mark.parametrize("dtype", DTYPES)


def kernel(name: str) -> Callable[..., Any]:
    return getattr(kernels, name)


def assert_close(got: Any, exact: Any, like: Any, dtype: Any, what: str) -> None:
    """got has the type and shape of `like`, and the value of `exact` up to rounding in dtype."""
    if not isinstance(got, np.ndarray):
        assert got == like, what
        return
    assert (got.dtype, got.shape) == (like.dtype, like.shape), what
    if got.dtype.names:
        assert_close(*(np.array(x.tolist()) for x in (got, exact, like)), dtype, what)
    elif got.dtype.kind == "f":
        largest = max(1.0, np.abs(exact[np.isfinite(exact)], dtype=np.float64).max(initial=0))
        np.testing.assert_allclose(
            got, exact, rtol=0, atol=TOLERANCE[dtype] * largest, err_msg=what
        )
    else:
        np.testing.assert_array_equal(got, exact, what)


def assert_matches_twin(name: str, draw: Draw) -> None:
    args = CASES[name](draw)
    got = outcome(kernel(name), copied(args))
    twin = outcome(getattr(reference, name), copied(args))
    wide = draw.dtype == np.float32
    exact = outcome(getattr(reference, name), widened(args)) if wide else twin
    for i, parts in enumerate(zip(got, exact, twin, strict=True)):
        assert_close(*parts, draw.dtype, f"{name}, part {i}, shapes {shapes_of(args)}")
    if name in EXACT:
        assert_same_bits(got, twin, name)
    for argument in args.keys() - IN_PLACE.get(name, set()) - {"state"}:
        after = dict(zip(args, got[-len(args) :], strict=True))[argument]
        assert_same_bits([after], [args[argument]], f"{name} changed {argument}")


def assert_same_bits(got: list[Any], expected: list[Any], what: str) -> None:
    for a, b in zip(got, expected, strict=True):
        if isinstance(a, np.ndarray):
            assert (a.dtype, a.tobytes()) == (b.dtype, b.tobytes()), what
        else:
            assert a == b, what


def shapes_of(args: Args) -> dict[str, Any]:
    return {name: getattr(value, "shape", value) for name, value in args.items()}


def test_every_kernel_has_a_case() -> None:
    missing = [name for name in _kernels.NAMES if name not in CASES]
    assert not missing, f"kernels without a case in kernel_cases.py: {missing}"


# --- against the twin -------------------------------------------------------------------


@every_kernel
@every_dtype
def test_matches_its_twin(isa: str, name: str, dtype: Any) -> None:
    for seed in range(15):
        assert_matches_twin(name, Draw(seed, dtype))


@pytest.mark.parametrize("name", PRODUCTS)
@every_dtype
def test_product_across_the_blocking_limits(isa: str, name: str, dtype: Any) -> None:
    for seed, product in enumerate(BLOCKED):
        assert_matches_twin(name, Draw(seed, dtype, product=product))


@pytest.mark.parametrize("activation", ["relu", "sigmoid", "tanh"])
@every_dtype
def test_fused_activation_is_the_activation_after_the_product(
    isa: str, activation: str, dtype: Any
) -> None:
    for seed, product in enumerate([(46, 45, 7), (127, 10, 127), (3, 300, 1030)]):
        args = CASES["linear"](Draw(seed, dtype, product=product)) | {"activation": None}
        fused = kernels.linear(**args | {"activation": activation})
        assert np.array_equal(fused, kernel(activation)(kernels.linear(**args)))


@pytest.mark.parametrize(("transpose_a", "transpose_b"), TRANSPOSES)
@every_dtype
def test_identity_leaves_a_matrix_as_it_is(
    isa: str, dtype: Any, transpose_a: bool, transpose_b: bool
) -> None:
    draw = Draw(0, dtype)
    for m, n in [*itertools.product((1, 7, 45, 127), repeat=2), (50, 600), (1030, 260)]:
        a = draw.array(*((n, m) if transpose_a else (m, n)))
        eye = np.eye(n, dtype=dtype)
        expected = a.T if transpose_a else a
        assert np.array_equal(kernels.matmul(a, eye, None, transpose_a, transpose_b), expected)
        assert np.array_equal(
            kernels.matmul(eye, a, None, transpose_b, not transpose_a), expected.T
        )


LARGE = [(70, 1100, 1000), (100, 1030, 1030)]  # few rows times a B that is far from the core


@pytest.mark.parametrize(("transpose_a", "transpose_b"), TRANSPOSES)
@every_dtype
def test_product_of_whole_numbers_is_exact(
    isa: str, dtype: Any, transpose_a: bool, transpose_b: bool
) -> None:
    draw = Draw(1, dtype)
    for m, k, n in [*(draw.product() for _ in range(40)), *BLOCKED, *LARGE]:
        a, b = (draw.rng.integers(-8, 9, shape) for shape in ((m, k), (k, n)))
        given_a = np.ascontiguousarray(a.T if transpose_a else a).astype(dtype)
        given_b = np.ascontiguousarray(b.T if transpose_b else b).astype(dtype)
        got = kernels.matmul(given_a, given_b, None, transpose_a, transpose_b)
        assert np.array_equal(got, (a.astype(float) @ b.astype(float))), (m, k, n)


@every_dtype
def test_rows_of_a_product_do_not_depend_on_each_other(isa: str, dtype: Any) -> None:
    """So that steps of a sequence, one by one or in chunks, are those of the whole."""
    draw = Draw(2, dtype)
    for k, n in itertools.product((1, 9, 64, 65, 300, 800), (1, 2, 4, 5, 45, 260, 700)):
        x, weight, bias = draw.array(140, k), draw.array(k, n), draw.array(n)
        whole = kernels.linear(x, weight, bias)
        for begin, end in ((0, 1), (1, 3), (3, 10), (10, 80)):
            part = kernels.linear(x[begin:end], weight, bias)
            assert np.array_equal(part, whole[begin:end]), (end - begin, k, n)


@every_dtype
def test_product_does_not_depend_on_where_its_operands_lie(isa: str, dtype: Any) -> None:
    """Which of them are packed does depend on it."""
    draw = Draw(3, dtype)
    for m, k, n in ((30, 300, 200), (30, 7, 128), (60, 300, 260), (140, 9, 130)):
        a, b = draw.array(m, k), draw.array(k, n)
        results = {
            kernels.matmul(shifted(a, elements), shifted(b, elements)).tobytes()
            for elements in range(17)
        }
        assert len(results) == 1, (m, k, n)


def shifted(x: np.ndarray, elements: int) -> np.ndarray:
    """A copy so many elements after a multiple of 64 bytes."""
    memory = bytearray(x.nbytes + 64 + elements * x.itemsize)
    start = -np.frombuffer(memory, np.uint8).ctypes.data % 64 + elements * x.itemsize
    y = np.ndarray(x.shape, x.dtype, memory, start)
    y[...] = x
    return y


@every_dtype
def test_product_over_nothing_is_zero(isa: str, dtype: Any) -> None:
    out = np.full((3, 4), np.nan, dtype)
    kernels.matmul(np.ones((3, 0), dtype), np.ones((0, 4), dtype), out)
    assert np.array_equal(out, np.zeros((3, 4)))
    out[0] = np.nan
    kernels.matmul(np.ones((1, 0), dtype), np.ones((0, 4), dtype), out[:1])
    assert np.array_equal(out[0], np.zeros(4))
    assert kernels.matmul(np.ones((0, 3), dtype), np.ones((3, 2), dtype)).shape == (0, 2)
    for m in (3, 300):
        assert kernels.matmul(np.ones((m, 99), dtype), np.ones((99, 0), dtype)).shape == (m, 0)
        dx = kernels.linear_grad_input(np.ones((m, 5), dtype), np.ones((0, 5), dtype))
        assert dx.shape == (m, 0)
    with pytest.raises(ValueError, match="widths >= 1"):
        kernels.linear(np.ones((3, 99), dtype), np.ones((99, 0), dtype))


@every_dtype
def test_matmul_writes_nothing_but_its_output(isa: str, dtype: Any) -> None:
    for m, n in itertools.product((1, 5, 7, 13, 45), repeat=2):
        frame = np.full(m * n + 128, 7, dtype)
        out = frame[64 : 64 + m * n].reshape(m, n)
        kernels.matmul(np.ones((m, 3), dtype), np.ones((3, n), dtype), out)
        assert (out == 3).all()
        assert (frame[:64] == 7).all()
        assert (frame[-64:] == 7).all()


# --- threads ----------------------------------------------------------------------------


@pytest.fixture
def shares() -> Iterator[Callable[[int], None]]:
    dispatch = pytest.importorskip("minidl._kernels.dispatch")
    yield dispatch.set_shares
    dispatch.set_shares(1)


def check_shares(shares: Callable[[int], None], name: str, args: Any) -> None:
    shares(1)
    alone = outcome(kernel(name), copied(args))
    for n in (2, 3, 4, 7, 16):
        shares(n)
        together = outcome(kernel(name), copied(args))
        assert_same_bits(together, alone, f"{name} in {n} shares, {shapes_of(args)}")


@every_kernel
@every_dtype
def test_number_of_shares_changes_no_bit(
    isa: str, shares: Callable[[int], None], name: str, dtype: Any
) -> None:
    few, many = [(1, 1000, 300), (2, 70, 3)], [(127, 45, 130), (250, 520, 130), (300, 40, 700)]
    for seed, product in enumerate([*few, (13, 300, 530), *many]):
        draw = Draw(seed, dtype, (45, 127, 130), (1023, 5000, 30011), product)
        check_shares(shares, name, CASES[name](draw))


@pytest.mark.parametrize("name", ["linear", "linear_grad_params"])
@every_dtype
def test_shares_of_a_column_times_a_row(
    isa: str, shares: Callable[[int], None], name: str, dtype: Any
) -> None:
    for seed, (m, n) in enumerate([(784, 10), (64, 2), (33, 7), (9, 45), (70, 64), (130, 700)]):
        product = (m, 1, n) if name == "linear" else (1, m, n)
        check_shares(shares, name, CASES[name](Draw(seed, dtype, (), (), product)))


def test_bad_label_is_the_first_one_for_any_number_of_shares(
    isa: str, shares: Callable[[int], None]
) -> None:
    labels = np.zeros(200, int)
    labels[[70, 71, 199]] = 5, -1, 9
    for n in (1, 2, 7, 16):
        shares(n)
        with pytest.raises(ValueError, match="label 5 in row 70"):
            kernels.softmax_cross_entropy(np.zeros((200, 5), np.float32), labels)


# --- layouts ----------------------------------------------------------------------------


def spread_out(x: np.ndarray) -> np.ndarray:
    wide = np.zeros((*x.shape, 3), x.dtype)
    wide[..., 1] = x
    return wide[..., 1]


def backwards(x: np.ndarray) -> np.ndarray:
    turn = (slice(None, None, -1),) * x.ndim
    return x[turn].copy()[(*turn, ...)]


def read_only(x: np.ndarray) -> np.ndarray:
    x = x.copy()
    x.flags.writeable = False
    return x


def misaligned(x: np.ndarray) -> np.ndarray:
    y = np.ndarray(x.shape, x.dtype, bytearray(x.nbytes + 1), offset=1)
    y[...] = x
    return y


LAYOUTS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "strided": spread_out,
    "fortran": np.asfortranarray,
    "backwards": backwards,
    "read-only": read_only,
    "byte-swapped": lambda x: x.astype(x.dtype.newbyteorder()),
    "misaligned": misaligned,
}


@every_kernel
@every_dtype
@pytest.mark.parametrize("layout", LAYOUTS)
def test_layout_of_inputs_changes_no_bit(isa: str, name: str, dtype: Any, layout: str) -> None:
    for seed in range(6):
        args = CASES[name](Draw(seed, dtype, sizes=(7, 10, 45)))
        inputs = {
            key: LAYOUTS[layout](x)
            for key, x in args.items()
            if isinstance(x, np.ndarray) and key not in IN_PLACE.get(name, ()) and key != "state"
        }
        plain = outcome(kernel(name), copied(args))
        other = outcome(kernel(name), copied(args) | inputs)
        results = len(plain) - len(args)
        assert_same_bits(other[:results], plain[:results], f"{name}, {layout}")
        for key, after, expected in zip(args, other[results:], plain[results:], strict=True):
            if key not in inputs:
                assert_same_bits([after], [expected], f"{name}, {layout}: {key}")


@pytest.mark.parametrize(
    ("name", "key"), [(n, k) for n, keys in IN_PLACE.items() for k in sorted(keys) if n != "clip"]
)
@pytest.mark.parametrize("layout", [name for name in LAYOUTS if name != "fortran"])
def test_array_to_be_changed_must_be_contiguous_and_writeable(
    isa: str, name: str, key: str, layout: str
) -> None:
    draws = (CASES[name](Draw(seed, np.float32, (7, 10), (7, 10))) for seed in itertools.count())
    args = next(args for args in draws if args[key] is not None)
    args[key] = LAYOUTS[layout](args[key])
    before = copied(args)
    with pytest.raises((ValueError, TypeError)):
        kernel(name)(**args)
    assert_same_bits(list(args.values()), list(before.values()), "half-updated")


@every_dtype
def test_matmul_takes_broadcast_and_sliced_matrices(isa: str, dtype: Any) -> None:
    draw = Draw(2, dtype)
    big = draw.array(60, 70)
    row = np.broadcast_to(draw.array(1, 45), (31, 45))
    for a in (row, big[3:34, 5:50], big[::2, 1:68:3], big[::-1, ::-1][:7], big.T[9:54].T):
        b = draw.array(a.shape[1], 10)
        assert np.array_equal(kernels.matmul(a, b), kernels.matmul(a.copy(), b))
        assert np.array_equal(kernels.matmul(b.T, a.T), kernels.matmul(b.T.copy(), a.T.copy()))


# --- wrong arguments --------------------------------------------------------------------


def matrices(*shapes: tuple[int, ...], dtype: Any = np.float32) -> list[np.ndarray]:
    return [np.ones(shape, dtype) for shape in shapes]


def test_matmul_rejects_shapes_that_do_not_fit(isa: str) -> None:
    a, b = matrices((2, 3), (4, 5))
    with pytest.raises(ValueError, match=r"\(2, 3\) and \(4, 5\)"):
        kernels.matmul(a, b)
    with pytest.raises(ValueError, match="first transposed"):
        kernels.matmul(a, b, transpose_a=True)
    with pytest.raises(TypeError, match="float32 and float64"):
        kernels.matmul(a, np.ones((3, 2)))
    with pytest.raises(TypeError, match="int64"):
        kernels.matmul(np.ones((2, 2), np.int64), np.ones((2, 2), np.int64))


def test_matmul_checks_out(isa: str) -> None:
    a, b, out = matrices((2, 3), (3, 4), (2, 4))
    assert kernels.matmul(a, b, out) is out
    with pytest.raises(ValueError, match=r"\(2, 4\), got \(4, 2\)"):
        kernels.matmul(a, b, np.ones((4, 2), np.float32))
    with pytest.raises(TypeError):
        kernels.matmul(a, b, np.ones((2, 4)))
    with pytest.raises(ValueError, match="contiguous"):
        kernels.matmul(a, b, np.asfortranarray(out))


@pytest.mark.parametrize("offset", [-8, -1, 0, 1, 8])
def test_matmul_sees_out_overlap_an_input(isa: str, offset: int) -> None:
    memory = np.ones(100, np.float32)
    a, out = memory[40:49].reshape(3, 3), memory[40 + offset : 49 + offset].reshape(3, 3)
    for x in (a, a[::-1, ::-1], a.T):
        for pair in ((x, np.eye(3, dtype=np.float32)), (np.eye(3, dtype=np.float32), x)):
            with pytest.raises(ValueError, match="overlaps"):
                kernels.matmul(*pair, out)
    beside = memory[49:58].reshape(3, 3)
    assert kernels.matmul(a, a, beside) is beside


@pytest.mark.parametrize(
    ("name", "changed", "other"),
    [
        ("linear_grad_params", "dweight", "x"),
        ("linear_grad_params", "dbias", "dy"),
        ("batch_norm", "running_mean", "running_var"),
        ("batch_norm", "running_var", "x"),
        ("batch_norm_grad", "dgamma", "dbeta"),
        ("batch_norm_grad", "dbeta", "gamma"),
        ("layer_norm_grad_params", "dgamma", "dbeta"),
        ("layer_norm_grad_params", "dbeta", "dy"),
        ("prelu_grad", "dslope", "dy"),
        ("sgd", "data", "grad"),
        ("sgd", "velocity", "grad"),
        ("adam", "m", "v"),
        ("adam", "data", "m"),
    ],
)
def test_what_is_changed_in_place_must_lie_apart(
    isa: str, name: str, changed: str, other: str
) -> None:
    args = CASES[name](Draw(1, np.float32, (4,), (64,)))
    if args.get(changed) is None:
        args[changed] = np.ones_like(args["data"])
    size = max(args[changed].size, args[other].size)
    memory = np.ones(size + 1, np.float32)
    for key, start in ((changed, 1), (other, 0)):
        shape = args[key].shape
        args[key] = memory[start : start + args[key].size].reshape(shape)
    with pytest.raises(ValueError, match="overlaps"):
        kernel(name)(**args)


ODD_DTYPES = ["f4", "f8", ">f4", ">f8", "f2", "c8", "i4", "u8", "?", "O", "U3", "M8[s]"]
odd_arrays = st.builds(
    lambda shape, dtype: np.zeros(shape, dtype),
    st.lists(st.sampled_from([0, 1, 2, 3, 7]), max_size=4),
    st.sampled_from(ODD_DTYPES),
)
odd_things = st.one_of(odd_arrays, st.sampled_from([None, 1, -1, 1e300, float("nan"), "relu", [1]]))


@every_kernel
@settings(max_examples=50)
@given(data=st.data())
def test_wrong_arguments_raise_and_change_nothing(name: str, data: st.DataObject) -> None:
    if _kernels.isa == "reference":
        pytest.skip("the twin leaves its checks to NumPy")
    args = CASES[name](Draw(data.draw(st.integers(0, 20)), np.float32, (1, 2, 3, 7), (1, 7)))
    for key in data.draw(st.lists(st.sampled_from(sorted(args)), min_size=1, max_size=2)):
        args[key] = data.draw(odd_things)
    before = copied(args)
    try:
        kernel(name)(**args)
    except (TypeError, ValueError):
        for key, value in before.items():
            if isinstance(value, np.ndarray) and value.dtype != object:
                assert args[key].tobytes() == value.tobytes(), f"{key} was half-updated"


@pytest.mark.parametrize("activation", ["relu_grad", "tanh_grad", "silu", "square", 1])
def test_a_product_applies_activations_only(isa: str, activation: Any) -> None:
    """A gradient needs what was activated, which a call from Python does not give."""
    x = np.ones((3, 3), np.float32)
    with pytest.raises(ValueError, match=f"unknown activation {activation!r}"):
        kernels.linear(x, x, activation=activation)
    with pytest.raises(ValueError, match=r"activation must be .*tanh"):
        kernels.rnn_sequence(x[:, None], x, activation=activation)


@every_dtype
@pytest.mark.parametrize(("moment", "change"), [(np.nan, np.nan), (np.inf, 0.0)])
def test_a_moment_that_is_no_number_is_not_hidden(
    isa: str, dtype: Any, moment: float, change: float
) -> None:
    """Divisions by NaN and by infinity, in whole vectors and in what is left of one."""
    arguments = CASES["adam"](Draw(0, dtype, lengths=(1023,)))
    before = arguments["data"].copy()
    arguments["v"][...] = moment
    arguments["state"]["weight_decay"] = 0.0
    kernels.adam(**arguments)
    assert np.array_equal(arguments["data"] - before, np.full(1023, change), equal_nan=True)


def test_threads_share_losses_without_reduction(isa: str) -> None:
    """Two shares write all of them, and none alone."""
    kernel, call = KERNELS["mse"], importlib.import_module("minidl._kernels.call").CALLS["mse"]
    n = 5000
    x, gradient, losses = np.ones(n, np.float32), np.zeros(n, np.float32), np.zeros(n)
    args = bytearray(call.nbytes)
    arrays = {"prediction": x, "target": 0 * x, "dprediction": gradient, "losses": losses}
    for name, array in arrays.items():
        kernel.set(args, name, array.ctypes.data)
    for name, value in {"n": n, "rows": 1, "scale": 1.0, "each": 1}.items():
        kernel.set(args, name, value)
    run = ctypes.CFUNCTYPE(ctypes.c_ssize_t, ctypes.c_void_p, ctypes.c_int, ctypes.c_int)
    loop, struct = run(call.function(0)), (ctypes.c_char * len(args)).from_buffer(args)
    loop(ctypes.addressof(struct), 1, 2)
    assert 0 < np.count_nonzero(losses) == np.count_nonzero(gradient) < n
    loop(ctypes.addressof(struct), 0, 2)
    assert (losses == 1).all()
    assert (gradient == 2).all()


# --- arguments that run Python code -------------------------------------------------------


class Shrinking:
    """A number that shrinks an array when it is converted."""

    def __init__(self, array: np.ndarray, number: float) -> None:
        self.array, self.number = array, number

    def shrink(self) -> float:
        self.array.resize((1, *self.array.shape[1:]), refcheck=False)
        return self.number

    __float__ = shrink

    def __index__(self) -> int:
        return int(self.shrink())

    def __bool__(self) -> bool:
        return bool(self.shrink())


def scalars_of(name: str) -> list[str]:
    """The parameters of a kernel that are numbers."""
    named = {scalar.name for scalar in KERNELS[name].scalars if scalar.kind != "int"}
    return [parameter for parameter in KERNELS[name].parameters if parameter in named]


def arrays_after(name: str, args: Args) -> list[np.ndarray] | None:
    """The results and arguments of a call that are arrays; None if it raises."""
    try:
        return [x for x in outcome(kernel(name), args) if isinstance(x, np.ndarray)]
    except (TypeError, ValueError):
        return None


@every_kernel
def test_a_number_that_resizes_an_array_leads_nowhere_else(isa: str, name: str) -> None:
    """The call sees the array as it is after all numbers are converted."""
    scalars = scalars_of(name)
    if name == "time_first":
        scalars = ["width"]
    if name in ("softmax_cross_entropy", "nll"):
        scalars = ["ignore_index"]
    for scalar in scalars:
        args = CASES[name](Draw(3, np.float32, (37,), (300,)))
        place = next(key for key, x in args.items() if isinstance(x, np.ndarray) and x.ndim)
        number = args[scalar] if args.get(scalar) is not None else 1
        small = copied(args | {scalar: number})
        Shrinking(small[place], 0).shrink()
        given = copied(args)
        given[scalar] = Shrinking(given[place], number)
        found, expected = arrays_after(name, given), arrays_after(name, small)
        assert (found is None) == (expected is None), scalar
        assert_same_bits(found or [], expected or [], f"{name}, {scalar}")


# --- messages -----------------------------------------------------------------------------


def test_messages_of_calls_say_what_is_wrong(isa: str) -> None:
    x, beyond = np.ones((3, 4), np.float32), np.array([1, 2**63 + 5, 0], np.uint64)
    with pytest.raises(TypeError, match=r"relu\(\) takes 1 argument, got 2"):
        kernels.relu(x, x)
    with pytest.raises(ValueError, match=f"index {2**63 + 5} in row 1"):
        kernels.embedding(beyond, x)
    with pytest.raises(ValueError, match=f"label {2**63 + 5} in row 1"):
        kernels.softmax_cross_entropy(x, beyond)
    states = np.zeros(4, reference.OPTIMIZER_STATE)
    with pytest.raises(ValueError, match="clip: state is changed in place: it must be C-contig"):
        kernels.clip(np.array(1.0), states[::2])
    with pytest.raises(TypeError, match="clip: state must be of dtype OPTIMIZER_STATE, got float"):
        kernels.clip(np.array(1.0), x)


@every_kernel
def test_a_number_outside_its_interval_is_named(isa: str, name: str) -> None:
    for scalar in KERNELS[name].scalars:
        if not scalar.interval or KERNELS[name].composite:
            continue
        args = CASES[name](Draw(0, np.float32)) | {scalar.name: -1e9}
        with pytest.raises(ValueError, match=f"{name}: {scalar.name} must be in"):
            kernel(name)(**args)
