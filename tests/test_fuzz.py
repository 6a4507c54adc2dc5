"""Random stacks of layers: finite differences, recorded and watched steps, the net in PyTorch.

A sample runs with all other tests. ``make fuzz`` runs 5000, or as many as ``MINIDL_FUZZ`` says, and
prints what they were made of and how many passed.
"""

from __future__ import annotations

import copy
import os
from collections import Counter
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from checks import assert_same
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from layer_helpers import plain_layers
from monitor_helpers import assert_same_records, figures_of_step
from recording_helpers import Training
from torch_peers import peer_of, peer_of_loss, peer_of_optimizer, their_name, torch

import minidl
from minidl import GradientMonitor, nn, optim
from minidl.diagnosis.records import Records
from minidl.training import Trainer

RUNS = int(os.environ.get("MINIDL_FUZZ", "150"))
SIMPLE = plain_layers()  # those with a case of their own in `layers` get other arguments, too
KINDS = ["Linear", *SIMPLE, "PReLU", "GELU by tanh"]
BRANCHING = ["branches", "sum", "gate", "parts"]
KINDS += ["BatchNorm", "LayerNorm", "RMSNorm", "Standardize", "Dropout"]
WITHOUT_PEER = [name for name, cls in SIMPLE.items() if torch is None or peer_of(cls()) is None]
OPTIMIZERS = {
    f"{cls.__name__}, {settings}": (cls, settings)
    for cls in optim.Optimizer.registry
    for settings in cls.examples()
}
EPS = 1e-2  # of normalizations: a batch that is nearly constant has no accurate differences

widths = st.integers(1, 4)
fractions = st.floats(0.05, 0.9)


@dataclass
class Case:
    """A network, what it is trained on, and how. Layers as code, so that a failure can be read."""

    lead: tuple[int, ...]
    features: int
    layers: list[str]
    loss: str
    optimizer: str
    max_norm: float | None
    seed: int
    weighted: bool = False  # rows, or steps of sequences of labels; one of weight zero
    grouped: bool = False  # the parameters after the first have a rate and a decay of their own
    accumulate: int = 1
    every: int = 0  # steps from one that a monitor watches to the next; 0: no monitor

    def build(self, dtype: Any = np.float64) -> nn.Sequential:
        """The network, with parameters that are all random, biases too."""
        rng = np.random.default_rng(self.seed)
        model = nn.Sequential(*map(build, self.layers), rng=rng).astype(dtype)
        for parameter in model.parameters():
            parameter.data = rng.normal(0, 0.8, parameter.shape)
        return model

    def data(self, model: nn.Layer, dtype: Any = np.float64) -> tuple[np.ndarray, ...]:
        """Inputs, targets that suit the loss, and weights if there are any."""
        rng = np.random.default_rng(self.seed + 1)
        x = rng.normal(size=(*self.lead, self.features)).astype(dtype)
        prediction, loss = copy.deepcopy(model)(x), build(self.loss)
        y = rng.uniform(size=prediction.shape).astype(dtype)
        if loss.takes_labels:
            y = rng.integers(prediction.shape[-1], size=prediction.shape[:-1])
            if loss.ignore_index is not None:
                y.flat[1::3] = loss.ignore_index
        if not self.weighted:
            return x, y
        weight = rng.uniform(0.2, 2, loss.weighted_shape(prediction)).astype(dtype)
        weight.flat[0] = 0
        return x, y, weight

    def parameters(self, parameters: list[Any], rate: float) -> list[Any]:
        """Parameters, ours or theirs, for an optimizer."""
        if not self.grouped or len(parameters) < 2:
            return parameters
        own = {"params": parameters[1:], "lr": rate / 2, "weight_decay": 0.05}
        return [{"params": parameters[:1]}, own]


def build(code: str) -> Any:
    return eval(code, {**vars(nn), "Standardize": standardize})


def standardize(width: int) -> nn.Layer:
    return nn.Standardize(width).adapt(np.random.default_rng(width).normal(1, 2, (9, width)))


