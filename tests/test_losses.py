"""Weights of rows and classes, and smoothed labels: PyTorch's values, gradients, recorded steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import minidl
from minidl import kernels, nn, optim

CLOSE = {"rtol": 1e-10, "atol": 1e-12}
CLASSES = [0.5, 2.0, 0.0, 1.5, 1.0]
LOSSES: dict[str, Callable[[str], nn.Loss]] = {
    "cross entropy": nn.CrossEntropyLoss,
    "cross entropy of weighted classes": lambda r: nn.CrossEntropyLoss(r, CLASSES),
    "smoothed": lambda r: nn.CrossEntropyLoss(r, None, 0.2),
    "smoothed, of weighted classes": lambda r: nn.CrossEntropyLoss(r, CLASSES, 0.2),
    "nll": nn.NLLLoss,
    "nll of weighted classes": lambda r: nn.NLLLoss(r, CLASSES),
    "squared": nn.MSELoss,
    "absolute": nn.L1Loss,
    "huber": lambda r: nn.HuberLoss(0.7, r),
    "binary": nn.BCEWithLogitsLoss,
}
every_loss = pytest.mark.parametrize("name", LOSSES)
both = pytest.mark.parametrize("reduction", ["mean", "sum"])
every_reduction = pytest.mark.parametrize("reduction", ["mean", "sum", "none"])


def problem(loss: nn.Loss, rows: int, dtype: Any = np.float64) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(rows)
    prediction = (2 * rng.normal(size=(rows, 5))).astype(dtype)
    if loss.takes_labels:
        return -np.abs(prediction), rng.permutation(np.arange(rows) % 5)
    return prediction, rng.uniform(size=(rows, 5)).astype(dtype)


def peer(name: str, reduction: str) -> Any:
    torch = pytest.importorskip("torch")
    classes = torch.tensor(CLASSES).double() if "classes" in name else None
    match name.split(" ")[0].rstrip(","):
        case "nll":
            return torch.nn.NLLLoss(classes, reduction=reduction)
        case "squared":
            return torch.nn.MSELoss(reduction=reduction)
        case "absolute":
            return torch.nn.L1Loss(reduction=reduction)
        case "huber":
            return torch.nn.HuberLoss(reduction, 0.7)
        case "binary":
            return torch.nn.BCEWithLogitsLoss(reduction=reduction)
        case _:
            smoothing = 0.2 if "smoothed" in name else 0.0
            return torch.nn.CrossEntropyLoss(
                classes, reduction=reduction, label_smoothing=smoothing
            )


@every_loss
@every_reduction
def test_values_and_gradients_are_those_of_pytorch(backend: str, name: str, reduction: str) -> None:
    torch = pytest.importorskip("torch")
    loss, theirs = LOSSES[name](reduction), peer(name, reduction)
    for rows in (1, 7, 40):
        prediction, target = problem(loss, rows)
        z = torch.tensor(prediction, requires_grad=True)
        value = theirs(z, torch.tensor(target))
        value.sum().backward()
        np.testing.assert_allclose(loss(prediction, target), value.detach(), **CLOSE)
        np.testing.assert_allclose(loss.backward(), z.grad, **CLOSE)


@every_loss
@both
def test_weighted_rows_are_rows_that_come_more_often(
    backend: str, name: str, reduction: str
) -> None:
    loss = LOSSES[name](reduction)
    prediction, target = problem(loss, 10)
    times = np.array([1, 0, 2, 3, 1, 1, 0, 1, 2, 1])
    value = loss(prediction, target, times.astype(np.float64))
    gradient = loss.backward()
    rows = np.repeat(np.arange(10), times)
    np.testing.assert_allclose(value, loss(prediction[rows], target[rows]), **CLOSE)
    expected = np.zeros_like(gradient)
    np.add.at(expected, rows, loss.backward())
    np.testing.assert_allclose(gradient, expected, **CLOSE)


@every_loss
@every_reduction
def test_gradient_with_weights(backend: str, name: str, reduction: str) -> None:
    loss = LOSSES[name](reduction)
    prediction, target = problem(loss, 6)
    weight = np.random.default_rng(1).uniform(size=6)
    report = minidl.gradcheck(loss, prediction, target, weight)
    assert report.worst <= 1e-6


@every_loss
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_recorded_is_eager(backend: str, name: str, reduction: str) -> None:
    def run(recorded: bool) -> list[bytes]:
        loss = LOSSES[name](reduction)
        model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 5), rng=0)
        optimizer = optim.SGD(model.parameters(), lr=0.1)
        rng = np.random.default_rng(0)

        def step(x: Any, y: Any, weight: Any) -> Any:
            value = loss(model(x), y, weight)
            optimizer.zero_grad()
            model.backward(loss.backward())
            optimizer.step()
            return value

        go = minidl.record(step) if recorded else step
        out = []
        for _ in range(6):
            x = rng.normal(size=(12, 4)).astype(np.float32)
            y = problem(loss, 12, np.float32)[1]
            weight = rng.uniform(size=12).astype(np.float32)
            out.append(np.array(go(x, y, weight)).tobytes())
        return [*out, optimizer.flat.data.tobytes()]

    assert run(True) == run(False)


@every_loss
def test_bad_weights(backend: str, name: str) -> None:
    loss = LOSSES[name]("mean")
    prediction, target = problem(loss, 4)
    for bad in ([1, -1, 1, 1], [0, 0, 0, 0], [1, np.nan, 1, 1], [1, np.inf, 1, 1]):
        with pytest.raises(ValueError, match="weights must be finite"):
            loss(prediction, target, np.array(bad, np.float64))
    with pytest.raises(ValueError, match=r"\(4,\)"):
        loss(prediction, target, np.ones(3))
    with pytest.raises(TypeError, match="float64"):
        loss(prediction, target, np.ones(4, np.float32))
    with pytest.raises(TypeError, match="list"):
        loss(prediction, target, [1, 1, 1, 1])


@pytest.mark.parametrize("cls", [nn.CrossEntropyLoss, nn.NLLLoss])
@pytest.mark.parametrize("bad", [[-1, 1], [0, 0], [np.nan, 1], [[1, 2]], 3])
def test_bad_class_weights(cls: Any, bad: Any) -> None:
    with pytest.raises(ValueError, match="class_weight"):
        cls(class_weight=bad)


def test_arguments_in_the_wrong_place_or_of_the_wrong_kind() -> None:
    with pytest.raises(ValueError, match=r'CrossEntropyLoss: reduction must be "mean" or "sum"'):
        nn.CrossEntropyLoss(np.array([1.0, 2.0]))
    with pytest.raises(TypeError, match=r"CrossEntropyLoss: class_weight .* Trainer\.fit takes"):
        nn.CrossEntropyLoss(class_weight={0: 1.0})


def test_class_weights_fit_the_classes() -> None:
    with pytest.raises(ValueError, match="2 class weights for 3 classes"):
        nn.NLLLoss(class_weight=[1, 2])(np.zeros((1, 3)), np.array([0]))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: nn.CrossEntropyLoss(label_smoothing=1.0), "label_smoothing"),
        (lambda: nn.CrossEntropyLoss(label_smoothing=-0.1), "label_smoothing"),
        (lambda: nn.HuberLoss(0), "delta"),
        (lambda: nn.HuberLoss(float("nan")), "delta"),
        (lambda: nn.L1Loss("average"), "reduction"),
    ],
)
def test_bad_hyper_parameters(make: Callable[[], nn.Loss], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make()


@pytest.mark.parametrize("cls", nn.Loss.registry)
def test_a_repr_makes_the_same_loss(cls: Any) -> None:
    for loss, prediction, target in cls.examples():
        same = eval(repr(loss), dict(vars(nn)))
        assert repr(same) == repr(loss)
        np.testing.assert_array_equal(same(prediction, target), loss(prediction, target))


def test_bad_label_in_a_recorded_step() -> None:
    loss = nn.NLLLoss()
    step = minidl.record(lambda z, y: loss(z, y))
    z = -np.ones((3, 2), np.float32)
    step(z, np.array([0, 1, 1]))
    with pytest.raises(ValueError, match="label 2 in row 1"):
        step(z, np.array([0, 2, 1]))
    with pytest.raises(ValueError, match="label 2 in row 1"):
        loss(z, np.array([0, 2, 1]))


# --- without reduction ----------------------------------------------------------------------


@every_loss
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("weighted", [False, True])
def test_losses_by_themselves_add_up_to_the_sum(
    backend: str, name: str, dtype: Any, weighted: bool
) -> None:
    """The gradient is that of the sum to the last bit; weights multiply, and nothing divides."""
    each, total = LOSSES[name]("none"), LOSSES[name]("sum")
    for rows in (1, 7, 40, 600):
        prediction, target = problem(each, rows, dtype)
        weight = np.linspace(0.5, 2, rows).astype(dtype)
        given = (weight,) if weighted else ()
        losses, gradient = each(prediction, target, *given), each.backward()
        assert losses.dtype == np.float64
        assert losses.shape == target.shape
        rtol = 1e-6 if dtype == np.float32 else 1e-12
        np.testing.assert_allclose(losses.sum(), total(prediction, target, *given), rtol=rtol)
        assert gradient.tobytes() == total.backward().tobytes()
        if weighted:
            factor = weight.astype(np.float64).reshape(-1, *[1] * (target.ndim - 1))
            expected = factor * each(prediction, target)
            np.testing.assert_allclose(losses, expected, rtol=rtol, atol=rtol)


@pytest.mark.parametrize("shape", [(), (5,), (3, 1), (2, 1, 3), (2, 3, 70), (1, 2500)])
@pytest.mark.parametrize("cls", [nn.MSELoss, nn.L1Loss, nn.BCEWithLogitsLoss])
def test_losses_have_the_shape_of_the_prediction(backend: str, cls: Any, shape: Any) -> None:
    rng = np.random.default_rng(0)
    prediction, target = rng.normal(size=shape), rng.uniform(size=shape)
    loss, total = cls("none"), cls("sum")
    losses = loss(prediction[...], target[...])
    assert losses.shape == loss.backward().shape == shape
    one_by_one = [total(np.full(1, p), np.full(1, t)) for p, t in _pairs(prediction, target)]
    np.testing.assert_allclose(losses.ravel(), one_by_one, **CLOSE)


def _pairs(a: np.ndarray, b: np.ndarray) -> Any:
    return zip(np.ravel(a), np.ravel(b), strict=True)


@pytest.mark.parametrize("steps", [1, 4])
def test_losses_of_sequences_with_weights_of_steps(backend: str, steps: int) -> None:
    rng = np.random.default_rng(0)
    z, weight = rng.normal(size=(3, steps, 5)), rng.uniform(size=(3, steps))
    weight[1, -1] = 0
    target, labels = rng.normal(size=z.shape), rng.integers(5, size=(3, steps))
    z[1, -1] = np.nan  # of weight 0
    squared = np.nan_to_num((z - target) ** 2)
    loss = nn.MSELoss("none")
    np.testing.assert_allclose(loss(z, target, weight), weight[:, :, None] * squared, **CLOSE)
    assert loss.backward().shape == z.shape
    entropy = nn.CrossEntropyLoss("none", ignore_index=-1)
    labels[0, 0] = -1
    losses, gradient = entropy(z, labels, weight), entropy.backward()
    own = np.take_along_axis(z, np.abs(labels)[:, :, None], axis=2)[:, :, 0]
    expected = weight * (np.log(np.exp(z).sum(axis=2)) - own)
    expected[0, 0] = expected[1, -1] = 0
    np.testing.assert_allclose(losses, expected, **CLOSE)
    assert not gradient[0, 0].any()
    assert gradient.shape == z.shape


def test_losses_by_themselves_may_all_count_nothing(backend: str) -> None:
    """No number is divided by their weights, which still must be numbers >= 0."""
    z = -np.ones((3, 5))
    for loss in (nn.CrossEntropyLoss("none", ignore_index=-1), nn.NLLLoss("none", ignore_index=-1)):
        for step in (loss, minidl.record(lambda z, y, loss=loss: loss(z, y))):
            assert step(z, np.zeros(3, int)).all()
            assert step(z, np.full(3, -1)).tolist() == [0, 0, 0]
            with pytest.raises(ValueError, match="label 5 in row 1"):
                step(z, np.array([0, 5, 1]))
    loss = nn.MSELoss("none")
    for step in (loss, minidl.record(lambda p, t, w: loss(p, t, w))):
        assert step(z, 0 * z, np.ones(3)).all()
        assert not step(z, 0 * z, np.zeros(3)).any()
        for bad in (-1, np.nan, np.inf):
            with pytest.raises(ValueError, match="weights must be finite"):
                step(z, 0 * z, np.array([1.0, bad, 1.0]))


def test_the_reduction_of_a_loss_may_change(backend: str) -> None:
    loss = nn.MSELoss("none")
    step = minidl.record(lambda p, t: (loss(p, t), loss.backward()))
    p, t = np.array([[1.0, 3.0]]), np.zeros((1, 2))
    assert [x.tolist() for x in step(p, t)] == [[[1, 9]], [[2, 6]]]
    loss.reduction = "mean"
    assert [x.tolist() for x in step(p, t)] == [5, [[1, 3]]]


def test_a_loss_that_knows_no_single_losses_says_so() -> None:
    class Total(nn.Loss):
        def forward(self, prediction, target, weight=None):
            return kernels.mse(prediction, target, self.reduction == "mean", weight)

    assert Total("sum")(np.ones((2, 3)), np.zeros((2, 3))) == 6
    with pytest.raises(NotImplementedError, match=r"Total.*one number.*an array of losses"):
        Total("none")(np.ones((2, 3)), np.zeros((2, 3)))


# --- ignored labels -------------------------------------------------------------------------

IGNORING: list[Callable[..., nn.Loss]] = [
    nn.CrossEntropyLoss,
    lambda r, **own: nn.CrossEntropyLoss(r, CLASSES, 0.2, **own),
    nn.NLLLoss,
    lambda r, **own: nn.NLLLoss(r, CLASSES, **own),
]
every_ignoring = pytest.mark.parametrize("make", IGNORING)


@every_ignoring
@every_reduction
@pytest.mark.parametrize("ignored", [-100, 3, 5])
@pytest.mark.parametrize("weighted", [False, True])
def test_ignored_rows_are_not_there(
    backend: str, make: Callable[..., nn.Loss], reduction: str, ignored: int, weighted: bool
) -> None:
    """Whatever they hold: NaN too."""
    loss, plain = make(reduction, ignore_index=ignored), make(reduction)
    for rows in (2, 7, 40):
        prediction, labels = problem(loss, rows)
        labels[::3] = ignored
        counts = labels != ignored
        prediction[~counts] = np.nan
        weight = np.random.default_rng(rows).uniform(0.5, 2, rows) if weighted else None
        value, gradient = loss(prediction, labels, weight), loss.backward()
        some = (prediction[counts], labels[counts])
        expected = plain(*some, None if weight is None else weight[counts])
        if reduction == "none":
            assert not value[~counts].any()
            value = value[counts]
        np.testing.assert_allclose(value, expected, **CLOSE)
        np.testing.assert_allclose(gradient[counts], plain.backward(), **CLOSE)
        assert not gradient[~counts].any()


@every_ignoring
def test_a_loss_of_no_rows_is_refused(backend: str, make: Callable[..., nn.Loss]) -> None:
    """0 / 0 is NaN in PyTorch, and would become the weights of the model."""
    loss = make("mean", ignore_index=-100)
    step = minidl.record(lambda z, y: loss(z, y))
    z, labels = -np.ones((3, 5), np.float32), np.array([0, -100, 1])
    step(z, labels)
    eager_error = r"Loss.*: every label is -100, which is ignored: no row is left"
    recorded_error = "an ignored label has a weight of 0" if backend != "reference" else eager_error
    for call, error in ((loss, eager_error), (step, recorded_error)):
        with pytest.raises(ValueError, match=error):
            call(z, np.full(3, -100))
        with pytest.raises(ValueError, match="label -1 in row 2"):
            call(z, np.array([0, -100, -1]))
    assert float(step(z, labels)) == float(loss(z, labels))


@every_ignoring
def test_ignored_labels_in_a_recorded_step(backend: str, make: Callable[..., nn.Loss]) -> None:
    """There may be others of them, and more, at every step."""
    loss = make("mean", ignore_index=-100)

    def gradient(z: Any, y: Any) -> Any:
        value = loss(z, y)
        return value, loss.backward()

    step, rng = minidl.record(gradient), np.random.default_rng(0)
    for _ in range(5):
        z, labels = -np.abs(rng.normal(size=(9, 5))), rng.integers(5, size=9)
        labels[rng.permutation(9)[: rng.integers(1, 6)]] = -100
        labels[-1] = 1
        found, expected = step(z, labels), gradient(z, labels)
        assert [np.array(x).tobytes() for x in found] == [np.array(x).tobytes() for x in expected]


def test_an_ignored_label_is_an_integer() -> None:
    for bad in (1.0, "pad", True):
        with pytest.raises(TypeError, match="CrossEntropyLoss: ignore_index"):
            nn.CrossEntropyLoss(ignore_index=bad)  # type: ignore[arg-type]
    assert repr(nn.NLLLoss(ignore_index=-100)) == "NLLLoss(ignore_index=-100)"


# --- weights of the positives ---------------------------------------------------------------


@pytest.mark.parametrize("target", [0.0, 1.0, 0.3])
@pytest.mark.parametrize("weight", [0.25, 1.0, 7.0])
@pytest.mark.parametrize("shape", [(5, 1), (5,), (4, 3), (2, 5, 3)])
def test_a_weight_of_the_positives(target, weight, shape):
    z = np.random.default_rng(0).normal(size=shape) * 3
    t = np.full(shape, target)
    loss = nn.BCEWithLogitsLoss(pos_weight=weight)
    softplus = np.logaddexp(0, -z), np.logaddexp(0, z)
    assert float(loss(z, t)) == pytest.approx(
        (weight * t * softplus[0] + (1 - t) * softplus[1]).mean(), rel=1e-12
    )
    sigmoid = 1 / (1 + np.exp(-z))
    gradient = (1 - t) * sigmoid - weight * t * (1 - sigmoid)
    np.testing.assert_allclose(loss.backward(), gradient / z.size, rtol=1e-9, atol=1e-15)


def test_weights_of_the_positives_of_every_logit_and_weights_of_rows():
    rng = np.random.default_rng(0)
    z, t, weight = rng.normal(size=(6, 4, 2)), rng.integers(2, size=(6, 4, 2)) * 1.0, rng.random(6)
    loss = nn.BCEWithLogitsLoss("sum", pos_weight=[2, 5])
    plain = nn.BCEWithLogitsLoss("sum")
    of_element = np.where(t == 1, [2.0, 5.0], 1.0) * weight[:, None, None]
    expected = sum(
        w * float(plain(np.full((1, 1), x), np.full((1, 1), y)))
        for w, x, y in zip(of_element.flat, z.flat, t.flat, strict=True)
    )
    assert float(loss(z, t, weight)) == pytest.approx(expected, rel=1e-12)
    steps = np.repeat(weight[:, None], 4, axis=1)
    assert float(loss(z, t, steps)) == pytest.approx(expected, rel=1e-12)
    assert repr(loss) == "BCEWithLogitsLoss(reduction='sum', pos_weight=[2.0, 5.0])"


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_infinite_logits_with_a_weight_of_the_positives(dtype):
    z = np.array([[np.inf], [-np.inf], [np.inf], [-np.inf]], dtype)
    t = np.array([[1], [0], [0], [1]], dtype)
    loss = nn.BCEWithLogitsLoss("sum", pos_weight=3.0)
    for row, expected in enumerate([0, 0, np.inf, np.inf]):
        assert float(loss(z[row : row + 1], t[row : row + 1])) == expected
        assert loss.backward().item() == [0, 0, 1, -3][row]


@pytest.mark.parametrize("weight", [0, -1, np.nan, np.inf, [], [1, 0]])
def test_weights_of_the_positives_are_positive(weight):
    with pytest.raises(ValueError, match="pos_weight must be finite and > 0"):
        nn.BCEWithLogitsLoss(pos_weight=weight)


def test_weights_of_the_positives_are_of_every_logit():
    with pytest.raises(ValueError, match="3 weights for 2 logits a row"):
        nn.BCEWithLogitsLoss(pos_weight=[1, 2, 3])(np.zeros((4, 2)), np.zeros((4, 2)))
