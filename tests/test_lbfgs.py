"""L-BFGS: its direction and its line search, why it ends, and how a Trainer makes its steps."""

from __future__ import annotations

import copy
import pickle
import re
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import minidl
from minidl import nn, optim
from minidl.nn.parameter import Parameter
from minidl.optim.curvature_pairs import CurvaturePairs
from minidl.optim.line_search import CURVATURE, DECREASE, Point, strong_wolfe
from minidl.training import Callback, Trainer

NO_TOLERANCE: dict[str, Any] = {"tolerance_grad": 0, "tolerance_change": 0}


def parameter(start: Any, dtype: Any = np.float64) -> Parameter:
    found = Parameter(np.shape(start), nn.init.zeros(), 0, dtype)
    found.data = np.asarray(start, dtype)
    return found


def closure_of(w: Parameter, function: Any) -> Any:
    """A closure of a function that returns loss and gradient."""

    def closure() -> float:
        loss, gradient = function(w.data.astype(np.float64))
        w.grad = gradient
        return float(loss)

    return closure


def minimised(function: Any, start: Any, dtype: Any = np.float64, **settings: Any) -> Any:
    """(optimizer, parameter) after one step."""
    w = parameter(start, dtype)
    optimizer = optim.LBFGS([w], **settings)
    optimizer.step(closure_of(w, function))
    return optimizer, w


def quadratic(seed: int = 0, size: int = 12, condition: float = 1e3) -> Any:
    """(function, its minimum)"""
    rng = np.random.default_rng(seed)
    basis = np.linalg.qr(rng.normal(size=(size, size)))[0]
    matrix = basis * np.geomspace(1, condition, size) @ basis.T
    best = rng.normal(size=size)
    return lambda w: ((w - best) @ matrix @ (w - best) / 2, matrix @ (w - best)), best


def rosenbrock(w: np.ndarray) -> tuple[float, np.ndarray]:
    x, rest = w[:-1], w[1:] - w[:-1] ** 2
    gradient = np.zeros(len(w))
    gradient[:-1] = -400 * x * rest - 2 * (1 - x)
    gradient[1:] += 200 * rest
    return (100 * rest**2 + (1 - x) ** 2).sum(), gradient


# --- the direction and the line -----------------------------------------------------------------


def test_direction_is_that_of_the_bfgs_matrix(backend: str) -> None:
    """H ← (1 - ρ s yᵀ) H (1 - ρ y sᵀ) + ρ s sᵀ for each pair kept, from H = (s · y / y · y) 1."""
    rng = np.random.default_rng(0)
    pairs = CurvaturePairs(3, lambda: np.zeros(7))
    given = [
        (s, s * rng.uniform(0.5, 2, 7) + 0.1 * rng.normal(size=7)) for s in rng.normal(size=(5, 7))
    ]
    for count, (s, y) in enumerate(given, 1):
        pairs.add(s, y)
        kept = given[max(0, count - 3) : count]
        h = np.eye(7) * (s @ y) / (y @ y)
        for s_k, y_k in kept:
            turn = np.eye(7) - np.outer(s_k, y_k) / (s_k @ y_k)
            h = turn @ h @ turn.T + np.outer(s_k, s_k) / (s_k @ y_k)
        gradient = rng.normal(size=7)
        np.testing.assert_allclose(pairs.direction(gradient), -h @ gradient, rtol=1e-9)


def test_pairs_without_positive_curvature_are_left_out() -> None:
    pairs = CurvaturePairs(2, lambda: np.zeros(3))
    gradient = np.array([1.0, -2.0, 3.0])
    for bad in (-np.ones(3), np.zeros(3), np.full(3, np.nan)):
        pairs.add(np.ones(3), bad)
        assert pairs.is_empty
        np.testing.assert_array_equal(pairs.direction(gradient), -gradient)