@st.composite
def layers(draw: Any, width: int, matrix: bool, depth: int = 1) -> tuple[str, int, bool]:
    """(one layer as code, its width, whether its output is a matrix) for an input of that width."""
    blocks = ["Residual", "shortcut", *BRANCHING] if depth else []
    kind = draw(st.sampled_from(["Linear", *KINDS, *blocks]))
    code = f"{kind}()"
    match kind:
        case "Linear":
            out = draw(widths)
            return f"Linear({width}, {out}, bias={draw(st.booleans())})", out, matrix
        case "GELU by tanh":
            code = "GELU('tanh')"
        case "LeakyReLU" | "ELU" | "CELU" | "Softplus":
            code = f"{kind}({draw(fractions):.3g})"
        case "PReLU":
            code = f"PReLU({draw(st.sampled_from(['', width]))})"
        case "Standardize":
            code = f"Standardize({width})"
        case "BatchNorm":
            code = f"BatchNorm({width}, {draw(fractions):.3g}, {EPS})"
        case "LayerNorm" | "RMSNorm":
            code = f"{kind}({width}, {EPS})"
        case "Dropout":
            code = f"Dropout({draw(fractions):.3g})"
        case "Residual" | "shortcut":
            body, out = draw(stacks(width, matrix, depth - 1))
            around = "" if out == width else f", Linear({width}, {out})"
            if kind == "Residual":
                code = f"Residual(Sequential({', '.join(body)}){around})"
            else:
                code = f"Residual(Linear({width}, {out}), Sequential({', '.join(body)}))"
            return code, out, matrix
        case "branches" | "sum" | "gate" | "parts":
            code, out = draw(branches(kind, width, matrix, depth))
            return code, out, matrix
    return code, width, matrix


@st.composite
def branches(draw: Any, kind: str, width: int, matrix: bool, depth: int) -> tuple[str, int]:
    """(a layer of two branches as code, its width) for an input of that width."""
    body, out = draw(stacks(width, matrix, depth - 1))
    first, other = f"Sequential({', '.join(body)})", f"Linear({width}, {out})"
    match kind:
        case "sum":
            return f"Parallel({other}, {first}, join='add')", out
        case "gate":
            return f"Parallel({first}, Sequential({other}, Sigmoid()), join='multiply')", out
        case "parts" if width > 1:
            sizes, more = (1, width - 1), draw(widths)
            inner = f"Parallel(Tanh(), Linear({width - 1}, {more}))"
            return f"Sequential(Split({sizes}), {inner})", 1 + more
    return f"Parallel({first}, Identity())", out + width


@st.composite
def stacks(draw: Any, width: int, matrix: bool, depth: int) -> tuple[list[str], int]:
    """Some layers, and the width of the last."""
    codes = []
    for _ in range(draw(st.integers(1, 2 + 2 * depth))):
        code, width, matrix = draw(layers(width, matrix, depth))
        codes.append(code)
    return codes, width


@st.composite
def cases(draw: Any) -> Case:
    lead = draw(st.tuples(st.integers(4, 6)) | st.tuples(st.integers(4, 5), st.integers(1, 3)))
    features = draw(widths)
    codes, width = draw(stacks(features, len(lead) == 1, 1))
    if len(lead) > 1 and draw(st.booleans()):
        codes.append("Flatten()")
        width *= lead[1]
        lead = lead[:2]
    out = draw(widths)
    codes.append(f"Linear({width}, {out})")
    reduction = draw(st.sampled_from(["mean", "sum"]))
    losses = ["MSELoss", "L1Loss", "HuberLoss", "BCEWithLogitsLoss", "CrossEntropyLoss", "NLLLoss"]
    loss = draw(st.sampled_from(losses))
    arguments = f"reduction={reduction!r}"
    if loss == "NLLLoss":
        codes.append("LogSoftmax()")
    if loss in ("CrossEntropyLoss", "NLLLoss") and draw(st.booleans()):
        weights = draw(st.lists(st.sampled_from([0.25, 1.0, 3.0]), min_size=out, max_size=out))
        arguments += f", class_weight={weights}"
    if loss in ("CrossEntropyLoss", "NLLLoss") and draw(st.booleans()):
        arguments += ", ignore_index=-100"
    if loss == "CrossEntropyLoss" and draw(st.booleans()):
        arguments += f", label_smoothing={draw(fractions):.3g}"
    return Case(
        lead,
        features,
        codes,
        f"{loss}({arguments})",
        draw(st.sampled_from(list(OPTIMIZERS))),
        draw(st.sampled_from([None, 0.5])),
        draw(st.integers(0, 2**20)),
        draw(st.booleans()),
        draw(st.booleans()),
        draw(st.integers(1, 2)),
        draw(st.sampled_from([0, 1, 2])),
    )


# --- what every network is put to -----------------------------------------------------------------


def check_gradients(case: Case) -> int:
    """Finite differences of network and loss; the number of kinks."""
    model, loss = case.build(), build(case.loss)
    x, *target = case.data(model)
    report = minidl.gradcheck(model, x, rtol=1e-5, atol=1e-8)
    prediction = copy.deepcopy(model)(x)
    # The last digits of a large loss, over a step, are more than a small gradient has.
    size = max(1.0, abs(float(loss(prediction, *target))))
    minidl.gradcheck(loss, prediction, *target, atol=1e-9 * size)
    return report.kinks


