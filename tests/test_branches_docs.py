"""docs/branches.md tells the truth: its programs run and print what it says, they are recorded, and
their networks train as the same networks do in PyTorch.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checks import assert_same
from torch_peers import fill, torch

import minidl
from minidl import _kernels, nn, optim

DOC = Path(__file__).parents[1] / "docs" / "branches.md"
TEXT = DOC.read_text(encoding="utf-8")
NUMBER = r"\d+\.\d+"


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE)


@pytest.fixture(scope="module")
def page() -> dict[str, Any]:
    """All names after the programs of the page have run, and what they printed."""
    names: dict[str, Any] = {"printed": []}
    names["print"] = lambda text: names["printed"].append(f"{text}\n")
    for block in blocks("python"):
        exec(compile(block, str(DOC), "exec"), names)
    return names


def test_programs_print_what_the_page_says(page: dict[str, Any]) -> None:
    """Numbers that were trained may differ a little on another machine."""
    printed, shown = "".join(page["printed"]), "".join(blocks("text"))
    assert re.sub(NUMBER, "#", printed) == re.sub(NUMBER, "#", shown)
    found, said = ([float(n) for n in re.findall(NUMBER, text)] for text in (printed, shown))
    np.testing.assert_allclose(found, said, atol=0.03)
    assert [part.shape for part in (page["logits"], page["predicted"])] == [(800, 3), (800, 1)]


def test_programs_are_short() -> None:
    parts = TEXT.split("\n## ")
    for title in ("Two inputs", "One layer twice", "A U with skips"):
        (section,) = [part for part in parts if part.startswith(title)]
        own = re.findall(r"^```python\n(.*?)^```", section, re.DOTALL | re.MULTILINE)
        assert 10 < max(block.count("\n") for block in own) < 40


def test_programs_are_recorded(page: dict[str, Any]) -> None:
    if _kernels.isa == "reference":
        pytest.skip("the twin alone records nothing")
    assert page["step"].programs > 0
    for trainer in (page["trainer"], page["u_trainer"]):
        assert trainer._step.recorded.step.programs > 0


def test_links_lead_somewhere() -> None:
    links = re.findall(r"\[`?([^]`]+)`?\]\(([^)]+)\)", TEXT)
    assert len(links) == 3
    for label, target in links:
        assert (DOC.parent / target).resolve().exists(), target
        assert target.endswith(label)


def test_lines_are_short() -> None:
    assert not [line for line in TEXT.splitlines() if len(line) > 110 and not line.startswith("|")]


# --- PyTorch --------------------------------------------------------------------------------------

Call = Callable[..., Any]


def trained(model: nn.Layer, loss: Any, arrays: tuple[Any, ...], inputs: int, record: bool) -> Any:
    """The losses of five steps, and the parameters after them, in float64."""
    model = copy.deepcopy(model)
    optimizer = optim.SGD(model.parameters(), lr=0.02)

    def step(*batch: Any) -> Any:
        targets = batch[inputs:]
        value = loss(model(*batch[:inputs]), targets if len(targets) > 1 else targets[0])
        optimizer.zero_grad()
        model.backward(loss.backward())
        optimizer.step()
        return value

    made: Call = minidl.record(step) if record else step
    losses = [float(made(*arrays)) for _ in range(5)]
    return np.array(losses), [parameter.data for parameter in model.parameters()]


def assert_trains_as_theirs(
    model: nn.Layer, loss: Any, arrays: tuple[Any, ...], inputs: int, peer: Any, peer_loss: Call
) -> None:
    """Five steps, recorded and eager, give the losses of five steps in PyTorch."""
    arrays = tuple(a.astype(np.float64) if a.dtype.kind == "f" else a for a in arrays)
    (losses, parameters), eager = (trained(model, loss, arrays, inputs, r) for r in (True, False))
    assert_same([losses, *parameters], [eager[0], *eager[1]], "recorded is not eager")
    theirs = torch.optim.SGD(peer.parameters(), lr=0.02)
    expected = []
    tensors = [torch.tensor(array) for array in arrays]
    for _ in range(5):
        value = peer_loss(peer(*tensors[:inputs]), *tensors[inputs:])
        theirs.zero_grad()
        value.backward()
        theirs.step()
        expected.append(value.item())
    np.testing.assert_allclose(losses, expected, rtol=1e-8)
    assert losses[-1] < losses[0]


def fresh(model: nn.Layer) -> Any:
    """The same network in float64, with other weights, which are yet to be trained."""
    return copy.deepcopy(model).astype(np.float64).reset(5)


def linear(layer: Any) -> Any:
    peer = torch.nn.Linear(layer.in_features, layer.out_features).double()
    fill(peer.weight, layer.weight.data.T)
    fill(peer.bias, layer.bias.data)
    return peer


def test_two_inputs_and_two_heads_in_pytorch(page: dict[str, Any]) -> None:
    pytest.importorskip("torch")
    model = fresh(page["model"])
    settings, sensors = model[0].branches.values()
    kind, wear = model[3].branches.values()

    class Peer(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.settings, self.middle = linear(settings[0]), linear(model[1])
            self.kind, self.wear = linear(kind), linear(wear)
            self.gru = torch.nn.GRU(2, 16, batch_first=True).double()
            (cell,) = sensors.cells
            fill(self.gru.weight_ih_l0, cell.input_weight.data.T)
            fill(self.gru.weight_hh_l0, cell.recurrent_weight.data.T)
            fill(self.gru.bias_ih_l0, cell.bias.data)
            fill(self.gru.bias_hh_l0, cell.recurrent_bias.data)

        def forward(self, table: Any, series: Any, lengths: Any) -> Any:
            packed = torch.nn.utils.rnn.pack_padded_sequence(
                series, lengths, batch_first=True, enforce_sorted=False
            )
            both = torch.cat([self.settings(table).relu(), self.gru(packed)[1][0]], dim=1)
            hidden = self.middle(both).relu()
            return self.kind(hidden), self.wear(hidden)

    def peer_loss(outputs: Any, kind: Any, wear: Any) -> Any:
        cross_entropy, mse = torch.nn.functional.cross_entropy, torch.nn.functional.mse_loss
        return cross_entropy(outputs[0], kind) + 0.5 * mse(outputs[1], wear)

    names = ("table", "series", "lengths", "kind", "wear")
    arrays = tuple(page[name][:50] for name in names)
    loss = copy.deepcopy(page["loss"])
    assert_trains_as_theirs(model, loss, arrays, 3, Peer(), peer_loss)


def test_a_siamese_network_in_pytorch(page: dict[str, Any]) -> None:
    pytest.importorskip("torch")
    twins = fresh(page["twins"])
    encoder = twins.branches["0"]

    class Peer(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = torch.nn.Sequential(
                linear(encoder[0]), torch.nn.ReLU(), linear(encoder[2])
            )

        def forward(self, first: Any, second: Any) -> Any:
            return self.encoder(first), self.encoder(second)

    def peer_loss(outputs: Any, together: Any) -> Any:
        return torch.nn.functional.cosine_embedding_loss(*outputs, together, margin=0.3)

    x, one, other = page["x"], page["one"][1970:2030], page["other"][1970:2030]
    arrays = x[one], x[other], page["together"][1970:2030]
    loss = nn.CosineEmbeddingLoss(margin=0.3)
    assert_trains_as_theirs(twins, loss, arrays, 2, Peer(), peer_loss)


def test_a_u_with_skips_in_pytorch(page: dict[str, Any]) -> None:
    pytest.importorskip("torch")
    model = fresh(page["u_net"])
    outer = model[2]
    inner = outer[2].branches["1"][1]
    bottom = inner[2].branches["1"][1]

    def conv(layer: Any) -> Any:
        height, width, before, after = layer.weight.shape
        peer = torch.nn.Conv2d(before, after, (height, width), padding="same").double()
        fill(peer.weight, layer.weight.data.transpose(3, 2, 0, 1))
        fill(peer.bias, layer.bias.data)
        return peer

    class Level(torch.nn.Module):
        def __init__(self, layers: Any, inner: Any) -> None:
            super().__init__()
            self.down, self.up, self.inner = conv(layers[0]), conv(layers[3]), inner

        def forward(self, x: Any) -> Any:
            around = self.down(x).relu()
            below = self.inner(torch.nn.functional.max_pool2d(around, 2))
            below = torch.nn.functional.interpolate(below, scale_factor=2)
            return self.up(torch.cat([around, below], dim=1)).relu()

    class Peer(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            lowest = torch.nn.Sequential(conv(bottom[0]), torch.nn.ReLU())
            self.first, self.last = conv(model[0]), conv(model[3])
            self.levels = Level(outer, Level(inner, lowest))

        def forward(self, x: Any) -> Any:
            x = self.first(x.permute(0, 3, 1, 2)).relu()
            return self.last(self.levels(x)).permute(0, 2, 3, 1)

    arrays = page["noisy"][:20], page["ink"][:20]
    peer_loss = torch.nn.functional.binary_cross_entropy_with_logits
    assert_trains_as_theirs(model, nn.BCEWithLogitsLoss(), arrays, 1, Peer(), peer_loss)