LINES: dict[str, Any] = {
    "quadratic": lambda a: ((a - 3) ** 2, 2 * (a - 3)),
    "quartic": lambda a: ((a - 0.2) ** 4 - a, 4 * (a - 0.2) ** 3 - 1),
    "far": lambda a: (-a / (a * a + 2), (a * a - 2) / (a * a + 2) ** 2),
    "waves": lambda a: (np.cos(3 * a) + (a - 4) ** 2 / 4, -3 * np.sin(3 * a) + (a - 4) / 2),
    "wall": lambda a: (-np.log(2 - a) - 3 * a, 1 / (2 - a) - 3) if a < 2 else (np.inf, np.nan),
    "kink": lambda a: (abs(a - 1) ** 1.5, 1.5 * np.sign(a - 1) * abs(a - 1) ** 0.5),
}


@pytest.mark.parametrize("first", [1e-6, 1e-2, 0.5, 1.0, 7.0, 1e3])
@pytest.mark.parametrize("name", LINES)
def test_line_search_ends_where_both_conditions_hold(name: str, first: float) -> None:
    seen = []

    def evaluate(at: float) -> Point:
        value, slope = LINES[name](at)
        seen.append(at)
        return Point(at, float(value), float(slope), np.zeros(1))

    begin = evaluate(0.0)
    assert begin.slope < 0
    found = strong_wolfe(evaluate, begin, first, 25)
    assert found.value <= begin.value + DECREASE * found.at * begin.slope
    assert abs(found.slope) <= -CURVATURE * begin.slope
    assert found.at in seen
    assert len(seen) <= 15


def test_line_search_keeps_to_its_budget() -> None:
    for most in (1, 2, 3, 6):
        calls = []

        def evaluate(at: float, calls: list[float] = calls) -> Point:
            calls.append(at)
            return Point(at, at, 1.0, np.zeros(1))  # rises, whatever the slope says

        begin = Point(0.0, 0.0, -1.0, np.zeros(1))
        assert strong_wolfe(evaluate, begin, 1.0, most) is begin
        assert len(calls) == most


# --- what it reaches -----------------------------------------------------------------------------


@pytest.mark.parametrize(("dtype", "close"), [(np.float64, 1e-6), (np.float32, 1e-3)])
def test_minimum_of_a_quadratic(backend: str, dtype: Any, close: float) -> None:
    function, best = quadratic()
    optimizer, w = minimised(function, np.zeros(12), dtype, max_iter=200, tolerance_change=0)
    np.testing.assert_allclose(w.data, best, atol=close)
    assert w.data.dtype == dtype
    assert optimizer.finished
    if dtype == np.float64:
        assert optimizer.evaluations <= 1.3 * optimizer.iterations + 3


@pytest.mark.parametrize("size", [2, 10])
def test_no_more_evaluations_than_scipy(size: int) -> None:
    scipy = pytest.importorskip("scipy.optimize")
    limits = pytest.importorskip("threadpoolctl").threadpool_limits

    class Reached(Exception):  # noqa: N818
        pass

    def evaluations(run: Any) -> float:
        """The number of evaluations until the loss is at 1e-10."""
        count = 0

        def function(w: np.ndarray) -> tuple[float, np.ndarray]:
            nonlocal count
            count += 1
            found = rosenbrock(w)
            if found[0] <= 1e-10 or count > 200:
                raise Reached
            return found

        with suppress(Reached):
            run(function)
        return count if count <= 200 else np.nan  # at another minimum

    ratios = []
    options = {"jac": True, "method": "L-BFGS-B", "options": {"ftol": 0, "gtol": 0}}
    for seed in range(10):
        start = np.random.default_rng(seed).uniform(-2, 2, size)
        ours = evaluations(lambda f, s=start: minimised(f, s, max_iter=500, **NO_TOLERANCE))
        with limits(1):  # threads that wait for one another take long where others compute, too
            theirs = evaluations(lambda f, s=start: scipy.minimize(f, s, **options))
        ratios.append(ours / theirs)
    assert np.nanmedian(ratios) <= 1.2


def test_steps_of_few_iterations_go_on() -> None:
    """Pairs are kept from step to step, so that little is lost."""
    function, best = quadratic(condition=1e2)
    w = parameter(np.zeros(12))
    optimizer = optim.LBFGS([w], max_iter=3, tolerance_change=0)
    closure = closure_of(w, function)
    evaluations = 0
    for _ in range(40):
        optimizer.step(closure)
        evaluations += optimizer.evaluations
        if optimizer.finished:
            break
    assert optimizer.converged
    assert evaluations < 100
    np.testing.assert_allclose(w.data, best, atol=1e-6)