def check_recorded(case: Case) -> None:
    """Four recorded steps of training are four eager ones, bit for bit."""
    results = []
    cls, options = OPTIMIZERS[case.optimizer]
    for record in (True, False):
        model = case.build(np.float32)
        x, *target = case.data(model, np.float32)
        options = {**options, "lr": 1e-3, "max_norm": case.max_norm}  # more may diverge
        optimizer = cls(case.parameters(model.parameters(), 1e-3), **options)
        training = Training(model, build(case.loss), optimizer)
        step: Any = minidl.record(training.step) if record else training.step
        values = [np.array(step(np.float32(1 - 0.1 * i) * x, *target)) for i in range(4)]
        results.append([*values, *training.arrays().values()])
    assert_same(*results, "recorded is not eager")


def check_trainer(case: Case) -> None:
    """Two recorded epochs of a Trainer are two eager ones, bit for bit."""
    results = []
    cls, options = OPTIMIZERS[case.optimizer]
    for record in (True, False):
        model = case.build(np.float32)
        x, y, *weight = case.data(model, np.float32)
        rows = len(x) if not weight else int(weight[0].reshape(len(x), -1).any(axis=1).sum())
        options = {**options, "lr": 1e-3, "max_norm": case.max_norm}
        optimizer = cls(case.parameters(model.parameters(), 1e-3), **options)
        trainer = Trainer(model, build(case.loss), optimizer, rng=0, record=record)
        history = trainer.fit(
            *(x, y, 2),
            batch_size=3 if rows % 2 else 2,  # a last batch of one would have no variance
            sample_weight=weight[0] if weight else None,
            accumulate=case.accumulate,
            progress=False,
        )
        results.append([*map(np.array, history.values()), *Training.arrays(trainer).values()])
    assert_same(*results, "a recorded epoch is not an eager one")


def check_watched(case: Case) -> None:
    """Four watched steps are four others, bit for bit; what is noted is right."""
    results, monitors = [], []
    cls, options = OPTIMIZERS[case.optimizer]
    for record, every in ((True, 0), (True, case.every), (False, case.every)):
        model, loss = case.build(np.float32), build(case.loss)
        x, *target = case.data(model, np.float32)
        options = {**options, "lr": 1e-3, "max_norm": case.max_norm}
        optimizer = cls(case.parameters(model.parameters(), 1e-3), **options)
        training, monitor = Training(model, loss, optimizer), GradientMonitor(every=every or 1)
        step: Any = minidl.record(training.step) if record else training.step
        with monitor.watch(model, optimizer, loss) if every else nullcontext():
            values = [np.array(step(np.float32(1 - 0.1 * i) * x, *target)) for i in range(4)]
        results.append([*values, *training.arrays().values()])
        monitors.append(monitor)
    for result in results[1:]:
        assert_same(results[0], result, "watched steps are not the others")
    assert_same_records(*monitors[1:])
    seen, model = monitors[1], case.build(np.float32)
    assert seen.steps.tolist() == list(range(1, 5, case.every))
    np.testing.assert_array_equal(seen.scalars["loss"], results[0][: 4 : case.every])
    layers = [layer for path, layer in model.layers() if path in seen.layers]
    for name, right in figures_of_step(model, layers, build(case.loss), x, *target).items():
        size = 1e-3 * np.nanmax(np.abs(right), initial=1)
        np.testing.assert_allclose(seen[name][0], right, rtol=1e-3, atol=size, err_msg=name)


