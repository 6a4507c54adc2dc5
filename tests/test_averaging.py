"""EMA: what is averaged, and the model while it holds the averages."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
from training_helpers import compiled

import minidl
from minidl import datasets, nn, optim
from minidl.training import Trainer


def normalized():
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm(4), nn.Dropout(0.5), nn.Linear(4, 2), rng=0)
    return model, np.random.default_rng(1).normal(size=(40, 3)).astype(np.float32) * 3 + 1


def test_averages_entered_twice_are_left_twice():
    model, x = normalized()
    ema = optim.EMA(model, decay=0.5)
    for parameter in model.parameters():
        parameter.data = parameter.data + 1
    model(x)
    own = [array.copy() for array in (*(p.data for p in model.parameters()), model[1].running_mean)]
    averages = [array.copy() for array in (*ema.averages, ema.state_averages[0])]

    def now():
        return [*(p.data for p in model.parameters()), model[1].running_mean]

    for _ in range(2):
        with ema.average():
            assert all(map(np.array_equal, now(), averages))
            with ema.average(), ema.average():
                assert all(map(np.array_equal, now(), averages))
            with pytest.raises(KeyError), ema.average():
                raise KeyError
            assert all(map(np.array_equal, now(), averages))
            with pytest.raises(RuntimeError, match="inside average"):
                ema.update()
        assert all(map(np.array_equal, now(), own))
    for copied in (copy.deepcopy(ema), pickle.loads(pickle.dumps(ema))):
        with copied.average():
            assert all(map(np.array_equal, now(), own))


def test_statistics_are_averaged_with_the_weights():
    """Those that training moves: not the state of generators, nor what was adapted to data."""
    model, x = normalized()
    model = nn.Sequential(nn.Standardize(3), *model.stack, nn.GRU(2, 2, stateful=40))
    ema = optim.EMA(model, decay=0.75)
    model[0].adapt(x)
    assert [(layer.label, name) for layer, name in ema.state] == [
        ("layer 2 BatchNorm(4)", "running_mean"),
        ("layer 2 BatchNorm(4)", "running_var"),
    ]
    expected = [array.copy() for array in ema.state_averages]
    for _ in range(3):
        model[:5](x)
        ema.update()
        for average, name in zip(expected, ("running_mean", "running_var"), strict=True):
            average += 0.25 * (getattr(model[2], name) - average)
    np.testing.assert_allclose(ema.state_averages, expected, rtol=1e-5)
    assert optim.EMA(model.parameters()).state == []


def test_statistics_can_be_taken_under_the_averages():
    model, x = normalized()
    ema = optim.EMA(model, decay=0.5)
    model[0].weight.data = model[0].weight.data * 3
    model(x)
    before = {name: array.copy() for name, array in model.state().items()}
    weights = [p.data.copy() for p in model.parameters()]
    ema.take_statistics([(x[:20],), (x[20:],)])
    assert all(np.array_equal(array, before[name]) for name, array in model.state().items())
    assert all(np.array_equal(p.data, w) for p, w in zip(model.parameters(), weights, strict=True))
    assert model[1].momentum == 0.1
    with ema.average():
        z = model[0](x)
        halves = z[:20], z[20:]
        mean = np.mean([half.mean(axis=0) for half in halves], axis=0)
        var = np.mean([half.var(axis=0, ddof=1) for half in halves], axis=0)
        np.testing.assert_allclose(model[1].running_mean, mean, rtol=1e-4)
        np.testing.assert_allclose(model[1].running_var, var, rtol=1e-4)
    model.eval()
    with pytest.raises(RuntimeError, match="no layer takes statistics"):
        ema.take_statistics([(x,)])
    with pytest.raises(RuntimeError, match="needs the model"):
        optim.EMA(model.parameters()).take_statistics([(x,)])


def test_averages_with_statistics_of_their_own_predict():
    """With large steps those of the latest weights are far off: a loss above 2."""
    data = datasets.digits()
    first, second = ([nn.Linear(64, 64), nn.BatchNorm(64), nn.ReLU()] for _ in range(2))
    model = nn.Sequential(*first, *second, nn.Linear(64, 10), rng=0)
    optimizer = optim.SGD(model.parameters(), lr=0.3, momentum=0.9)
    ema = optim.EMA(model.parameters(), decay=0.999)
    trainer = Trainer(model, nn.CrossEntropyLoss(), optimizer, rng=0, ema=ema)
    held_out = data.x_test, data.y_test
    history = trainer.fit(data.x_train, data.y_train, 6, 32, held_out, progress=False)
    with ema.average():
        assert trainer.evaluate(*held_out)["loss"] == history["val_loss"][-1] < 0.4


@compiled
@pytest.mark.parametrize("how", ["step", "fit"])
def test_recorded_steps_hear_that_the_weights_are_the_averages(how):
    model, x = normalized()
    loss, optimizer = nn.MSELoss(), optim.SGD(model.parameters(), lr=0.1)
    ema = optim.EMA(model, decay=0.5)
    trainer, y = Trainer(model, loss, optimizer, ema=ema, rng=0), x[:, :2]

    @minidl.record
    def step(x, y):
        value = loss(model(x), y)
        optimizer.zero_grad()
        model.backward(loss.backward())
        optimizer.step()
        ema.update()
        return value

    def train():
        return step(x, y) if how == "step" else trainer.fit(x, y, 1, progress=False)

    for _ in range(2):
        train()
    with ema.average():
        before = [parameter.data.copy() for parameter in model.parameters()]
        with pytest.raises(RuntimeError, match="inside average"):
            train()
        assert all(map(np.array_equal, before, (p.data for p in model.parameters())))
    train()