def test_weight_decay_of_groups_is_part_of_the_objective(backend: str) -> None:
    target = np.array([1.0, 2.0, 3.0])
    own = [parameter(np.zeros(3)), parameter(np.zeros(3))]

    def closure() -> float:
        for w in own:
            w.grad = w.data - target
        return float(sum(((w.data - target) ** 2).sum() / 2 for w in own))

    groups = [{"params": own[:1], "weight_decay": 1.0}, {"params": own[1:]}]
    optimizer = optim.LBFGS(groups)
    optimizer.step(closure)
    np.testing.assert_allclose(own[0].data, target / 2, atol=1e-6)
    np.testing.assert_allclose(own[1].data, target, atol=1e-6)


def test_first_loss_is_returned_and_the_norm_kept() -> None:
    w = parameter([3.0, 4.0])
    optimizer = optim.LBFGS([w])
    assert optimizer.step(closure_of(w, lambda w: (w @ w / 2, w))) == 12.5
    assert optimizer.steps == 1
    assert float(optimizer.state["norm"]) == 5.0


def test_schedule_sets_the_first_trial() -> None:
    lengths = []
    for rate in (1.0, 0.125, lambda step: 0.125):
        w = parameter([0.5])
        trials: list[float] = []

        def function(w: np.ndarray, trials: list[float] = trials) -> Any:
            trials.append(float(w[0]))
            return w @ w / 2, w

        optim.LBFGS([w], lr=rate).step(closure_of(w, function))
        lengths.append(abs(trials[1] - 0.5))
    np.testing.assert_allclose(lengths, [0.5, 0.0625, 0.0625])


# --- why it ends ---------------------------------------------------------------------------------


def hill(w: np.ndarray) -> Any:
    """A gradient of the wrong sign."""
    return w @ w, -2 * w


def hole(w: np.ndarray) -> Any:
    """Finite at the start only."""
    return (1.0, np.ones(2)) if (w == 1).all() else (np.nan, np.ones(2))


ENDS: dict[str, tuple[Any, dict[str, Any], str]] = {
    "gradient": (lambda w: (w @ w, 2 * w), {}, r"converged: .* gradient .*tolerance_grad 1e-07"),
    "loss": (rosenbrock, {"tolerance_change": 1e-3, "max_iter": 99}, "converged: the loss changes"),
    "weights": (
        lambda w: (1e9 * w @ w, 2e9 * w),
        {"tolerance_grad": 0, "tolerance_change": 0.5, "lr": 0.1},
        "converged: no weight changes by more than",
    ),
    "iterations": (rosenbrock, {"max_iter": 3}, r"limit: 3 iterations \(max_iter\)"),
    "evaluations": (rosenbrock, {"max_eval": 4}, r"limit: 4 evaluations of the loss"),
    "plateau": (lambda w: (2.5, np.ones(2)), {"max_eval": 99}, "plateau: the loss 2.5 changes"),
    "no gradient": (lambda w: (2.5, np.zeros(2)), {}, "converged: no element .* larger than 0"),
    "line search": (hill, {"max_eval": 99}, "line search failed: none of 17 trials"),
    "not finite": (hole, {"max_eval": 99}, "not finite: so are the loss or its gradient"),
    "too long": (
        lambda w: (w @ w, 2 * w),
        {"line_search_fn": None, "lr": 3.0},
        "line search failed: without one, the loss rose to",
    ),
    "fixed, not finite": (hole, {"line_search_fn": None}, "not finite"),
}


@pytest.mark.parametrize("name", ENDS)
def test_reason(name: str) -> None:
    function, settings, words = ENDS[name]
    start = np.array([-1.2, 1]) if function is rosenbrock else np.ones(2)
    optimizer, w = minimised(function, start, **settings)
    assert re.match(words, optimizer.reason), optimizer.reason
    assert optimizer.converged == optimizer.reason.startswith("converged")
    assert optimizer.finished == (not optimizer.reason.startswith("limit"))
    assert function(w.data)[0] <= function(start)[0]


