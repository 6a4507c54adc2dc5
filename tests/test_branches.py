"""Layers that branch, models with several inputs and outputs, and the loss of several heads."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checks import assert_same

import minidl
import minidl.c
import minidl.onnx
from minidl import analysis, kernels, nn, optim
from minidl.nn.entrances import entrances, input_names
from minidl.threads import set_num_threads

F32 = np.float32
RNG = np.random.default_rng(0)
TABLE = RNG.normal(size=(6, 4)).astype(F32)
SEQUENCES = RNG.normal(size=(6, 5, 3)).astype(F32)
LENGTHS = np.array([5, 1, 3, 2, 4, 5])
KINDS, SIZES = np.arange(6) % 3, RNG.normal(size=(6, 1)).astype(F32)


def two_towers() -> nn.Sequential:
    """A network of two inputs and two heads."""
    towers = nn.Parallel(
        table=nn.Sequential(nn.Linear(4, 6), nn.Tanh()),
        sequences=nn.GRU(3, 5, return_sequences=False),
    )
    heads = nn.Parallel(kind=nn.Linear(11, 3), size=nn.Linear(11, 1), join=None)
    return nn.Sequential(towers, heads, rng=0)


def two_losses(**options: Any) -> nn.MultiLoss:
    return nn.MultiLoss({"kind": nn.CrossEntropyLoss(), "size": nn.MSELoss()}, **options)


# --- what goes where ------------------------------------------------------------------------------


def test_one_input_goes_to_every_branch_and_gradients_add_up() -> None:
    first, second = nn.Linear(4, 3, rng=0), nn.Linear(4, 2, rng=1)
    layer = nn.Parallel(first, second)
    y = layer(TABLE)
    assert_same([y], [np.concatenate([first(TABLE), second(TABLE)], axis=-1)], "forward")
    layer(TABLE)
    dy = np.cos(y)
    dx = layer.backward(dy)
    expected = kernels.add(
        kernels.linear_grad_input(dy[:, :3], first.weight.data),
        kernels.linear_grad_input(dy[:, 3:], second.weight.data),
    )
    assert_same([dx], [expected], "dx")


def test_branches_may_share_a_layer() -> None:
    """Gradients of a Siamese network are the sum of those of both of its calls."""
    encoder = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), rng=0)
    siamese, (a, b) = nn.Parallel(encoder, encoder, join=None), (TABLE[:3], TABLE[3:])
    assert len(siamese.parameters()) == 2
    dys = np.ones((3, 3), F32), np.full((3, 3), 2, F32)
    siamese(a, b)
    together = siamese.backward(dys)
    gradients = [p.grad.copy() for p in siamese.parameters()]
    encoder.zero_grad()
    alone = []
    for x, dy in ((b, dys[1]), (a, dys[0])):
        encoder(x)
        alone.append(encoder.backward(dy))
    assert_same(list(together), alone[::-1], "gradients of inputs")
    assert_same(gradients, [p.grad for p in encoder.parameters()], "gradients of parameters")
    with pytest.raises(RuntimeError, match="backward without a forward"):
        siamese.backward(dys)


@pytest.mark.parametrize("given", ["places", "tuple", "one tuple of Sequential"])
def test_a_tuple_is_several_inputs(given: str) -> None:
    model = two_towers()
    inputs = TABLE, SEQUENCES, LENGTHS
    y = model(*inputs) if given == "places" else model(inputs)
    expected = [model[1].branches[n](model[0](*inputs)) for n in ("kind", "size")]
    assert_same(list(y), expected, given)


def test_lengths_go_with_the_sequences_before_them() -> None:
    gru, other = nn.GRU(3, 2, return_sequences=False, rng=0), nn.GRU(3, 2, rng=1)
    other.return_sequences = False
    words = nn.Embedding(6, 2, rng=0)
    dense = nn.Linear(4, 2, rng=0)
    first, second = gru(SEQUENCES, LENGTHS), other(SEQUENCES, LENGTHS[::-1].copy())
    for branches, inputs, expected in (
        ((dense, gru), (TABLE, SEQUENCES, LENGTHS), (dense(TABLE), first)),
        ((gru, dense), (SEQUENCES, LENGTHS, TABLE), (first, dense(TABLE))),
        ((gru, words), (SEQUENCES, LENGTHS, KINDS), (first, words(KINDS))),
        ((gru, words), (SEQUENCES, KINDS), (gru(SEQUENCES), words(KINDS))),
        ((words, gru), (KINDS, SEQUENCES, LENGTHS), (words(KINDS), first)),
        ((gru, other), (SEQUENCES, LENGTHS, SEQUENCES, LENGTHS[::-1].copy()), (first, second)),
        ((gru, other), (SEQUENCES, LENGTHS), (first, other(SEQUENCES, LENGTHS))),
    ):
        layer = nn.Parallel(*branches, join=None)
        assert_same(list(layer(*inputs)), list(expected), str(layer))
        found = entrances(layer, list(inputs))
        assert len(found) == len(inputs)
        assert sum(e.lengths_of is not None for e in found) == sum(
            x is not None for _, x in layer.by_branch(inputs)
        )


def test_residual_takes_tuples() -> None:
    pair = TABLE, 2 * TABLE
    block = nn.Residual(nn.Parallel(nn.Linear(4, 4, rng=0), nn.Tanh(), join=None))
    y = block(*pair)
    assert_same(
        list(y),
        [
            kernels.add(block.body.branches["0"](TABLE), TABLE),
            kernels.add(kernels.tanh(pair[1]), pair[1]),
        ],
        "forward",
    )
    assert len(block.backward(y)) == 2
    minidl.gradcheck(
        nn.Sequential(
            nn.Split((1, 2)),
            nn.Residual(nn.Parallel(nn.Linear(1, 1), nn.Linear(2, 2), join=None)),
            nn.Concat(),
        ),
        TABLE[:, :3],
    )


def test_nested_branches() -> None:
    inner = nn.Parallel(nn.Linear(1, 2), nn.Tanh(), join=None)
    model = nn.Sequential(
        nn.Parallel(
            nn.Sequential(nn.Split((1, 3)), inner, nn.Concat()), nn.Linear(4, 5), join="multiply"
        ),
        nn.Parallel(nn.Select(0), nn.Identity()),
        rng=0,
    )
    assert minidl.gradcheck(model, TABLE).ok
    pairs = nn.Parallel(nn.Parallel(nn.Tanh(), nn.Identity(), join=None), nn.Tanh(), join=None)
    (a, b), c = pairs((TABLE, 2 * TABLE), 3 * TABLE)
    assert (b == 2 * TABLE).all()
    (da, db), dc = pairs.backward((a, b), c)
    assert da.shape == db.shape == dc.shape
    pairs(TABLE)
    with pytest.raises(ValueError, match="backward expected 2 gradients, one for each output, got"):
        pairs.backward((a, b))


def test_many_parts_side_by_side() -> None:
    parts = [TABLE[:, : i % 4 + 1] * i for i in range(1, 12)]
    layer = nn.Concat()
    assert_same([layer(*parts)], [np.concatenate(parts, axis=-1)], "forward")
    assert_same(list(layer.backward(np.concatenate(parts, axis=-1))), parts, "backward")


def test_names_of_inputs() -> None:
    class Own(nn.Layer):
        def forward(self, left: Any, right: Any) -> Any:
            return kernels.add(left, right)

    assert input_names(two_towers()) == ["table", "sequences"]
    assert input_names(nn.Sequential(nn.Sequential(Own()))) == ["left", "right"]
    assert input_names(nn.Sequential(nn.Parallel(nn.Tanh(), nn.Tanh()))) == ["0", "1"]


class Wider(nn.Layer):
    """y = (x, x): twice as wide, which its constructor does not say."""

    def forward(self, x: Any) -> Any:
        return kernels.concat(x, x)


class Halves(nn.Layer):
    """y = the left half of the columns, and the right one, which no output_shape says."""

    def forward(self, x: Any) -> Any:
        return x[:, :2].copy(), x[:, 2:].copy()


# --- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: nn.Parallel(), "at least one branch"),
        (lambda: nn.Parallel(nn.Tanh, nn.Tanh()), "takes layers, got .* as branch 0"),
        (lambda: nn.Parallel(nn.Tanh(), a=3), "got 3 as branch a"),
        (lambda: nn.Parallel(nn.Tanh(), join="sum"), "join must be"),
        (lambda: nn.Parallel(joint=nn.Tanh()), "cannot be called 'joint'"),
        (lambda: nn.Parallel(nn.Tanh(), **{"0": nn.Tanh()}), "cannot be called '0'"),
        (
            lambda: nn.Parallel(nn.Linear(3, 4), b=nn.Sequential(nn.Linear(3, 5)), join="add"),
            r"branch 0 Linear\(3, 4\) gives 4 features and branch b Sequential gives 5; join='add'",
        ),
        (
            lambda: nn.Sequential(nn.Parallel(nn.Linear(3, 4), nn.Linear(3, 5)), nn.Linear(8, 2)),
            r"Parallel\(Linear, Linear\) gives 9 features, and Linear\(8, 2\) after it takes 8",
        ),
        (lambda: nn.Sequential(nn.Linear(3, 4), nn.Split((2, 3))), r"gives 4 features, and Split"),
        (
            lambda: nn.Sequential(nn.Split((2, 2)), nn.Tanh()),
            r"Sequential: Split\(\(2, 2\)\) gives a tuple of 2, and Tanh\(\) .* one input; join",
        ),
        (
            lambda: nn.Sequential(
                nn.Parallel(nn.Tanh(), nn.Tanh(), join=None), nn.Sequential(nn.Linear(4, 2))
            ),
            r"join=None\) gives a tuple of 2, and Linear\(4, 2\) after it takes one input",
        ),
        (lambda: nn.Sequential(nn.Linear(3, 2)).summary((4,)), r"layer 0 .*takes 3 features"),
        (lambda: nn.Sequential(nn.Linear(3, 2)).summary(3), "expected the shape of a row"),
        (lambda: nn.Split(3), "sizes must be a tuple"),
        (lambda: nn.Split(()), "sizes must be a tuple"),
        (lambda: nn.Split((2, 0)), "each of sizes must be"),
        (lambda: nn.Select(-1), "index must be"),
        (lambda: nn.MultiLoss([]), "at least one loss"),
        (lambda: nn.MultiLoss(nn.MSELoss()), "several losses"),
        (lambda: nn.MultiLoss(3), "expected a list or a dict of losses, got 3"),
        (lambda: nn.MultiLoss([nn.MSELoss]), "head 0 must be the loss of one"),
        (lambda: nn.MultiLoss([two_losses()]), "head 0 must be the loss of one"),
        (lambda: nn.MultiLoss({0: nn.MSELoss()}), "the name of a head must be a word, got 0"),
        (lambda: two_losses(weights=0.5), "must be a sequence, or a dict by name, got 0.5"),
        (lambda: nn.MultiLoss([nn.MSELoss("none")]), "head 0 needs one number"),
        (lambda: two_losses(weights=[1]), "a weight for each of the 2 heads, got 1"),
        (lambda: two_losses(weights={"weight": 1}), "for 'weight', and the heads are kind, size"),
        (lambda: two_losses(weights=[1, -1]), "the weight of size must be"),
    ],
)
def test_what_cannot_be_built(build: Any, words: str) -> None:
    with pytest.raises((TypeError, ValueError), match=words):
        build()


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (
            lambda: nn.Parallel(nn.Linear(4, 2), nn.Tanh(), join="add")(TABLE),
            r"branch 0 Linear\(4, 2\) gives float32 \(6, 2\), branch 1 Tanh\(\) gives float32 "
            r"\(6, 4\); join='add' needs the same shape",
        ),
        (
            lambda: nn.Sequential(
                nn.Split((2, 2)), nn.Parallel(a=Wider(), b=nn.Tanh(), join="stack")
            )(TABLE),
            r"layer 1 Parallel\(a=Wider, b=Tanh, join='stack'\): branch a .*\(6, 4\), branch b",
        ),
        (lambda: nn.Parallel(nn.Tanh(), nn.Tanh())(TABLE, TABLE, TABLE), "each of the 2, got 3"),
        (
            lambda: nn.Parallel(nn.GRU(3, 2), nn.Tanh())(SEQUENCES, TABLE, LENGTHS),
            "one for each of the 2, got 3",
        ),
        (lambda: nn.Sequential(nn.Tanh())(TABLE, TABLE), "begin with nn.Parallel"),
        (
            lambda: nn.Sequential(Halves(), nn.Tanh())(TABLE),
            r"layer 1 Tanh\(\): expected one input, got a tuple of 2; join them",
        ),
        (
            lambda: nn.Concat()(TABLE, TABLE[:3]),
            r"Concat\(\): input 1 is .*\(3, 4\), input 0",
        ),
        (
            lambda: nn.Add()(TABLE, TABLE.astype(np.float64)),
            r"Add\(\): input 1 is float64 .* expected the same shape and dtype",
        ),
        (
            lambda: nn.Parallel(nn.Tanh(), nn.Linear(3, 2))(TABLE, np.arange(len(TABLE))),
            r"Parallel\(Tanh, Linear\): got an input and lengths.* no branch takes lengths",
        ),
        (
            lambda: nn.Residual(nn.Tanh())(TABLE, lengths=np.ones(len(TABLE), int)),
            r"Residual\(Tanh\): got lengths, and no layer in it takes them",
        ),
        (
            lambda: nn.Parallel(nn.Tanh())(TABLE, lengths=np.ones(len(TABLE), int)),
            r"Parallel\(Tanh\): got an input and lengths",
        ),
        (lambda: nn.Stack()(TABLE, TABLE[:, :2]), r"Stack\(\): input 1 .* expected the same shape"),
        (lambda: nn.Concat()(), "at least one input"),
        (lambda: nn.Select(2)(TABLE, TABLE), r"Select\(2\): expected at least 3 inputs, got 2"),
        (lambda: nn.Split((2, 3))(TABLE), r"Split\(\(2, 3\)\): expected input of shape"),
    ],
)
def test_what_cannot_be_called(call: Any, words: str) -> None:
    with pytest.raises((TypeError, ValueError), match=words):
        call()


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (((TABLE, TABLE), (KINDS,)), "target: expected 2, one for each head .*, got 1"),
        ((TABLE, (KINDS, SIZES)), "prediction: expected a tuple of 2, or a dict .*, got ndarray"),
        (
            ({"kind": TABLE, "sizes": SIZES}, (KINDS, SIZES)),
            "kind, size, .*got kind, sizes",
        ),
        (((TABLE, SIZES), (KINDS, TABLE)), "MSELoss.* differ in shape"),
    ],
)
def test_what_a_multi_loss_cannot_compare(given: Any, words: str) -> None:
    with pytest.raises((TypeError, ValueError), match=words):
        two_losses()(*given)


# --- the loss of several heads --------------------------------------------------------------------


def test_multi_loss_is_the_weighted_sum() -> None:
    loss, alone = two_losses(weights={"size": 0.25}), (nn.CrossEntropyLoss(), nn.MSELoss())
    predictions, targets = (TABLE[:, :3], TABLE[:, 3:]), (KINDS, SIZES)
    weights = np.linspace(0, 1, 6).astype(F32)
    for weight in (None, weights, (None, weights), {"kind": weights, "size": None}):
        value = float(loss(predictions, targets, weight))
        own = loss.by_head("weight", weight) if isinstance(weight, (tuple, dict)) else [weight] * 2
        of_heads = [f(p, t, w) for f, p, t, w in zip(alone, predictions, targets, own, strict=True)]
        assert value == float(of_heads[0]) + 0.25 * float(of_heads[1])
        assert [float(v) for v in loss.values.values()] == [float(v) for v in of_heads]
        assert list(loss.values) == ["kind", "size"]
        expected = [f.backward() for f in alone]
        expected[1] = expected[1] * F32(0.25)
        assert_same(list(loss.backward()), expected, "gradients")
        with pytest.raises(RuntimeError, match="backward without a forward"):
            loss.backward()


def test_multi_loss_is_checked_copied_and_shown() -> None:
    loss = nn.MultiLoss([nn.CrossEntropyLoss(), nn.HuberLoss(0.5)], weights=[2, 0.3])
    given = (RNG.normal(size=(6, 3)), RNG.normal(size=(6, 1))), (KINDS, SIZES.astype(float))
    report = minidl.gradcheck(loss, *given)
    assert report.checked == 24
    assert report.tensors.keys() == {"prediction 0", "prediction 1"}
    assert repr(loss) == (
        "MultiLoss({'0': CrossEntropyLoss(), '1': HuberLoss(delta=0.5)}, "
        "weights={'0': 2.0, '1': 0.3})"
    )
    for other in (copy.deepcopy(loss), pickle.loads(pickle.dumps(loss))):
        assert repr(other) == repr(loss)
        assert float(other(*given)) == float(loss(*given))
    with nn.evaluating():
        loss.forget()
        loss(*given)
    with pytest.raises(RuntimeError, match="backward without a forward"):
        loss.backward()


def test_a_changed_weight_or_head_is_recorded_anew() -> None:
    loss = two_losses()

    @minidl.record
    def step(kinds: Any, sizes: Any, y: Any, z: Any) -> Any:
        value = loss((kinds, sizes), (y, z))
        return value, loss.values, loss.backward()

    given = TABLE[:, :3].copy(), TABLE[:, 3:].copy(), KINDS, SIZES
    for change in (
        lambda: None,
        lambda: setattr(loss, "weights", (3.0, 0.5)),
        lambda: setattr(loss.heads["kind"], "label_smoothing", 0.25),
    ):
        change()
        value, values, gradients = step(*given)
        assert float(value) == float(loss(given[:2], given[2:]))
        assert {k: float(v) for k, v in values.items()} == {
            k: float(v) for k, v in loss.values.items()
        }
        assert_same(list(gradients), list(loss.backward()), "gradients")


@pytest.mark.parametrize(
    ("inside", "words"),
    [
        (
            lambda: nn.Parallel(nn.Linear(3, 3), nn.Linear(4, 4)),
            r"Linear\(2, 3\) gives 3 features, and Linear\(4, 4\) of branch 1 after it takes 4",
        ),
        (
            lambda: nn.Parallel(a=nn.Sequential(nn.Tanh()), b=nn.Sequential(nn.Linear(5, 3))),
            r"Linear\(5, 3\) of branch b after it takes 5",
        ),
        (
            lambda: nn.Residual(nn.Linear(3, 3), nn.Linear(2, 3)),
            r"Linear\(2, 3\) of the shortcut after it takes 2",
        ),
    ],
)
def test_widths_inside_branches_are_checked_when_a_chain_is_built(inside: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        nn.Sequential(nn.Linear(2, 3), inside())
    nn.Sequential(nn.Linear(2, 5), nn.Parallel(nn.Linear(5, 3), nn.Tanh()), nn.Linear(8, 1))


def test_analyses_refuse_several_heads() -> None:
    with pytest.raises(TypeError, match=r"MultiLoss.* has 2 heads"):
        analysis.largest_curvature(two_towers(), two_losses(), (TABLE, SEQUENCES), (KINDS, SIZES))


# --- recorded -------------------------------------------------------------------------------------


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_recorded_epochs_over_tuples_and_dicts_are_eager_steps(threads: int) -> None:
    inputs = {"table": TABLE, "sequences": SEQUENCES, "lengths": LENGTHS}
    targets = {"kind": KINDS, "size": SIZES}
    results = []
    before = minidl.get_num_threads()
    set_num_threads(threads)
    try:
        for how in ("eager", "tuples", "dicts"):
            model, loss = two_towers(), two_losses(weights=[1, 0.5])
            optimizer = optim.Adam(model.parameters(), max_norm=1.0)

            def step(table: Any, sequences: Any, lengths: Any, kind: Any, size: Any) -> Any:
                value = loss(model(table, sequences, lengths), (kind, size))  # noqa: B023
                optimizer.zero_grad()  # noqa: B023
                model.backward(loss.backward())  # noqa: B023
                optimizer.step()  # noqa: B023
                return {"loss": value, **loss.values}  # noqa: B023

            recorded = minidl.record(step)
            losses: dict[str, list[float]] = {"loss": [], "kind": [], "size": []}
            for epoch in range(2):
                if how == "eager":
                    for x, y in minidl.batches(inputs, targets, 4, rng=epoch):
                        for name, value in step(**x, **y).items():
                            losses[name].append(float(value))
                    continue
                X: Any = inputs if how == "dicts" else tuple(inputs.values())
                Y: Any = dict(reversed(targets.items())) if how == "dicts" else (KINDS, SIZES)
                found = recorded.epoch(X, Y, 4, rng=epoch, per_step=True)
                for name, values in found.items():
                    losses[name] += values.tolist()
            results.append((losses, [p.data for p in model.parameters()]))
    finally:
        set_num_threads(before)
    for losses, parameters in results[1:]:
        assert losses == results[0][0]
        assert_same(parameters, results[0][1], "parameters")


def test_dicts_of_an_epoch_name_arguments() -> None:
    @minidl.record
    def step(a: Any, b: Any, y: Any) -> Any:
        return nn.MSELoss()(kernels.add(a, b), y)

    given = TABLE, 2 * TABLE, 3 * TABLE + 1
    assert step.epoch({"b": given[1], "a": given[0]}, given[2], 4) == pytest.approx(1)
    assert step.epoch({"b": given[1]}, (given[0], given[2]), 4) == pytest.approx(1)
    for wrong in ({"a": TABLE, "c": TABLE}, {"a": TABLE, "c": TABLE, "y": TABLE}):
        with pytest.raises(TypeError, match=r"epoch: the inputs are X\['a'\].* are a, b, y"):
            step.epoch(wrong, None if "y" in wrong else given[2], 4)
    with pytest.raises(ValueError, match=r"X\['a'\] has 6 rows, X\['b'\] has 5"):
        step.epoch({"a": TABLE, "b": TABLE[:5]}, given[2], 4)


# --- batches --------------------------------------------------------------------------------------


def test_batches_of_dicts_are_dicts() -> None:
    X, y = {"a": TABLE, "b": LENGTHS}, (KINDS, SIZES)
    found = list(minidl.batches(X, y, 4, rng=0))
    plain = list(minidl.batches((TABLE, LENGTHS), {"k": KINDS, "s": SIZES}, 4, rng=0))
    assert [list(x) for x, _ in found] == [["a", "b"], ["a", "b"]]
    for (x, targets), (other, named) in zip(found, plain, strict=True):
        assert_same([*x.values(), *targets], [*other, *named.values()], "batch")
    with pytest.raises(ValueError, match=r"X\['a'\] has 6 rows, y\[1\] has 5"):
        minidl.batches(X, (KINDS, SIZES[:5]), 4)


# --- what a reader sees ---------------------------------------------------------------------------


def test_tables_draw_the_branches() -> None:
    model = nn.Sequential(
        nn.Parallel(a=nn.Sequential(nn.Linear(4, 3), nn.ReLU()), b=nn.Tanh()),
        nn.Residual(nn.Linear(7, 7)),
    )
    assert [line.split("  ")[0] for line in repr(model).splitlines()[2:-2]] == [
        "0 Parallel(concat)",
        "├ a Sequential",
        "│ ├ 0 Linear(4, 3)",
        "│ └ 1 ReLU()",
        "└ b Tanh()",
        "1 Residual(Linear)",
    ]
    table = model.summary((4,))
    lines = [line.split()[:3] for line in table.splitlines()]
    assert "(batch, 7)" in table
    assert ["├", "a", "Sequential"] in lines
    assert ["└", "body", "Linear(7,"] in lines
    assert repr(model[0]) == "Parallel(a=Linear -> ReLU, b=Tanh)"
    body = nn.Sequential(nn.Linear(4, 4), nn.ReLU())
    deep = nn.Sequential(nn.Linear(4, 4), nn.Sequential(nn.Residual(body), model[0]))
    assert "  │ ├ 0 Linear(4, 3) " in repr(deep)
    towers = two_towers().summary((4,), (5, 3))
    assert "(batch, 3) and (batch, 1)" in towers
    assert towers == two_towers().summary(*((4,), (5, 3)))


def test_models_of_branches_are_saved_reset_and_frozen(tmp_path: Path) -> None:
    model = two_towers()
    names = [name for name, _ in model.named_parameters()]
    assert names[0] == "0.table.0.weight"
    assert names[-1] == "1.size.bias"
    model[0].branches["table"].freeze()
    minidl.save(model, tmp_path / "model.safetensors")
    loaded: Any = minidl.load(tmp_path / "model.safetensors")
    assert [p.frozen for p in loaded.parameters()] == [p.frozen for p in model.parameters()]
    assert [p.frozen for p in loaded.parameters()][:3] == [True, True, False]
    inputs = TABLE, SEQUENCES, LENGTHS
    assert_same(list(loaded(*inputs)), list(model(*inputs)), "loaded")
    assert repr(loaded) == repr(model)
    before = [p.data.copy() for p in model.parameters()]
    model.reset(5)
    assert not np.array_equal(before[0], model.parameters()[0].data)
    model.reset(0)
    assert_same([p.data for p in model.parameters()], before, "reset")


@pytest.mark.parametrize(
    ("layers", "state"),
    [
        (lambda: (nn.Parallel(nn.Linear(3, 4), nn.Linear(2, 4), join=None), nn.GRU(4, 4)), True),
        (lambda: (nn.GRU(3, 2), nn.GRU(2, 2)), True),
        (lambda: (nn.Parallel(nn.GRU(3, 4), nn.Linear(3, 4), join=None), nn.Add()), False),
        (lambda: (nn.GRU(3, 4), nn.Split((2, 2)), nn.Parallel(nn.GRU(2, 3), nn.Tanh())), False),
    ],
)
def test_lengths_follow_sequences_in_tuples(layers: Any, state: bool) -> None:
    heads = nn.Parallel(nn.GlobalAvgPool(), nn.Identity() if state else nn.GlobalMaxPool())
    model = nn.Sequential(*layers(), heads, rng=0)
    x, h = (RNG.normal(size=shape).astype(np.float32) for shape in ((4, 6, 3), (4, 2)))
    lengths = np.array([2, 6, 3, 5])
    rest = (h,) if state else ()
    with nn.evaluating():
        together = model(x, *rest, lengths=lengths)
        for row, length in enumerate(lengths):
            one = slice(row, row + 1)
            alone = model(x[one, :length].copy(), *(part[one] for part in rest))
            np.testing.assert_allclose(together[one], alone, rtol=1e-5, atol=1e-6)