def check_pytorch(case: Case) -> None:
    """Three steps in PyTorch: outputs, losses, gradients, and what the optimizer makes of them.

    Their optimizer gets our gradients, and they our parameters, once these are known to be
    the same: Adam would make a step of full size from a gradient that is nothing but rounding.
    """
    model, loss = case.build(), build(case.loss)
    for _, layer in model.layers():
        if isinstance(layer, nn.Dropout):
            layer.eval()  # their masks are others
    x, y, *_ = case.data(model)  # theirs has no weights of rows
    peer, peer_loss = peer_of(model), peer_of_loss(loss)
    cls, options = OPTIMIZERS[case.optimizer]
    optimizer = cls(case.parameters(model.parameters(), options["lr"]), **options)
    theirs = [dict(peer.named_parameters())[their_name(n)] for n, _ in model.named_parameters()]
    peer_optimizer = peer_of_optimizer(cls)(case.parameters(theirs, options["lr"]), **options)
    for _ in range(3):
        peer_optimizer.zero_grad()
        input_, target = torch.tensor(x, requires_grad=True), torch.tensor(y)
        their_output = peer(input_)
        # Their classes of sequences are in the middle.
        sequences = loss.takes_labels and y.ndim > 1
        their_value = peer_loss(their_output.mT if sequences else their_output, target)
        their_value.backward()
        output = model(x)
        close(output, their_output.detach())
        close(loss(output, y), their_value.item())
        optimizer.zero_grad()
        close(model.backward(loss.backward()), input_.grad)
        for parameter, tensor in zip(model.parameters(), theirs, strict=True):
            close(parameter.grad.T, tensor.grad)
            tensor.grad = torch.tensor(parameter.grad.T.copy())
        optimizer.step()
        peer_optimizer.step()
        for parameter, tensor in zip(model.parameters(), theirs, strict=True):
            close(parameter.data.T, tensor.detach(), 1e-7)  # Nadam's product is float32 there
            tensor.data.copy_(torch.tensor(parameter.data.T.copy()))


def close(a: Any, b: Any, tolerance: float = 1e-9) -> None:
    a, b = np.asarray(a), np.asarray(b)
    size = max(1.0, float(np.abs(b).max(initial=0)))
    np.testing.assert_allclose(a, b, rtol=1e-6, atol=tolerance * size)


@pytest.fixture
def tally() -> Iterator[Counter[str]]:
    """What was drawn and what passed: printed at the end, which ``make fuzz`` shows."""
    counts: Counter[str] = Counter()
    yield counts
    print()
    for name, count in sorted(counts.items()):
        print(f"{count:7,}  {name}")


# Layers are drawn without regard to what follows them.
@pytest.mark.filterwarnings("ignore::minidl.TrainingWarning")
def test_random_stacks(tally: Counter[str]) -> None:
    @settings(max_examples=RUNS, suppress_health_check=list(HealthCheck), print_blob=False)
    @given(cases())
    def run(case: Case) -> None:
        tally["networks drawn"] += 1
        tally["  elements at kinks"] += check_gradients(case)
        tally["passed: gradients"] += 1
        check_recorded(case)
        tally["passed: recorded = eager"] += 1
        check_trainer(case)
        tally["passed: Trainer, recorded = eager"] += 1
        if case.every:
            check_watched(case)
            tally["passed: watched = not watched"] += 1
        drawn = {type(layer).__name__ for _, layer in case.build().layers()}
        if torch is not None and not drawn.intersection(WITHOUT_PEER):
            check_pytorch(case)
            tally["passed: PyTorch"] += 1
        tally.update(f"  with {name}" for name in drawn | {case.loss.split("(")[0]})
        tally[f"  with {OPTIMIZERS[case.optimizer][0].__name__}"] += 1
        tally["  with GELU by tanh"] += any("GELU('tanh')" in layer for layer in case.layers)
        tally["  with weights of rows"] += case.weighted
        tally["  with weights of classes"] += "class_weight" in case.loss
        tally["  with groups"] += case.grouped
        tally[f"  with inputs of {len(case.lead) + 1} dimensions"] += 1

    run()
    if RUNS >= 1000:
        missing = [name for name in KINDS if not tally[f"  with {name}"]]
        assert not missing, f"never drawn: {missing}"


def test_a_fault_in_what_a_monitor_notes_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    layers = ["Linear(3, 4)", "Tanh()", "Residual(Linear(4, 4))", "Linear(4, 2)"]
    case = Case((4,), 3, layers, "MSELoss()", next(iter(OPTIMIZERS)), None, 0, every=1)
    check_watched(case)
    sound = Records._gradient
    monkeypatch.setattr(Records, "_gradient", lambda *given: 1.01 * sound(*given))
    with pytest.raises(AssertionError, match="gradient"):
        check_watched(case)


def test_a_fault_in_a_stack_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    case = Case(
        (4,),
        3,
        ["Linear(3, 4)", "Tanh()", "Linear(4, 2)"],
        "MSELoss()",
        next(iter(OPTIMIZERS)),
        None,
        0,
    )
    check_gradients(case)
    sound = nn.Tanh.backward
    monkeypatch.setattr(nn.Tanh, "backward", lambda self, dy: 0.999 * sound(self, dy))
    with pytest.raises(minidl.GradcheckError):
        check_gradients(case)
    if torch is not None:
        with pytest.raises(AssertionError):
            check_pytorch(case)