@pytest.mark.parametrize("line_search_fn", ["strong_wolfe", None])
def test_never_at_a_worse_point(line_search_fn: str | None) -> None:
    """Losses with holes, noise and wrong gradients: it ends, at a finite point that is no worse."""
    with np.errstate(all="ignore"):
        for seed in range(60):
            rng = np.random.default_rng(seed)
            wrong, noise = rng.uniform() < 0.3, rng.choice([0, 1e-8, 0.1])
            edge, power = rng.uniform(-3, 3), rng.choice([2.0, 4.0, 50.0])
            values: dict[bytes, float] = {}

            def function(
                w: np.ndarray,
                rng: Any = rng,
                wrong: Any = wrong,
                noise: Any = noise,
                edge: Any = edge,
                power: Any = power,
                values: Any = values,
            ) -> Any:
                of_point = np.random.default_rng(list(w.tobytes()))
                loss = (np.abs(w) ** power).sum() + noise * of_point.normal()
                gradient = power * np.sign(w) * np.abs(w) ** (power - 1)
                loss = rng.choice([np.nan, np.inf]) if w[0] > 2 + abs(edge) else loss
                values[w.tobytes()] = loss
                return loss, gradient * rng.normal(size=3) if wrong else gradient

            start = rng.normal(size=3)
            optimizer, w = minimised(function, start, line_search_fn=line_search_fn, lr=2.0)
            assert values[w.data.tobytes()] <= values[start.tobytes()], optimizer.reason
            assert optimizer.reason


def test_misleading_pairs_are_dropped_for_the_steepest_descent() -> None:
    w = parameter([1.0, 1.0])
    optimizer = optim.LBFGS([w], max_iter=3, **NO_TOLERANCE)
    curvature = np.array([1e-4, 1e2])
    optimizer.step(closure_of(w, lambda w: (curvature @ w**2 / 2, curvature * w)))
    w.data = [0.0, 1.0]

    def wedge(w: np.ndarray) -> Any:
        """Its gradient is right in the second number only, where the pairs see a wall."""
        return 10 * abs(w[0]) + w[1] ** 2, np.array([0.01, 2 * w[1]])

    optimizer.step(closure_of(w, wedge))
    assert optimizer.iterations
    assert wedge(w.data)[0] < 1


@pytest.mark.parametrize("record", [True, False])
def test_trials_beyond_what_is_finite_are_shortened(record: bool) -> None:
    trainer = trainer_of(net(), record, lr=1e20, max_iter=3)
    history = trainer.fit(X, Y, 4, progress=False)
    assert history["loss"] == sorted(history["loss"], reverse=True)
    assert history["loss"][-1] < float(nn.MSELoss()(net()(X), Y))


def test_start_that_is_not_finite_changes_nothing() -> None:
    for loss, gradient, words in (
        (np.nan, np.ones(2), "the loss is nan"),
        (1.0, np.array([1, np.inf]), "gradient of parameter .* not finite"),
    ):
        w = parameter([1.0, 2.0])
        optimizer = optim.LBFGS([w])
        with pytest.raises(FloatingPointError, match=words):
            optimizer.step(closure_of(w, lambda _, found=(loss, gradient): found))
        np.testing.assert_array_equal(w.data, [1, 2])
        assert optimizer.steps == 0


def test_closure_that_raises_leaves_the_best_point() -> None:
    w = parameter([-1.2, 1.0])
    optimizer, losses = optim.LBFGS([w]), []

    def function(x: np.ndarray) -> Any:
        losses.append(rosenbrock(x)[0])
        if len(losses) == 9:
            raise KeyboardInterrupt
        return rosenbrock(x)

    with pytest.raises(KeyboardInterrupt):
        optimizer.step(closure_of(w, function))
    assert rosenbrock(w.data)[0] == min(losses[:8])


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"max_iter": 0}, "max_iter must be >= 1"),
        ({"max_eval": 0}, "max_eval must be >= 1"),
        ({"history_size": 0}, "history_size must be >= 1"),
        ({"tolerance_grad": -1}, "tolerance_grad"),
        ({"tolerance_change": np.nan}, "tolerance_change"),
        ({"line_search_fn": "armijo"}, 'line_search_fn must be "strong_wolfe"'),
        ({"lr": -1}, "lr must be"),
        ({"lr": 0}, "lr must be"),
        ({"weight_decay": -1}, "weight_decay"),
    ],
)
def test_bad_settings(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=f"LBFGS: .*{words}|LBFGS: {words}"):
        optim.LBFGS([parameter([1.0])], **settings)


def test_what_does_not_go_with_a_line_search_is_refused() -> None:
    w = parameter([1.0])
    optimizer = optim.LBFGS([w])
    for name in ("max_norm", "max_value", "l1"):
        with pytest.raises(ValueError, match=f"LBFGS takes no {name}"):
            setattr(optimizer, name, 0.1)
        assert not getattr(optimizer, name)
    for group in ({"lr": 0.1}, {"l1": 0.1}, {"max_value": 1.0}):
        with pytest.raises(ValueError, match=r"one for all groups|takes no"):
            optim.LBFGS([{"params": [parameter([1.0])], **group}])
    optimizer.max_iter = 0
    with pytest.raises(ValueError, match="max_iter must be >= 1"):
        optimizer.step(lambda: 1.0)
    optimizer.max_iter, optimizer.lr = 5, lambda step: 0.0
    with pytest.raises(ValueError, match="lr must be finite and > 0"):
        optimizer.step(lambda: 1.0)
    optimizer.lr = 1.0
    for closure in (None, 3.0):
        with pytest.raises(TypeError, match="takes a closure"):
            optimizer.step(closure)
    for result in (None, "x", np.ones(2)):
        with pytest.raises(TypeError, match="closure must return the loss"):
            optimizer.step(lambda result=result: result)
    with pytest.raises(TypeError, match=r"SGD\.step takes no closure"):
        optim.SGD([w]).step(lambda: 1.0)


def test_step_cannot_be_recorded_and_a_closure_can() -> None:
    x = np.linspace(-1, 1, 30)[:, None]
    model, loss = nn.Sequential(nn.Linear(1, 4), nn.Tanh(), nn.Linear(4, 1), rng=0), nn.MSELoss()
    model.astype(np.float64)
    start, results = [p.data.copy() for p in model.parameters()], []

    def gradient(x: Any, y: Any) -> Any:
        value = loss(model(x), y)
        optimizer.zero_grad()
        model.backward(loss.backward())
        return value

    for compute in (gradient, minidl.record(gradient)):
        for p, values in zip(model.parameters(), start, strict=True):
            p.data = values
        optimizer = optim.LBFGS(model.parameters(), max_iter=30)
        optimizer.step(lambda compute=compute: compute(x, x**2))
        results.append(optimizer.flat.data.copy())
    np.testing.assert_array_equal(*results)
    with pytest.raises(TypeError, match="record the closure"):
        minidl.record(lambda x, y: optimizer.step(lambda: gradient(x, y)))(x, x)


# --- copies and files ----------------------------------------------------------------------------


def net(dtype: Any = np.float32) -> nn.Sequential:
    return nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 2), rng=0).astype(dtype)


X = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)
Y = np.sin(X[:, :2] * 2)


def trainer_of(model: nn.Sequential, record: bool = True, **settings: Any) -> Trainer:
    settings = {"max_iter": 5, **settings}
    optimizer = optim.LBFGS(model.parameters(), **settings)
    return Trainer(model, nn.MSELoss(), optimizer, rng=0, record=record)


def flat(trainer: Trainer) -> np.ndarray:
    return trainer.optimizer.flat.data.copy()


@pytest.mark.parametrize("way", ["copy", "pickle", "file"])
def test_a_training_goes_on_from_a_copy(way: str, tmp_path: Any) -> None:
    trainer = trainer_of(net())
    trainer.fit(X, Y, 3, progress=False, shuffle=False)
    model, optimizer = trainer.model, trainer.optimizer
    if way == "file":
        minidl.save(model, tmp_path / "m", optimizer=optimizer)
        other = net()
        others: Any = optim.LBFGS(other.parameters(), max_iter=5)
        minidl.load(tmp_path / "m", into=other, optimizer=others)
    elif way == "copy":
        other, others = copy.deepcopy((model, optimizer))
    else:
        other, others = pickle.loads(pickle.dumps((model, optimizer)))
    trainer.fit(X, Y, 2, progress=False, shuffle=False)
    second = Trainer(other, nn.MSELoss(), others)
    second.fit(X, Y, 2, progress=False, shuffle=False)
    np.testing.assert_array_equal(flat(second), flat(trainer))
    assert others.steps == optimizer.steps == 5


# --- in a Trainer --------------------------------------------------------------------------------


@pytest.mark.parametrize("record", [True, False])
def test_trainer_makes_the_steps_of_a_loop(record: bool) -> None:
    trainer, model, loss = trainer_of(net(), record), net(), nn.MSELoss()
    optimizer = optim.LBFGS(model.parameters(), max_iter=5)

    def closure() -> Any:
        value = loss(model(X), Y)
        optimizer.zero_grad()
        model.backward(loss.backward())
        return value

    losses = []
    for _ in range(4):
        optimizer.step(closure)
        losses.append(float(loss(model(X), Y)))
    history = trainer.fit(X, Y, 4, progress=False, shuffle=False)
    np.testing.assert_array_equal(flat(trainer), optimizer.flat.data)
    assert history["loss"] == pytest.approx(losses, rel=1e-14)
    assert sorted(losses, reverse=True) == losses


def test_fit_ends_when_it_is_finished() -> None:
    model = nn.Sequential(nn.Linear(3, 1), rng=0)
    trainer = trainer_of(model, max_iter=50, weight_decay=1e-3)
    history = trainer.fit(X, X @ np.ones((3, 1)), 100, progress=False)
    assert history.epochs < 10
    assert trainer.optimizer.finished
    assert history["loss"][-1] < 1e-4


def test_fit_goes_on_where_every_epoch_has_masks_of_its_own() -> None:
    model = nn.Sequential(nn.Dropout(0.5), nn.Linear(3, 1), rng=0)
    trainer = trainer_of(model, max_iter=200)
    history = trainer.fit(X, X @ np.ones((3, 1)), 4, progress=False)
    assert trainer.optimizer.finished
    assert history.epochs == 4


def test_batches_are_refused() -> None:
    trainer = trainer_of(net())
    before = flat(trainer)
    for options in ({"batch_size": 39}, {"accumulate": 2}, {"batch_size": 20, "accumulate": 2}):
        with pytest.raises(ValueError, match="LBFGS takes all 40 rows in one step"):
            trainer.fit(X, Y, 1, progress=False, **options)
    np.testing.assert_array_equal(flat(trainer), before)
    trainer.fit(X, Y, 1, batch_size=40, progress=False)
    trainer.fit(X, Y, 1, batch_size=1000, progress=False)


def test_other_optimizers_have_batches_of_32_by_default() -> None:
    results = []
    for options in ({}, {"batch_size": 32}):
        model = net()
        trainer = Trainer(model, nn.MSELoss(), optim.SGD(model.parameters()), rng=0)
        trainer.fit(X, Y, 2, progress=False, **options)
        results.append(flat(trainer))
    np.testing.assert_array_equal(*results)
    assert trainer.optimizer.steps == 4


def test_a_weight_is_so_many_rows() -> None:
    count = np.arange(40) % 3
    one, many = (trainer_of(net(np.float64), max_iter=40) for _ in range(2))
    one.fit(X, Y, 1, sample_weight=count, progress=False)
    many.fit(np.repeat(X, count, 0), np.repeat(Y, count, 0), 1, progress=False)
    np.testing.assert_allclose(flat(one), flat(many), atol=1e-6)


@pytest.mark.parametrize("record", [True, False])
def test_masks_stay_and_statistics_are_updated_once_in_a_step(record: bool) -> None:
    layers = nn.Linear(3, 8), nn.BatchNorm(8), nn.Tanh(), nn.Dropout(0.3), nn.Linear(8, 2)
    trainer = trainer_of(nn.Sequential(*layers, rng=0), record)
    state = {name: array.copy() for name, array in trainer.model.state().items()}
    trainer.fit(X, Y, 1, progress=False)
    after = {name: array.copy() for name, array in trainer.model.state().items()}
    calls = [name for name, array in state.items() if array.dtype == np.uint64]
    assert calls
    for name in calls:
        assert after[name][1] == state[name][1] + 1
    for p, values in zip(trainer.model.state().values(), state.values(), strict=True):
        p[...] = values
    trainer.model(X)
    for name, array in trainer.model.state().items():
        np.testing.assert_allclose(after[name], array, rtol=1e-5)


def test_metrics_validation_averages_and_callbacks() -> None:
    seen = []

    class Watch(Callback):
        def on_batch_end(self, trainer: Any, epoch: int, values: Any) -> None:
            seen.append(values["loss"])

    model = net()
    optimizer = optim.LBFGS(model.parameters(), max_iter=3)
    ema = optim.EMA(model, decay=0.5)
    trainer = Trainer(model, nn.MSELoss(), optimizer, metrics=["mae"], rng=0, ema=ema)
    history = trainer.fit(X, Y, 5, validation=(X, Y), callbacks=[Watch()], progress=False)
    assert seen == pytest.approx(history["loss"], rel=1e-14)
    assert history["mae"][-1] == pytest.approx(trainer.evaluate(X, Y)["mae"], rel=1e-5)
    assert history["val_loss"][-1] > history["loss"][-1]  # of averages that lag behind


def test_what_cannot_be_recorded_runs_eagerly() -> None:
    class Doubled(nn.Layer):
        def forward(self, x: np.ndarray) -> np.ndarray:
            return x * float(2 + 0 * x[0, 0])

        def backward(self, dy: np.ndarray) -> np.ndarray:
            return 2 * dy

    trainer = trainer_of(nn.Sequential(nn.Linear(3, 2), Doubled(), rng=0))
    with pytest.warns(RuntimeWarning, match="runs eagerly"):
        history = trainer.fit(X, Y, 3, progress=False)
    assert history["loss"][-1] < history["loss"][0]


def test_loss_that_is_not_finite_names_the_layer() -> None:
    model = net()
    trainer = trainer_of(model)
    model[2].weight.data = np.full((8, 2), 3e38, np.float32)
    before = flat(trainer)
    with pytest.raises(FloatingPointError, match=r"training step 1: .*layer 2 Linear"):
        trainer.fit(X, Y, 1, progress=False)
    np.testing.assert_array_equal(flat(trainer), before)


def test_a_monitor_of_gradients_and_diagnose_are_refused() -> None:
    model = net()
    trainer = trainer_of(model)
    with pytest.raises(ValueError, match="computes many in a step"):
        trainer.fit(X, Y, 1, progress=False, callbacks=[minidl.GradientMonitor()])
    with pytest.raises(ValueError, match=r"diagnose .*LBFGS"):
        minidl.diagnose(model, nn.MSELoss(), trainer.optimizer, X, Y, epochs=1)


def test_network_beyond_adam() -> None:
    """A sine to 1e-5, from any start, in float64: Adam stays above in as many gradients."""
    x = np.linspace(-1, 1, 50)[:, None]
    y = np.sin(np.pi * x)
    reached = []
    for make in (optim.LBFGS, optim.Adam):
        layers = nn.Linear(1, 10), nn.Tanh(), nn.Linear(10, 10), nn.Tanh(), nn.Linear(10, 1)
        model = nn.Sequential(*layers, rng=0).astype(np.float64)
        is_lbfgs = make is optim.LBFGS
        options = {"tolerance_change": 0} if is_lbfgs else {"lr": 1e-2}
        trainer = Trainer(model, nn.MSELoss(), make(model.parameters(), **options), rng=0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            trainer.fit(x, y, 20 if is_lbfgs else 500, batch_size=50, progress=False)
        reached.append(trainer.evaluate(x, y)["loss"])
    assert reached[0] < 1e-5 < reached[1]


# --- the page ------------------------------------------------------------------------------------


def test_page_runs_and_names_every_reason(capsys: pytest.CaptureFixture[str]) -> None:
    text = Path(__file__).parents[1].joinpath("docs", "lbfgs.md").read_text(encoding="utf-8")
    space: dict[str, Any] = {}
    for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
        exec(block, space)
    loss, reason = capsys.readouterr().out.splitlines()[0].split(" ", 1)
    assert float(loss) < 1e-4
    words = re.findall(r"^\| `([a-z ]+)` \|", text, re.MULTILINE)
    assert any(reason.startswith(word) for word in words)
    assert {re.match(r"[a-z ]+", end[2])[0] for end in ENDS.values()} <= set(words)  # type: ignore[index]
